// The book of one symbol, the best levels of each side. Prices are the engine's exact strings.

import { takeSnapshot } from "./api.js";
import { Columns } from "./columns.js";
import { byId, make, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { report } from "./log.js";

const STATES = {
  known: ["live", "ok", ""],
  partial: ["partial", "warn",
    "Joined after the last snapshot: each level shown is true, others may be missing. What is stored is not affected."],
  unknown: ["resyncing", "warn", "Updates were missed. The book is shown again with the next snapshot, usually within seconds."],
};

const decimalsOf = (levels) => Math.max(0, ...levels.map(([, size]) => (size.split(".")[1] ?? "").length));
// Seven characters at most.
const sumText = (value, decimals) => (value >= 100_000 ? format.short(value)
  : value.toFixed(Math.min(decimals, 5 - Math.floor(Math.log10(Math.max(value, 1))))));
const sumOf = (levels) => levels.reduce((sum, level) => sum + Number(level[1]), 0);

class Side {
  constructor(list, side, rowCount) {
    this.rows = Array.from({ length: rowCount }, () => {
      const parts = [make("span", { class: "price" }), make("span", { class: "size" }), make("span", { class: "total" })];
      return { element: make("li", { class: side }, ...parts), parts, bar: "" };
    });
    const isReversed = side === "ask"; // the best ask stands at the bottom, next to the best bid
    list.replaceChildren(...(isReversed ? [...this.rows].reverse() : this.rows).map((row) => row.element));
  }

  paint(levels, largest) {
    let total = 0;
    const decimals = decimalsOf(levels);
    this.rows.forEach((row, index) => {
      const level = levels[index];
      const [price, size] = level ?? ["", ""];
      total += Number(size);
      setText(row.parts[0], price);
      setText(row.parts[1], size);
      // A running sum is a reading aid, not a value of the venue's: a float will do.
      setText(row.parts[2], level && largest ? sumText(total, decimals) : "");
      const bar = `${level && largest ? (100 * total / largest).toFixed(1) : 0}% 17px`;
      if (row.bar !== bar) { row.element.style.backgroundSize = bar; row.bar = bar; }
    });
  }
}

export class Ladder {
  // `mayFetch()`: whether whoever looks may have a book fetched.
  constructor(mayFetch, levels = 15) {
    this.mayFetch = mayFetch;
    this.levels = levels;
    this.fetchedOf = "";
    this.asks = new Side(byId("asks"), "ask", levels);
    this.bids = new Side(byId("bids"), "bid", levels);
    this.columns = new Columns(byId("book-box"), 23, 9);
    this.whole = byId("book-whole");
    this.whole.addEventListener("click", () => this.fetchWhole((error) => report("error", `${this.stream.symbol}: ${error.message}`)));
  }

  // The ring may hold nothing from before; the engine then takes a snapshot for everybody.
  async fetchWhole(onRefused) {
    this.whole.disabled = true;
    try {
      await takeSnapshot(this.stream);
    } catch (error) {
      onRefused(error);
      this.whole.disabled = false;
    }
  }

  clear() {
    this.columns.reset();
    this.state = "";
    this.asks.paint([], 0);
    this.bids.paint([], 0);
    setText(byId("between-mid"), "");
    setText(byId("between-spread"), "");
    this.tag("", "", "");
  }

  tag(text, tone, note) {
    setText(byId("book-state"), text);
    setAttribute(byId("book-state"), "data-tone", tone);
    setText(byId("book-note"), note);
    const isPartial = text === STATES.partial[0];
    if (!isPartial) this.whole.disabled = false;
    this.whole.hidden = !isPartial;
  }

  // What the stream is, which matters more than what its rows made of the book.
  describe(stream) {
    this.stream = stream;
    setAttribute(byId("book-box"), "data-absent", String(!stream?.attached));
    if (stream?.attached) { this.paintTag(); return; }
    this.clear();
    if (!stream) this.tag("off", "off", "The book of this symbol is not collected.");
    else this.tag("waiting", "warn", stream.reason);
  }

  paintTag() {
    const { state, reason } = this.stream;
    if (state !== "live") this.tag(state, "warn", reason);
    else if (this.state) this.tag(...STATES[this.state]);
    if (state === "live" && this.state === "partial") this.fetchOnce();
  }

  // Who chooses a book wants all of it. Once: where that is refused, the button is there.
  fetchOnce() {
    const { venue, symbol, epoch } = this.stream;
    const of = `${venue}/${symbol}/${epoch}`;
    if (this.fetchedOf === of || !this.mayFetch()) return;
    this.fetchedOf = of;
    this.fetchWhole(() => {});
  }

  paint(book) {
    this.state = book.state;
    this.paintTag();
    const bids = book.bids.slice(0, this.levels), asks = book.asks.slice(0, this.levels);
    const levels = [...bids, ...asks];
    this.columns.fit(levels.map(([price]) => price), levels.map(([, size]) => size));
    // Sums over a part of the book would be sums of nothing.
    const largest = book.state === "known" ? Math.max(sumOf(bids), sumOf(asks)) : 0;
    this.asks.paint(asks, largest);
    this.bids.paint(bids, largest);
    setText(byId("between-mid"), book.mid ?? "");
    setText(byId("between-spread"), book.spread ?? "");
  }
}
