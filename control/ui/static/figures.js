// A symbol's newest figures: only those that are collected have a place.

import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { moment, timeOf } from "./times.js";

const NEEDS = {
  bid: "quote", ask: "quote", mark: "funding", index: "funding", rate: "funding", next: "funding", interest: "open_interest",
};

const figure = (name) => document.querySelector(`[data-figure=${name}]`);

function set(name, value, note = "", title = "") {
  const element = figure(name);
  setText(element.querySelector("b"), value || "–");
  setText(element.querySelector("small"), note);
  setAttribute(element, "title", title);
}

const isLive = (source) => source?.state === "live" && source.attached;

export class Figures {
  constructor() {
    this.ages = new Map(); // of figures that nothing renews: when they were true
    this.clear();
  }

  clear() {
    this.last = null;
    this.book = null;
    this.quote = null;
    this.funding = null;
    this.interest = null;
    this.stream = null;
    this.base = "";
    for (const name of ["tick", ...Object.keys(NEEDS)]) set(name, "");
    this.paintLast();
    this.paintMiddle();
    for (const name of Object.keys(NEEDS)) figure(name).hidden = true;
    byId("liquidations-box").hidden = true;
    byId("liquidations").replaceChildren();
  }

  describe(stream) {
    set("tick", stream.tick_size);
    this.base = stream.base;
    for (const [name, kind] of Object.entries(NEEDS)) {
      const sources = stream[kind];
      const element = figure(name);
      element.hidden = sources.length === 0;
      if (element.hidden) set(name, "");
      // A figure whose streams are all in trouble is a memory, and looks like one.
      setAttribute(element, "data-old", String(sources.length > 0 && !sources.some(isLive)));
    }
    // What is not collected any more has no figure; what is in trouble has one of before.
    this.stream = stream;
    if (!stream.trades) this.last = null;
    if (!stream.book) this.book = null;
    if (!stream.quote.length) this.quote = null;
    if (!stream.funding.length) this.funding = null;
    if (!stream.open_interest.length) this.interest = null;
    this.paintLast();
    this.paintMiddle();
    byId("liquidations-box").hidden = stream.liquidation.length === 0;
  }

  trade(time, side, price, size) {
    this.last = { time, side, price, size };
    this.paintLast();
  }

  paintLast() {
    const { last } = this;
    set("last", last?.price, last ? `× ${last.size}` : "");
    setAttribute(figure("last").querySelector("b"), "data-side", last?.side ?? "");
    this.setAge("last", last && !isLive(this.stream?.trades) ? last.time : 0);
    this.tickAges();
  }

  // `time`: when an old figure was true; 0 for one that is true now, or for none.
  setAge(name, time) {
    setAttribute(figure(name), "data-old", String(time > 0));
    if (time) this.ages.set(name, time); else this.ages.delete(name);
  }

  // The middle of a whole book, else of the quote: a part of a book has none. What is live goes first.
  paintMiddle() {
    const live = { book: isLive(this.stream?.book), quote: this.stream?.quote.some(isLive) };
    const kinds = ["book", "quote"].filter((kind) => this[kind]?.mid);
    const kind = kinds.find((each) => live[each]) ?? kinds[0];
    const from = this[kind];
    const source = from ? `of the ${kind}` : "";
    set("mid", from?.mid, source, source || "needs a whole book or a quote");
    set("spread", from?.spread, from ? `${Number(from.spread_bps.toPrecision(3))} bp` : "", source);
    for (const name of ["mid", "spread"]) this.setAge(name, from && !live[kind] ? from.time_ms : 0);
    this.tickAges();
  }

  onBook(body) {
    this.book = body;
    this.paintMiddle();
  }

  onQuote(body) {
    this.quote = body;
    for (const side of ["bid", "ask"]) {
      const [price, size] = body[side] ?? ["", ""];
      set(side, price, size && `× ${size}`, this.received(body));
    }
    this.paintMiddle();
  }

  onFunding(body) {
    this.funding = body;
    const title = this.received(body);
    set("mark", body.mark, "", title);
    set("index", body.index, "", title);
    set("rate", body.rate_percent ? `${body.rate_percent} %` : "", body.rate_percent === null ? "pays none" : "", title);
    this.tick();
  }

  onOpenInterest(body) {
    this.interest = body;
    set("interest", body.qty, "", this.received(body));
    this.tick();
  }

  onLiquidations({ rows }) {
    byId("liquidations-none").hidden = rows.length > 0;
    byId("liquidations").replaceChildren(...rows.toReversed().map(([time, side, price, size, average, filled]) =>
      make("li", { class: side === "B" ? "buy" : "sell", title: `filled ${filled} at ${average} on average` },
        timeOf(time, "narrow", "time"),
        // SELL closes a long position, BUY a short one.
        make("span", { class: "who" }, side === "B" ? "short" : "long"),
        make("span", { class: "price" }, price), make("span", { class: "size" }, size))));
  }

  received({ source, time_ms: time }) {
    return source ? `${source}, ${moment(time)}` : "";
  }

  tickAges() {
    if (!this.nowMs) return;
    for (const [name, time] of this.ages) {
      setText(figure(name).querySelector("small"), `${format.span(Math.max(0, this.nowMs - time) / 1000)} ago`);
    }
  }

  // Countdown and age, once a second. `nowMs` is the engine's clock.
  tick(nowMs = this.nowMs) {
    this.nowMs = nowMs;
    if (!nowMs) return;
    this.tickAges();
    if (this.funding) {
      const { next_ms: next, interval_s: interval } = this.funding;
      const left = (next - nowMs) / 1000;
      setText(figure("next").querySelector("b"), !next ? "–" : left > 0 ? format.span(left) : "now");
      setText(figure("next").querySelector("small"), interval ? `every ${format.period(interval)}` : "");
      setAttribute(figure("next"), "title", next ? moment(next) : "the venue does not say");
    }
    if (this.interest?.qty) {
      const age = (nowMs - this.interest.time_ms) / 1000;
      setText(figure("interest").querySelector("small"), `${this.base} ${age >= 2 ? `${format.span(age)} ago` : ""}`.trim());
    }
  }
}
