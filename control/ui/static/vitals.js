// The engine in figures: totals, the venues' budgets, the processes.

import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { Counter } from "./rates.js";

const totals = { received: new Counter(), stored: new Counter(), published: new Counter() };
const cpu = new Map();

// As many children as there are items: those that are there are kept, so that nothing flickers.
export function fit(parent, count, makeChild) {
  while (parent.childElementCount > count) parent.lastChild.remove();
  while (parent.childElementCount < count) parent.append(makeChild());
}

function setTotal(name, value, tone = "", title = "") {
  const element = document.querySelector(`[data-total=${name}]`);
  setText(element, value);
  setAttribute(element.closest("div"), "data-tone", tone);
  setAttribute(element.closest("div"), "title", title);
}

// What hardly ever happens has its place only once it has.
function setTrouble(name, count, title) {
  setTotal(name, format.short(count), "warn", title);
  document.querySelector(`[data-total=${name}]`).closest("div").hidden = count === 0;
}

export function paintTotals(status) {
  setTotal("uptime", format.span(status.uptime_s));
  const { writer } = status;
  if (!writer) return;
  for (const [name, counter] of Object.entries(totals)) {
    counter.update(writer[name], status.now_ms);
    setTotal(name, format.rate(counter.rate));
  }
  setTotal("backlog", format.short(writer.backlog_rows), writer.backlog_rows > 100_000 ? "warn" : "");
  setTotal("journal", format.bytes(writer.journal_bytes));
  const lost = writer.dropped + writer.lost;
  setTotal("lost", format.short(lost), lost ? "bad" : "",
    `${format.count(writer.dropped)} dropped: a ring was full. ${format.count(writer.lost)} lost after their receipt: see the gaps.`);
  setTotal("quarantined", format.short(writer.quarantined), writer.quarantined ? "bad" : "");
  setTrouble("overrun", writer.overrun, "Redis was too slow for these. The database is not affected.");
  setTrouble("inexact", writer.inexact, "A number had more digits than are stored exactly. Such rows are flagged.");
  const stage = writer.latency_us.database;
  setTotal("latency", stage?.p99 === undefined ? "–" : (stage.p99 / 1000).toFixed(stage.p99 < 10_000 ? 1 : 0), "",
    "From reception to the committed row, of the rows of the last minute." + receiptNote(writer.latency_us.receipt));
}

// Of live rows alone: how old a replayed row or a sample is says nothing of the way here.
function receiptNote(stage) {
  if (stage?.p50 === undefined) return "";
  return ` From the venue's event to reception, by two clocks: half within ${(stage.p50 / 1000).toFixed(1)} ms, 99 % within ${(stage.p99 / 1000).toFixed(1)} ms.`;
}

const makeBudget = () => make("li", {},
  make("span", { class: "name" }),
  make("span", { class: "meter", role: "meter", "aria-valuemin": "0" }, make("span", { class: "level" })),
  make("span", { class: "value" }), make("span", { class: "state" }));

export function paintLimiters(limiters) {
  byId("limiters-empty").hidden = limiters.length > 0;
  const list = byId("limiters");
  fit(list, limiters.length, makeBudget);
  limiters.forEach((limiter, index) => {
    const [name, meter, value, state] = list.children[index].children;
    const used = Math.max(limiter.used, limiter.venue_used ?? 0);
    const part = limiter.budget > 0 ? Math.min(1, used / limiter.budget) : 0;
    setText(name, `${format.venue(limiter.venue)} · ${limiter.pool.replaceAll("_", " ")}`);
    const per = limiter.window_s === null ? "at once" : `per ${format.period(limiter.window_s)}`;
    setText(value, `${format.short(Math.round(used))} / ${format.short(limiter.budget)} ${per}`);
    meter.firstChild.style.width = `${(100 * part).toFixed(1)}%`;
    setAttribute(meter, "aria-valuenow", String(Math.round(used)));
    setAttribute(meter, "aria-valuemax", String(limiter.budget));
    setAttribute(meter, "aria-label", name.textContent);
    const tone = limiter.blocked_s > 0 || part >= 0.95 ? "bad" : part >= 0.75 ? "warn" : "";
    setAttribute(list.children[index], "data-tone", tone);
    const notes = [];
    if (limiter.blocked_s > 0) {
      const why = limiter.blocked_reason ? ` (${limiter.blocked_reason})` : "";
      notes.push(`blocked for ${format.span(limiter.blocked_s)}${why}`);
    }
    if (limiter.waiting_count > 0) notes.push(`${limiter.waiting_count} waiting`);
    setText(state, notes.join(", "));
  });
}

function cpuOf(name, seconds, nowMs) {
  if (!cpu.has(name)) cpu.set(name, new Counter());
  cpu.get(name).update(seconds, nowMs);
  const { rate } = cpu.get(name);
  return rate === null ? "–" : `${Math.round(rate * 100)} %`;
}

export function paintProcesses(status) {
  const lines = status.shards.map((shard) => [
    `shard ${shard.shard}`, shard.state, cpuOf(`shard-${shard.shard}`, shard.cpu_s, status.now_ms),
    format.bytes(shard.rss_bytes), `${shard.loop_lag_ms.toFixed(1)} ms`, shard.connections, shard.reconnects, shard.malformed,
  ]);
  const { writer, control } = status;
  if (writer) lines.push(["writer", writer.state, cpuOf("writer", writer.cpu_s, status.now_ms), format.bytes(writer.rss_bytes), "–", "–", "–", "–"]);
  if (control) {
    lines.push(["control", control.state, cpuOf("control", control.cpu_s, status.now_ms), format.bytes(control.rss_bytes),
      `${control.loop_lag_ms.toFixed(1)} ms`, "–", "–", "–"]);
  }
  const body = byId("processes").tBodies[0];
  fit(body, lines.length, () => make("tr", {}, make("th", { scope: "row" }), make("td"),
    ...Array.from({ length: 6 }, () => make("td", { class: "num" }))));
  lines.forEach((line, index) => {
    setAttribute(body.rows[index], "data-child", line[1]);
    line.forEach((value, each) => setText(body.rows[index].cells[each], String(value)));
  });
}
