// Prices by the minute as candles, with the volume below. Exact strings come in and are shown; only
// places on the canvas are floats.

import { colour, label, line, prepare, roundUp, timesBetween } from "./canvas.js";
import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { clock } from "./times.js";

const MINUTE_MS = 60_000;
const KEPT = 1440;
const SPANS = { "1 h": 60, "4 h": 240, "24 h": 1440 };
const WIDTHS = [1, 5, 15, 30, 60]; // minutes that a candle may have
const NARROWEST_PX = 5;
const FOOT = 14;
const VOLUME_PART = 0.2;
const FIELDS = ["time", "open", "high", "low", "close", "volume", "bought", "isPart"];

const higher = (a, b) => (Number(b) > Number(a) ? b : a);
const lower = (a, b) => (Number(b) < Number(a) ? b : a);

function merged(candle, next) {
  return {
    ...candle, high: higher(candle.high, next.high), low: lower(candle.low, next.low), close: next.close,
    volume: candle.volume + next.volume, bought: candle.bought + next.bought, isPart: candle.isPart || next.isPart,
  };
}

export class CandleChart {
  constructor() {
    this.canvas = byId("candles");
    this.minutes = new Map();
    this.count = SPANS["1 h"];
    this.hover = null;
    this.buttons = Object.entries(SPANS).map(([title, count]) => {
      const button = make("button", { type: "button", class: "chip", "aria-pressed": String(count === this.count) }, title);
      button.addEventListener("click", () => this.choose(count, button));
      return button;
    });
    byId("candle-spans").append(...this.buttons);
    this.canvas.addEventListener("pointermove", (event) => { this.hover = event.offsetX; this.paint(); });
    this.canvas.addEventListener("pointerleave", () => { this.hover = null; this.paint(); });
    new ResizeObserver(() => this.paint()).observe(this.canvas);
  }

  choose(count, pressed) {
    this.count = count;
    for (const button of this.buttons) setAttribute(button, "aria-pressed", String(button === pressed));
    this.paint();
  }

  clear() {
    this.minutes.clear();
    this.decimals = 0;
    this.paint();
  }

  describe({ trades, price_decimals: decimals, symbol, base }) {
    this.decimals = decimals ?? 0;
    this.symbol = symbol;
    this.base = base;
    this.trouble = trades ? (trades.attached ? "" : trades.reason) : "The trades of this symbol are not collected.";
    this.paint();
  }

  take({ is_new: isNew, rows }) {
    if (isNew) this.minutes.clear();
    for (const row of rows) this.set(row);
    this.forget();
  }

  // Bars of the database: what the rings have whole is newer.
  takePast(rows) {
    for (const row of rows) if (this.minutes.get(row[0])?.isPart !== false) this.set(row);
    this.forget();
  }

  set(row) { this.minutes.set(row[0], Object.fromEntries(FIELDS.map((name, index) => [name, row[index]]))); }

  forget() {
    while (this.minutes.size > KEPT) this.minutes.delete(Math.min(...this.minutes.keys()));
    this.paint();
  }

  // --- what is seen ---------------------------------------------------------------------------

  // As many minutes to a candle as it takes for each to be wide enough.
  widthOf(room) { return WIDTHS.find((width) => this.count / width * NARROWEST_PX <= room) ?? WIDTHS.at(-1); }

  candles(width, from) {
    const step = width * MINUTE_MS;
    const found = new Map();
    for (const minute of [...this.minutes.values()].sort((a, b) => a.time - b.time)) {
      if (minute.time < from) continue;
      const time = Math.floor(minute.time / step) * step;
      const before = found.get(time);
      found.set(time, before ? merged(before, minute) : { ...minute, time });
    }
    return [...found.values()];
  }

  paint() {
    const { context, width, height } = prepare(this.canvas, [700, 260]);
    const last = Math.max(...this.minutes.keys());
    setText(byId("candles-note"), this.minutes.size ? "" : this.trouble || "No trade has come yet.");
    if (!this.minutes.size) { setText(byId("candle-reading"), ""); this.say([]); return; }
    const axis = Math.max(52, 7 * this.priceText(Number(this.minutes.get(last).high)).length);
    const room = width - axis;
    const minutes = this.widthOf(room);
    const step = minutes * MINUTE_MS;
    const to = Math.floor(last / step) * step + step;
    const from = to - Math.ceil(this.count / minutes) * step;
    const candles = this.candles(minutes, from);
    const sight = { context, room, width, height, from, to, step, x: (time) => (time - from) / (to - from) * room };
    this.paintPrices(sight, candles);
    this.paintReading(sight, candles, minutes);
    this.say(candles, minutes);
  }

  priceText(value) { return value.toFixed(this.decimals); }

  paintPrices(sight, candles) {
    const { context, room, width, height, from, to, x, step } = sight;
    const high = Math.max(...candles.map((each) => Number(each.high))), low = Math.min(...candles.map((each) => Number(each.low)));
    const margin = (high - low) * 0.06 || Math.abs(high) * 1e-4 || 1;
    const foot = height - FOOT, top = 6, bottom = foot * (1 - VOLUME_PART);
    const y = (price) => bottom - (price - low + margin) / (high - low + 2 * margin) * (bottom - top);
    sight.y = y;
    const rule = (...box) => { context.fillStyle = colour("--line"); context.fillRect(...box); };
    const grid = roundUp((high - low + 2 * margin) / 8);
    for (let price = Math.ceil((low - margin) / grid) * grid; price <= high + margin; price += grid) {
      rule(0, Math.round(y(price)), room, 1);
      label(context, this.priceText(price), width - 2, y(price) + 3, "right");
    }
    for (const time of timesBetween(from, to, Math.max(2, Math.floor(room / 80)))) {
      rule(Math.round(x(time)), 0, 1, foot);
      if (x(time) > 16 && x(time) < room - 16) label(context, clock(time).slice(0, 5), x(time), height - 3, "center");
    }
    rule(0, foot, room, 1);
    const most = Math.max(...candles.map((each) => each.volume)) || 1;
    const body = Math.max(1, Math.floor((x(from + step) - x(from)) * 0.7));
    for (const candle of candles) this.paintCandle(sight, candle, body, most, foot);
    this.paintLast(sight, candles.at(-1));
  }

  paintCandle({ context, x, y, step, height }, candle, body, most, foot) {
    const [open, high, low, close] = [candle.open, candle.high, candle.low, candle.close].map(Number);
    const middle = Math.round(x(candle.time + step / 2)), left = Math.round(middle - body / 2);
    context.fillStyle = colour(close >= open ? "--buy" : "--sell");
    context.globalAlpha = candle.isPart ? 0.45 : 1; // some of its trades may be missing
    context.fillRect(middle, y(high), 1, Math.max(1, y(low) - y(high)));
    context.fillRect(left, Math.min(y(open), y(close)), body, Math.max(1, Math.abs(y(open) - y(close))));
    context.globalAlpha = candle.isPart ? 0.15 : 0.3;
    const volume = candle.volume / most * height * VOLUME_PART * 0.9;
    context.fillRect(left, foot - volume, body, volume);
    context.globalAlpha = 1;
  }

  paintLast({ context, y, room, width }, { open, close }) {
    const at = y(Number(close));
    const tone = colour(Number(close) >= Number(open) ? "--buy" : "--sell");
    line(context, [[0, at], [room, at]], tone, { width: 1, dash: [2, 3] });
    context.fillStyle = tone;
    context.fillRect(room, at - 7, width - room, 14);
    label(context, close, width - 2, at + 3.5, "right", "--panel");
  }

  // The candle that is pointed at, else the newest.
  paintReading(sight, candles, minutes) {
    const { context, x, y, step, room, height } = sight;
    const pointed = this.hover === null ? null : candles.find((each) => x(each.time + step) >= this.hover);
    const candle = pointed ?? candles.at(-1);
    const many = candle.isPart ? ", some trades are missing" : "";
    setText(byId("candle-reading"), `${clock(candle.time).slice(0, 5)} UTC, ${minutes} min: `
      + `O ${candle.open} H ${candle.high} L ${candle.low} C ${candle.close}, volume ${format.short(Number(candle.volume.toPrecision(6)))}${many}`);
    if (!pointed) return;
    const at = x(candle.time + step / 2);
    line(context, [[at, 0], [at, height - FOOT]], colour("--muted"), { width: 1, dash: [2, 2] });
    line(context, [[0, y(Number(candle.close))], [room, y(Number(candle.close))]], colour("--muted"), { width: 1, dash: [2, 2] });
  }

  say(candles, minutes = 1) {
    const last = candles.at(-1);
    const top = candles.map((each) => each.high).reduce(higher, "0"), low = candles.map((each) => each.low).reduce(lower, top);
    setAttribute(this.canvas, "aria-label", last
      ? `Price of ${this.symbol}, ${candles.length} candles of ${minutes} min: last ${last.close}, high ${top}, low ${low}`
      : "No prices yet");
  }
}
