// What happens in one symbol: trades, book and newest figures, over one feed.

import { follow, prices } from "./api.js";
import { CandleChart } from "./candle_chart.js";
import { Columns } from "./columns.js";
import { DepthChart } from "./depth_chart.js";
import { byId, make, setAttribute, setText } from "./dom.js";
import { Figures } from "./figures.js";
import * as format from "./format.js";
import { Ladder } from "./ladder.js";
import { report } from "./log.js";
import { moment, timeOf } from "./times.js";

const TAPE_ROWS = 60;
const SIDES = { B: ["buy", "B"], S: ["sell", "S"] };

export class Market {
  // `mayCommand()`: whether whoever looks may do more than that.
  constructor(mayCommand) {
    this.ladder = new Ladder(mayCommand);
    this.figures = new Figures();
    this.candles = new CandleChart();
    this.depth = new DepthChart();
    this.tape = byId("tape");
    this.columns = new Columns(byId("tape-box"), 27, 16);
    this.feed = null;
    this.row = null;
    this.isGone = false; // nothing of the symbol is collected any more
  }

  show(row) {
    const isSame = this.row && this.row.venue === row.venue && this.row.symbol === row.symbol;
    this.row = row;
    this.isGone = false;
    if (isSame && this.feed) return;
    this.reset();
    setText(byId("market-title"), row.symbol);
    this.paintNote();
    setText(byId("chart-title"), `${row.symbol}, price`);
    this.reveal(true);
    this.connect();
  }

  // Nothing is chosen any more.
  hide() {
    this.row = null;
    this.reset();
    setText(byId("market-title"), byId("market-title").dataset.empty);
    setText(byId("market-note"), "");
    this.reveal(false);
  }

  reveal(isChosen) {
    byId("market-empty").hidden = isChosen;
    byId("market-body").hidden = !isChosen;
    byId("chart-panel").hidden = !isChosen;
  }

  connect() {
    this.feed?.close();
    if (!this.row) return;
    const query = new URLSearchParams({ exchange: this.row.venue, symbol: this.row.symbol });
    this.feed = follow(`ui/tape?${query}`, (name, body) => this.on(name, body), (state, reason) => {
      for (const id of ["market-body", "chart-panel"]) byId(id).classList.toggle("stale", state !== "live");
      this.problem = state === "live" ? "" : reason;
      this.paintNote();
      this.isNew = true; // what the ring still holds comes once more
    });
  }

  // The chosen stream may have been stopped, by anybody: another one of the symbol takes its place.
  update(rows) {
    const { row } = this;
    if (!row) return;
    const found = rows.get(row.key) ?? [...rows.values()].find((each) => each.venue === row.venue && each.symbol === row.symbol);
    this.row = found ?? row;
    this.isGone = !found;
    this.paintNote();
  }

  // Whose symbol it is; or what is wrong with the link, else with the chosen stream.
  paintNote() {
    const { row } = this;
    if (!row) return;
    const trouble = this.isGone ? "Nothing of this symbol is collected any more."
      : row.state === "live" ? "" : `${format.kind(row.kind)} ${row.state}: ${row.reason}`;
    setText(byId("market-note"), this.problem || trouble || format.venue(row.venue));
  }

  pause() {
    this.feed?.close();
    this.feed = null;
  }

  resume() {
    if (this.row && !this.feed) this.connect();
  }

  reset() {
    this.pause();
    this.tape.replaceChildren();
    this.columns.reset();
    this.figures.clear();
    this.ladder.clear();
    this.candles.clear();
    this.depth.clear();
    this.tag("", "", "");
  }

  tag(text, tone, note) {
    setText(byId("tape-state"), text);
    setAttribute(byId("tape-state"), "data-tone", tone);
    setText(byId("tape-note"), note);
  }

  on(name, body) {
    if (name === "trades") this.onTrades(body);
    else if (name === "book") this.onBook(body);
    else if (name === "candles") this.onCandles(body);
    else if (name === "depth") this.depth.take(body);
    else if (name === "quote") this.figures.onQuote(body);
    else if (name === "funding") this.figures.onFunding(body);
    else if (name === "open_interest") this.figures.onOpenInterest(body);
    else if (name === "liquidation") this.figures.onLiquidations(body);
    else if (name === "stream") this.onStream(body);
  }

  onStream(body) {
    const { trades } = body;
    if (!trades) this.tag("off", "off", "The trades of this symbol are not collected.");
    else if (!trades.attached) this.tag("waiting", "warn", trades.reason);
    else if (trades.state === "live") this.tag("live", "ok", "");
    else this.tag(trades.state, "warn", trades.reason);
    setAttribute(byId("tape-box"), "data-absent", String(!trades?.attached));
    if (this.isNew || trades?.epoch !== this.epoch) this.tape.replaceChildren();
    this.isNew = false;
    this.epoch = trades?.epoch;
    this.bookStream = body.book;
    this.ladder.describe(body.book);
    this.figures.describe(body);
    this.candles.describe(body);
    this.depth.describe(body);
  }

  // The theme's colours have changed.
  redraw() {
    this.candles.paint();
    this.depth.paint();
  }

  // The rings hold some minutes, the database may have a day.
  async onCandles(body) {
    this.candles.take(body);
    if (!body.is_new) return;
    const { row } = this;
    try {
      const { rows, problem } = await prices(row);
      if (this.row?.venue !== row.venue || this.row.symbol !== row.symbol) return;
      if (problem) report("error", `Prices of ${row.symbol}: ${problem}`);
      this.candles.takePast(rows);
    } catch (error) { report("error", `Prices of ${row.symbol}: ${error.message}`); }
  }

  onTrades(body) {
    this.columns.fit(body.rows.map((row) => row[2]), body.rows.map((row) => row[3]));
    const skipped = body.count - body.rows.length;
    const fragment = document.createDocumentFragment();
    for (const [time, side, price, size, id, afterGap] of body.rows.slice(-TAPE_ROWS).reverse()) {
      const [name, letter] = SIDES[side] ?? ["", ""];
      fragment.append(make("li", { class: name, title: `trade ${id}` },
        timeOf(time, "exact", "time"), make("span", { class: "side" }, letter),
        make("span", { class: "price" }, price), make("span", { class: "size" }, size)));
      if (afterGap) fragment.append(make("li", { class: "gap" }, "rows missing here"));
    }
    if (skipped > 0 && this.tape.childElementCount) fragment.append(make("li", { class: "more" }, `${format.count(skipped)} more`));
    this.tape.prepend(fragment);
    while (this.tape.childElementCount > TAPE_ROWS) this.tape.lastChild.remove();
    const last = body.rows.at(-1);
    if (body.overrun) setText(byId("tape-note"), `${moment(Date.now())}: too fast, some trades are not shown.`);
    if (last) this.figures.trade(last[0], last[1], last[2], last[3]);
  }

  onBook(body) {
    if (!body.attached || !this.bookStream) return;
    this.ladder.paint(body);
    this.figures.onBook(body);
  }
}
