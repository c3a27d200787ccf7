// What is missing of each stream, when and why: a narrow strip in its row, a line and a list beside
// the book of the chosen one.

import { colour, label, prepare, timesBetween } from "./canvas.js";
import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { clock, timeOf } from "./times.js";

const KEPT_MS = 86_400_000;
const KEPT_OF_ONE = 500;
const LISTED = 8;
const FOOT = 14;
const CAUSES = {
  sequence: "ids jumped on a live connection", reconnect: "ids jumped over a reconnect",
  restart: "ids jumped over a restart of its shard", ring_full: "the writer was too far behind",
  resync: "the book's chain broke", history_short: "the repeated past did not reach back far enough",
  renumbered: "the venue counts anew", poll_missed: "polls failed or had to wait",
  silence: "nothing came on a live connection", journal_loss: "lost after their receipt",
  not_stored: "kept out of the database on purpose", unreadable: "came and could not be read",
  quarantined: "refused by the database, in quarantine", stopped: "nobody wanted the stream",
};
const ON_PURPOSE = new Set(["not_stored", "stopped"]);

const wordsOf = (cause) => CAUSES[cause] ?? cause.replaceAll("_", " ");
const toneOf = (cause) => (ON_PURPOSE.has(cause) ? "--idle" : "--bad");

export class Gaps {
  constructor() {
    this.line = byId("gap-line");
    this.spanMs = 900_000;
    this.clear();
  }

  // The engine tells all of them anew.
  clear() { this.bySlot = new Map(); }

  take(gaps) {
    for (const [slot, cause, found, from, to, missing] of gaps) {
      const known = this.bySlot.get(slot) ?? [];
      known.push({ cause, found, from, to, missing });
      if (known.length > KEPT_OF_ONE) known.shift();
      this.bySlot.set(slot, known);
    }
  }

  // A gap lies where it is missing, or where it was found: whichever is in sight.
  within(slot, nowMs) {
    const since = nowMs - Math.min(this.spanMs, KEPT_MS);
    return (this.bySlot.get(slot) ?? []).filter((gap) => Math.max(gap.to, gap.found) >= since);
  }

  bars(context, gaps, nowMs, width, top, height) {
    const x = (time) => (time - nowMs + this.spanMs) / this.spanMs * width;
    for (const gap of gaps) {
      const left = Math.max(0, x(gap.from));
      context.fillStyle = colour(toneOf(gap.cause));
      context.fillRect(Math.min(left, width - 2), top, Math.max(2, Math.min(width, x(gap.to)) - left), height);
    }
    return x;
  }

  // --- in the table ---------------------------------------------------------------------------

  // Most rows never have one, and so no canvas either.
  paintStrip(row, nowMs) {
    const gaps = this.within(row.slot, nowMs);
    const { gapStrip } = row.cells;
    if (!gaps.length && !gapStrip) return;
    row.cells.gapStrip ??= row.cells.gaps.appendChild(make("canvas", { class: "gap-strip", "aria-hidden": "true" }));
    const { context, width, height } = prepare(row.cells.gapStrip, [40, 4]);
    if (gaps.length) {
      context.fillStyle = colour("--line");
      context.fillRect(0, 0, width, height);
    }
    this.bars(context, gaps, nowMs, width, 0, height);
    const counts = new Map();
    for (const { cause } of gaps) counts.set(cause, (counts.get(cause) ?? 0) + 1);
    setAttribute(row.cells.gaps, "title", [...counts].map(([cause, count]) => `${count} × ${wordsOf(cause)}`).join(", "));
  }

  // --- beside the book ------------------------------------------------------------------------

  paintPanel(row, nowMs) {
    const gaps = this.within(row.slot, nowMs);
    const span = format.period(this.spanMs / 1000);
    setText(byId("gaps-of"), `of ${format.kind(row.kind)}, last ${span}, UTC`);
    const { context, width, height } = prepare(this.line, [420, 34]);
    context.fillStyle = colour("--good");
    context.globalAlpha = 0.25;
    context.fillRect(0, 0, width, height - FOOT);
    context.globalAlpha = 1;
    const x = this.bars(context, gaps, nowMs, width, 0, height - FOOT);
    for (const time of timesBetween(nowMs - this.spanMs, nowMs, Math.floor(width / 80))) {
      if (x(time) > 16 && x(time) < width - 16) label(context, clock(time).slice(0, 5), x(time), height - 3, "center");
    }
    setAttribute(this.line, "aria-label", `${gaps.length === 1 ? "1 gap" : `${gaps.length} gaps`} in the last ${span}`);
    byId("gaps-none").hidden = gaps.length > 0;
    const shown = gaps.slice(-LISTED).reverse();
    const key = `${row.key} ${shown.map((gap) => `${gap.found} ${gap.from}`).join()} ${gaps.length}`;
    if (key === this.listed) return;
    this.listed = key;
    const more = gaps.length - shown.length;
    byId("gap-list").replaceChildren(...shown.map((gap) => make("li", { data: { purpose: String(ON_PURPOSE.has(gap.cause)) } },
      timeOf(gap.from, "second", "time"),
      make("span", { class: "why" }, wordsOf(gap.cause)),
      make("span", { class: "much" }, [lengthOf(gap), gap.missing >= 0 ? `${format.count(gap.missing)} missing` : "nobody knows how many"].filter(Boolean).join(", ")))),
    ...(more > 0 ? [make("li", { class: "muted" }, `and ${format.count(more)} before`)] : []));
  }
}

function lengthOf({ from, to }) {
  const lasted = to - from;
  return lasted < 1 ? "" : lasted < 1000 ? `${lasted} ms` : format.span(lasted / 1000);
}
