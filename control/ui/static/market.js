// Tape and ladder of one symbol. Prices are the engine's exact decimal strings, shown untouched.

import { follow } from "/ui/api.js";
import { byId, make, setAttribute, setText } from "/ui/dom.js";
import * as format from "/ui/format.js";

const TAPE_ROWS = 60;
const BOOK_TEXT = {
  known: ["live", "", "ok"],
  partial: ["partial", "Joined after the last snapshot: only levels that changed since are shown.", "warn"],
  unknown: ["resyncing", "A gap was found; waiting for the next snapshot.", "warn"],
};

class Ladder {
  constructor(list, side, rowCount) {
    this.rows = Array.from({ length: rowCount }, () => {
      const parts = [make("span", { class: "price" }), make("span", { class: "size" }), make("span", { class: "total" })];
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      const element = make("li", { class: side }, bar, ...parts);
      return { element, bar, parts };
    });
    this.reversed = side === "ask"; // the best ask stands at the bottom, next to the best bid
    list.replaceChildren(...(this.reversed ? [...this.rows].reverse() : this.rows).map((row) => row.element));
  }

  paint(levels, largest) {
    let total = 0;
    const decimals = decimalsOf(levels);
    this.rows.forEach((row, index) => {
      const level = levels[index];
      row.element.classList.toggle("vacant", !level);
      const [price, size] = level ?? ["", ""];
      total += Number(size);
      setText(row.parts[0], price);
      setText(row.parts[1], size);
      // A running sum is a reading aid, not a value of the venue's: a float will do.
      setText(row.parts[2], level ? sumText(total, decimals) : "");
      row.bar.style.transform = `scaleX(${level && largest ? total / largest : 0})`;
    });
  }
}

const decimalsOf = (levels) => Math.max(0, ...levels.map(([, size]) => (size.split(".")[1] ?? "").length));
const sumText = (value, decimals) => (value >= 100_000 ? format.short(value) : value.toFixed(decimals));
const sumOf = (levels) => levels.reduce((sum, level) => sum + Number(level[1]), 0);

export class Market {
  constructor(levels = 15) {
    this.levels = levels;
    this.asks = new Ladder(byId("asks"), "ask", levels);
    this.bids = new Ladder(byId("bids"), "bid", levels);
    this.tape = byId("tape");
    this.feed = null;
    this.row = null;
  }

  show(row) {
    const isSame = this.row && this.row.venue === row.venue && this.row.symbol === row.symbol;
    this.row = row;
    if (isSame && this.feed) return;
    this.reset();
    setText(byId("market-title"), row.symbol);
    setText(byId("market-note"), format.venue(row.venue));
    byId("market-empty").hidden = true;
    byId("market-body").hidden = false;
    this.connect();
  }

  connect() {
    this.feed?.close();
    if (!this.row) return;
    const query = new URLSearchParams({ exchange: this.row.venue, symbol: this.row.symbol });
    this.feed = follow(`/ui/tape?${query}`, (name, body) => this.on(name, body), (state, reason) => {
      byId("market-body").classList.toggle("stale", state !== "live");
      setText(byId("market-note"), state === "live" ? format.venue(this.row.venue) : reason);
    });
  }

  pause() {
    this.feed?.close();
    this.feed = null;
  }

  resume() {
    if (this.row && !this.feed) { this.tape.replaceChildren(); this.connect(); }
  }

  reset() {
    this.feed?.close();
    this.feed = null;
    this.tape.replaceChildren();
    this.last = null;
    for (const id of ["last-price", "mid", "spread", "tick"]) setText(byId(id), "–");
    setText(byId("spread-bps"), "");
    setText(byId("between-mid"), "");
    setText(byId("between-spread"), "");
    byId("last-price").removeAttribute("data-side");
    this.asks.paint([], 0);
    this.bids.paint([], 0);
    this.tag("tape", "", "", "");
    this.tag("book", "", "", "");
  }

  tag(which, text, note, tone) {
    setText(byId(`${which}-state`), text);
    setAttribute(byId(`${which}-state`), "data-tone", tone);
    setText(byId(`${which}-note`), note);
  }

  on(name, body) {
    if (name === "stream") this.onStream(body);
    else if (name === "trades") this.onTrades(body);
    else if (name === "book") this.onBook(body);
  }

  onStream(body) {
    setText(byId("tick"), body.tick_size || "–");
    this.bookStream = body.book;
    const { trades } = body;
    if (!trades) this.tag("tape", "off", "The trades of this symbol are not collected.", "off");
    else if (!trades.attached) this.tag("tape", "waiting", trades.reason, "warn");
    else this.tag("tape", trades.state, trades.state === "live" ? "" : trades.reason, trades.state === "live" ? "ok" : "warn");
    if (trades && this.epoch && trades.epoch !== this.epoch) this.tape.replaceChildren();
    this.epoch = trades?.epoch;
    if (!body.book) {
      this.tag("book", "off", "The book of this symbol is not collected.", "off");
      this.asks.paint([], 0);
      this.bids.paint([], 0);
    } else if (!body.book.attached) this.tag("book", "waiting", body.book.reason, "warn");
  }

  onTrades(body) {
    const skipped = body.count - body.rows.length;
    const fragment = document.createDocumentFragment();
    for (const [time, side, price, size, id, afterGap] of body.rows.slice(-TAPE_ROWS).reverse()) {
      fragment.append(make("li", { class: side === "B" ? "buy" : side === "S" ? "sell" : "", title: `trade ${id}` },
        make("span", { class: "time" }, format.clock(time)),
        make("span", { class: "price" }, price), make("span", { class: "size" }, size)));
      if (afterGap) fragment.append(make("li", { class: "gap" }, "rows missing here"));
    }
    if (skipped > 0 && this.tape.childElementCount) fragment.append(make("li", { class: "more" }, `${format.count(skipped)} more`));
    this.tape.prepend(fragment);
    while (this.tape.childElementCount > TAPE_ROWS) this.tape.lastChild.remove();
    const last = body.rows.at(-1);
    if (last) {
      setText(byId("last-price"), last[2]);
      setAttribute(byId("last-price"), "data-side", last[1]);
    }
  }

  onBook(body) {
    if (!body.attached || !this.bookStream) return;
    const [text, note, tone] = BOOK_TEXT[body.state];
    this.tag("book", text, note, tone);
    const bids = body.bids.slice(0, this.levels), asks = body.asks.slice(0, this.levels);
    const largest = Math.max(sumOf(bids), sumOf(asks));
    this.asks.paint(asks, largest);
    this.bids.paint(bids, largest);
    setText(byId("mid"), body.mid ?? "–");
    setText(byId("spread"), body.spread ?? "–");
    setText(byId("spread-bps"), body.spread_bps === undefined ? "" : `${body.spread_bps.toFixed(2)} bp`);
    setText(byId("between-mid"), body.mid ?? "");
    setText(byId("between-spread"), body.spread ?? "");
  }
}
