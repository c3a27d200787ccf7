// A symbol's newest figures: only those that are collected have a place.

import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

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

export class Figures {
  constructor() {
    this.clear();
  }

  clear() {
    this.last = null;
    this.book = null;
    this.quote = null;
    this.funding = null;
    this.interest = null;
    this.base = "";
    for (const name of ["last", "mid", "spread", "tick", ...Object.keys(NEEDS)]) set(name, "");
    figure("last").querySelector("b").removeAttribute("data-side");
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
      // A figure whose streams are all in trouble is a memory, and looks like one.
      setAttribute(element, "data-old", String(sources.length > 0 && !sources.some((source) => source.state === "live")));
    }
    byId("liquidations-box").hidden = stream.liquidation.length === 0;
  }

  trade(price, size, side) {
    set("last", price, `× ${size}`);
    setAttribute(figure("last").querySelector("b"), "data-side", side);
  }

  // The middle of a whole book, else of the quote: a part of a book has none.
  paintMiddle() {
    const from = this.book?.mid ? this.book : this.quote?.mid ? this.quote : null;
    const source = from ? `of the ${from === this.book ? "book" : "quote"}` : "";
    set("mid", from?.mid, source, source || "needs a whole book or a quote");
    set("spread", from?.spread, from ? `${Number(from.spread_bps.toPrecision(3))} bp` : "", source);
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
        make("span", { class: "time" }, format.clock(time).slice(0, 8)),
        // SELL closes a long position, BUY a short one.
        make("span", { class: "who" }, side === "B" ? "short" : "long"),
        make("span", { class: "price" }, price), make("span", { class: "size" }, size))));
  }

  received({ source, time_ms: time }) {
    return source ? `${source}, ${format.clock(time)} UTC` : "";
  }

  // Countdown and age, once a second. `nowMs` is the engine's clock.
  tick(nowMs = this.nowMs) {
    this.nowMs = nowMs;
    if (!nowMs) return;
    if (this.funding) {
      const { next_ms: next, interval_s: interval } = this.funding;
      const left = (next - nowMs) / 1000;
      setText(figure("next").querySelector("b"), !next ? "–" : left > 0 ? format.span(left) : "now");
      setText(figure("next").querySelector("small"), interval ? `every ${format.period(interval)}` : "");
      setAttribute(figure("next"), "title", next ? `${format.clock(next).slice(0, 8)} UTC` : "the venue does not say");
    }
    if (this.interest?.qty) {
      const age = (nowMs - this.interest.time_ms) / 1000;
      setText(figure("interest").querySelector("small"), `${this.base} ${age >= 2 ? `${format.span(age)} ago` : ""}`.trim());
    }
  }
}
