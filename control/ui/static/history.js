// How the engine did: four charts of one time, read from the server, which keeps them.

import * as api from "./api.js";
import { colour, label, line, prepare, roundUp, timesBetween } from "./canvas.js";
import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { clock } from "./times.js";

const SPANS = { "15m": [900, "15 min"], "1h": [3600, "1 h"], "24h": [86_400, "24 h"] };
const FIRST_SPAN = "15m";
const ASK_EVERY_MS = { 1: 4000, 60: 30_000 };
const FOOT = 14; // pixels below a chart, for its times
const TONES = { yellow: "--warn", red: "--bad" };
const LIT_PX = 3; // the strip of a health that is not good

const ms = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

const PLOTS = {
  rows: { text: format.rate, lines: [["received_rows_per_s", "in", "--spark"], ["stored_rows_per_s", "stored", "--good"], ["published_rows_per_s", "published", "--faint", [2, 3]]] },
  latency: { text: ms, lines: [["latency_ms_p99", "99 %", "--spark"], ["latency_ms_p50", "50 %", "--faint"]] },
  backlog: { text: format.short, lines: [["backlog_rows", "rows", "--spark"]] },
  gaps: { text: format.short, isBars: true, lines: [["gap_count", "gaps", "--bad"]] },
};

export class History {
  // `chosen(span)`: somebody has pressed its button. `changed(lengthMs)`: there is another one.
  constructor(actions) {
    this.actions = actions;
    this.columns = null;
    this.asked = 0;
    this.hover = null;
    this.boxes = Object.fromEntries(Object.keys(PLOTS).map((name) => [name, document.querySelector(`[data-plot=${name}]`)]));
    this.buttons = Object.entries(SPANS).map(([span, [, title]]) => {
      const button = make("button", { type: "button", class: "chip", data: { span } }, title);
      button.addEventListener("click", () => { this.span = span; this.actions.chosen(span === FIRST_SPAN ? "" : span); });
      return button;
    });
    byId("spans").append(...this.buttons);
    for (const box of Object.values(this.boxes)) {
      const canvas = box.querySelector("canvas");
      canvas.addEventListener("pointermove", (event) => this.point(event.offsetX / canvas.clientWidth));
      canvas.addEventListener("pointerleave", () => this.point(null));
    }
    new ResizeObserver(() => this.paint()).observe(byId("history"));
  }

  set span(span) {
    const chosen = Object.hasOwn(SPANS, span) ? span : FIRST_SPAN;
    if (chosen === this.chosen) return;
    this.chosen = chosen;
    for (const button of this.buttons) setAttribute(button, "aria-pressed", String(button.dataset.span === this.chosen));
    this.restart();
    this.actions.changed(SPANS[chosen][0] * 1000);
  }

  // Another engine has another past, and so has another span.
  restart() {
    this.columns = null;
    this.askedMs = 0;
    this.asked += 1;
    this.isAsking = false;
  }

  // Now and then. What is there already is not asked for again.
  async tick(nowMs) {
    const every = ASK_EVERY_MS[this.columns?.step_s ?? 1];
    if (this.isAsking || nowMs - this.askedMs < every) return;
    this.isAsking = true;
    this.askedMs = nowMs;
    const asked = this.asked;
    try {
      const found = await api.history(this.chosen, this.columns?.time_ms.at(-1) ?? 0);
      if (asked === this.asked) this.take(found);
    } catch { /* the link says so */ } finally {
      if (asked === this.asked) this.isAsking = false;
    }
  }

  take(found) {
    const oldest = (found.time_ms.at(-1) ?? 0) - SPANS[this.chosen][0] * 1000;
    const known = this.columns?.time_ms ?? [];
    const from = known.findIndex((time) => time > oldest);
    const kept = from < 0 ? known.length : from;
    this.columns = Object.fromEntries(Object.entries(found).map(([name, column]) =>
      [name, Array.isArray(column) ? [...(this.columns?.[name].slice(kept) ?? []), ...column] : column]));
    this.paint();
  }

  point(part) {
    this.hover = part;
    this.paint();
  }

  // --- drawing --------------------------------------------------------------------------------

  // Times of the left and the right edge, and the sample to be read: the newest, or the one pointed at.
  get sight() {
    const { time_ms: times, step_s: step } = this.columns;
    const to = (times.at(-1) ?? Date.now()) + step * 1000;
    const from = to - SPANS[this.chosen][0] * 1000;
    if (this.hover === null) return { from, to, index: times.length - 1 };
    const at = from + this.hover * (to - from) - step * 1000;
    const index = times.findIndex((time) => time >= at);
    return { from, to, index: index < 0 ? times.length - 1 : index, isPointed: true };
  }

  paint() {
    if (!this.columns) return;
    const { sight } = this;
    for (const [name, plot] of Object.entries(PLOTS)) this.paintOne(this.boxes[name], plot, sight);
    const time = this.columns.time_ms[sight.index];
    setText(byId("history-time"), sight.isPointed && time ? `${clock(time)} UTC` : "");
  }

  paintOne(box, plot, sight) {
    const canvas = box.querySelector("canvas");
    const { context, width, height } = prepare(canvas, [240, 84]);
    const columns = plot.lines.map(([name]) => this.columns[name]);
    const most = columns.flat().reduce((top, value) => Math.max(top, value ?? 0), 0);
    const top = roundUp(most || 1);
    const x = (time) => (time - sight.from) / (sight.to - sight.from) * width;
    const y = (value) => (height - FOOT) - value / top * (height - FOOT - 12);
    this.paintFrame(context, width, height, sight, x);
    plot.lines.forEach(([, , name, dash], index) => {
      if (plot.isBars) this.paintBars(context, columns[index], x, y, name);
      else line(context, this.points(columns[index], x, y), colour(name), { dash });
    });
    this.paintHealth(context, x, height);
    label(context, plot.text(top), 2, 9);
    this.paintWords(box, plot, sight.index, most);
    if (sight.isPointed) {
      const at = x(this.columns.time_ms[sight.index]);
      line(context, [[at, 0], [at, height - FOOT]], colour("--muted"), { width: 1, dash: [2, 2] });
    }
  }

  paintFrame(context, width, height, { from, to }, x) {
    const rule = (...box) => { context.fillStyle = colour("--line"); context.fillRect(...box); };
    rule(0, height - FOOT, width, 1);
    for (const time of timesBetween(from, to, Math.max(2, Math.floor(width / 70)))) {
      const at = Math.round(x(time));
      rule(at, 0, 1, height - FOOT);
      if (at > 16 && at < width - 16) label(context, clock(time).slice(0, 5), at, height - 3, "center");
    }
  }

  points(values, x, y) {
    const { time_ms: times, step_s: step } = this.columns;
    const points = [];
    values.forEach((value, index) => {
      if (index && times[index] - times[index - 1] > 2500 * step) points.push(null);
      points.push(value === null ? null : [x(times[index]), y(value)]);
    });
    return points;
  }

  paintBars(context, values, x, y, name) {
    const { time_ms: times, step_s: step } = this.columns;
    context.fillStyle = colour(name);
    values.forEach((value, index) => {
      if (!value) return;
      const left = x(times[index]), right = x(times[index] + step * 1000);
      context.fillRect(left, y(value), Math.max(2, right - left), y(0) - y(value));
    });
  }

  paintHealth(context, x, height) {
    const { time_ms: times, health, step_s: step } = this.columns;
    health.forEach((light, index) => {
      if (!TONES[light]) return;
      context.fillStyle = colour(TONES[light]);
      context.fillRect(x(times[index]), height - FOOT, Math.max(1, x(times[index] + step * 1000) - x(times[index])), LIT_PX);
    });
  }

  paintWords(box, plot, index, most) {
    const said = plot.lines.map(([name, title]) => {
      const value = this.columns[name][index];
      return [title, value === null || value === undefined ? "–" : plot.text(value)];
    });
    const list = box.querySelector("dl");
    if (!list.children.length) {
      list.append(...plot.lines.map(([, title, name]) => make("div", { data: { line: name.slice(2) } }, make("dt", {}, title), make("dd", {}))));
    }
    said.forEach(([, text], each) => setText(list.children[each].lastChild, text));
    const words = said.map(([title, text]) => `${title} ${text}`).join(", ");
    setAttribute(box.querySelector("canvas"), "aria-label",
      `${box.querySelector("h3").textContent}, ${SPANS[this.chosen][1]}: now ${words}; at most ${plot.text(most)}`);
  }
}
