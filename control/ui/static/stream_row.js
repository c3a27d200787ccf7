// One stream's row: made once, then only what changed is written.

import { make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { Counter } from "./rates.js";

export const keyOf = (stream) => `${stream.venue}/${stream.symbol}/${stream.kind}/${stream.transport}`;
export const nameOf = (stream) => `${stream.symbol} ${format.kind(stream.kind)}${stream.transport === "Ws" ? "" : " by HTTP"} on ${format.venue(stream.venue)}`;

export const FLUSH_KNOBS = ["flush_rows", "flush_interval_ms", "max_rows_per_copy"];
const SWITCHES = { db: "Store in the database", redis: "Publish to Redis" };
const COUNTS = ["gaps", "missing", "duplicates"];

function makeSwitch(stream, name) {
  return make("button", {
    type: "button", class: "toggle", tabIndex: -1, role: "switch", data: { knob: name },
    "aria-label": `${SWITCHES[name]}: ${nameOf(stream)}`,
  }, make("span", { class: "thumb" }));
}

function makeSign(stream, name, label, sign) {
  return make("button", {
    type: "button", class: name, tabIndex: -1, title: label, "aria-label": `${label}: ${nameOf(stream)}`, data: { act: name },
  }, make("span", { class: `sign sign-${sign}`, "aria-hidden": "true" }));
}

export function makeRow(key, stream) {
  const cells = {};
  const cell = (name, ...children) => {
    cells[name] = make("td", { role: "gridcell", class: `c-${name}` }, ...children);
    return cells[name];
  };
  cells.box = make("input", { type: "checkbox", tabIndex: -1, "aria-label": `Mark ${nameOf(stream)}`, data: { act: "mark" } });
  cells.word = make("span", { class: "word" });
  cells.reason = make("span", { class: "reason" });
  cells.why = make("span"); // the reason once more, where the state's column is too narrow for it
  cells.spark = make("canvas", { class: "spark", "aria-hidden": "true" });
  cells.rateText = make("span", { class: "value" });
  cells.dbSwitch = makeSwitch(stream, "db");
  cells.redisSwitch = makeSwitch(stream, "redis");
  cells.tune = makeSign(stream, "tune", "Knobs", "knobs");
  const venue = format.exchange(stream.venue), kind = format.kind(stream.kind);
  const via = stream.transport === "Ws" ? [] : [make("span", { class: "via" }, "HTTP")];
  const element = make("tr", { role: "row", tabIndex: -1, data: { key }, "aria-selected": "false" },
    cell("mark", cells.box),
    cell("state", make("span", { class: "dot" }), cells.word, cells.reason),
    cell("symbol", make("span", { class: "symbol-text" }, stream.symbol),
      make("span", { class: "sub" }, [kind, ...(via.length ? ["HTTP"] : []), venue].join(" · "), cells.why)),
    cell("venue", venue),
    cell("kind", kind, ...via),
    cell("rate", cells.spark, cells.rateText),
    ...["lag", "rows", ...COUNTS].map((name) => cell(name, make("span"))),
    cell("db", cells.dbSwitch), cell("redis", cells.redisSwitch),
    cell("acts", cells.tune, makeSign(stream, "stop", "Stop stream", "stop")));
  for (const name of ["rate", "lag", "rows", ...COUNTS]) cells[name].classList.add("num");
  cells.symbol.title = stream.symbol;
  cells.venue.title = format.venue(stream.venue);
  cells.kind.title = `${stream.kind} over ${stream.transport}`;
  return { key, element, cells, counter: new Counter(), text: `${key} ${format.venue(stream.venue)} ${kind}`.toLowerCase() };
}

export function paintRow(row, nowMs, isReadOnly) {
  const { cells } = row;
  setAttribute(row.element, "data-state", row.state);
  setText(cells.word, row.state);
  const reason = row.state === "live" ? "" : row.reason;
  setText(cells.reason, reason);
  setText(cells.why, reason && ` · ${reason}`);
  setAttribute(cells.state, "title", row.reason || row.state);
  setText(cells.rateText, format.rate(row.counter.rate));
  setText(cells.rows.firstChild, format.short(row.rows));
  setAttribute(cells.rows, "title", format.count(row.rows));
  for (const name of COUNTS) {
    setText(cells[name].firstChild, format.short(row[name]));
    setAttribute(cells[name], "data-any", String(row[name] > 0));
  }
  setAttribute(cells.dbSwitch, "aria-checked", String(row.pending?.db ?? row.db));
  setAttribute(cells.redisSwitch, "aria-checked", String(row.pending?.redis ?? row.redis));
  for (const each of [cells.dbSwitch, cells.redisSwitch]) setAttribute(each, "aria-readonly", String(isReadOnly));
  const isTuned = FLUSH_KNOBS.some((name) => row[name] !== null);
  setAttribute(cells.tune, "data-tuned", String(isTuned));
  setAttribute(cells.tune, "title", isTuned ? "Knobs: flushes by values of its own" : "Knobs");
  paintLag(row, nowMs);
}

export function paintLag(row, nowMs) {
  row.lagMs = row.last_recv_ns ? nowMs - Math.floor(row.last_recv_ns / 1e6) : null;
  setText(row.cells.lag.firstChild, format.lag(row.lagMs));
}
