// What the databases take on disk, how long that can go on, and how they are looked after.

import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { dateOf, moment } from "./times.js";
import { fit } from "./vitals.js";

const FAR_DAYS = 3650;
const ms = (ns) => Math.floor(ns / 1e6);
const known = (value, textOf) => (value === null ? "–" : textOf(value));

function daysText(days) {
  if (days >= FAR_DAYS) return "lasts ten years or more";
  return `full in ${days < 10 ? days.toFixed(1) : Math.round(days)} days`;
}

// Of each database on its own: they may be on different disks.
function roomNote({ disk_free_bytes: free, days_until_full: days }) {
  if (free === null) return "free disk unknown";
  return `${format.bytes(free)} free` + (days === null ? "" : `, ${daysText(days)}`);
}

const cellsOf = (name, table) => [
  name, format.bytes(table.size_bytes), known(table.bytes_a_row, (value) => `${value.toFixed(1)} B`),
  known(table.bytes_a_day, format.bytes), known(table.rows_a_day, format.short),
  table.compressed_bytes ? `${(table.before_compression_bytes / table.compressed_bytes).toFixed(1)} ×` : "–",
  dateOf(ms(table.oldest_ns)), table.kept_for || "ever",
];

function taskText({ task, last_ns: last, next_ns: next, did, error }) {
  const when = last ? `${moment(ms(last))}, next ${moment(ms(next))}` : "not yet";
  const idle = last ? "nothing to do" : "nothing so far";
  return `${task.replaceAll("_", " ")}: ${error || did || idle} (${when})`;
}

export function paintStorage(databases) {
  byId("storage-panel").hidden = databases.length === 0;
  const several = databases.length > 1;
  const nameOf = (database, text) => (several ? `${database} · ${text}` : text);
  const days = databases.map((each) => each.days_until_full ?? FAR_DAYS);
  setText(byId("storage-note"), databases.map((each) => nameOf(each.database, roomNote(each))).join("; "));
  const least = Math.min(...days);
  setAttribute(byId("storage-note"), "data-tone", least < 1 ? "bad" : least < 7 ? "warn" : "");

  const lines = databases.flatMap(({ database, tables }) =>
    tables.filter((table) => table.oldest_ns !== null).map((table) => cellsOf(nameOf(database, table.table), table)));
  const body = byId("storage").tBodies[0];
  fit(body, lines.length, () => make("tr", {}, make("th", { scope: "row" }),
    ...Array.from({ length: 7 }, () => make("td", { class: "num" }))));
  lines.forEach((line, index) => line.forEach((value, each) => setText(body.rows[index].cells[each], value)));

  const tasks = databases.flatMap(({ database, error, tasks: each }) => [
    ...(error ? [[nameOf(database, error), true]] : []),
    ...each.map((task) => [nameOf(database, taskText(task)), task.error !== ""]),
  ]);
  const list = byId("upkeep-tasks");
  fit(list, tasks.length, () => make("li"));
  tasks.forEach(([text, isBad], index) => {
    setText(list.children[index], text);
    setAttribute(list.children[index], "data-tone", isBad ? "warn" : "");
  });
}
