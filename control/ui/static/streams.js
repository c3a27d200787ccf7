// The table of streams: hundreds of rows, updated in place a few times a second.

import { byId, make, setAttribute, setText } from "./dom.js";
import { Marks } from "./marks.js";
import { RowWindow } from "./row_window.js";
import { drawSpark } from "./spark.js";
import { keyOf, makeRow, paintLag, paintRow } from "./stream_row.js";

const TROUBLE = { failed: 0, backoff: 1, stale: 2, stopped: 3, syncing: 4, connecting: 5, pending: 6, live: 7 };
const PAGE_ROWS = 12;
const ORDER_MS = 2000;
const FIRST_SORT = "symbol";

// `sort`: what a click on the head orders by. `first`: the direction of the first click.
const COLUMNS = [
  { key: "state", title: "State", sort: (row) => TROUBLE[row.state] ?? 9, first: 1 },
  { key: "symbol", title: "Symbol", sort: (row) => row.symbol, first: 1 },
  { key: "venue", title: "Exchange", sort: (row) => row.venue, first: 1 },
  { key: "kind", title: "Kind", sort: (row) => row.kind, first: 1 },
  { key: "rate", title: "Rows/s", sort: (row) => row.counter.rate ?? -1, first: -1, numeric: true },
  { key: "lag", title: "Last row", sort: (row) => row.lagMs ?? Infinity, first: -1, numeric: true, note: "how long ago the last row was received: how often the instrument trades, not how late its rows are" },
  { key: "rows", title: "Rows", sort: (row) => row.rows, first: -1, numeric: true },
  { key: "gaps", title: "Gaps", sort: (row) => row.gaps, first: -1, numeric: true },
  { key: "missing", title: "Missing", sort: (row) => row.missing, first: -1, numeric: true },
  { key: "duplicates", title: "Dupes", sort: (row) => row.duplicates, first: -1, numeric: true },
  { key: "db", title: "DB", sort: (row) => Number(row.db), first: 1 },
  { key: "redis", title: "Redis", sort: (row) => Number(row.redis), first: 1 },
];
const FIXED = new Set(["symbol", "venue", "kind"]); // orders that no status changes

export class StreamTable {
  // `actions`: select(row), stop(rows), switchMany(rows, name), tune(row), setKnob(row, name, value) -> promise; and
  // arranged({ sort } or { state }), when somebody has chosen what is shown.
  constructor(actions, gaps) {
    this.actions = actions;
    this.gaps = gaps; // what is known of them, for the strips
    this.rows = new Map();
    this.table = byId("streams");
    this.body = this.table.tBodies[0];
    this.sortKey = FIRST_SORT;
    this.sortWay = 1;
    this.words = [];
    this.state = "";
    this.selectedKey = "";
    this.currentKey = "";
    this.shown = [];
    this.isReadOnly = false;
    this.chips = new Map();
    this.makeHead();
    this.marks = new Marks(this.rows);
    this.window = new RowWindow(this.table.parentElement, this.body, (row) => this.paint(row));
    this.arrangedMs = 0;
    this.body.addEventListener("keydown", (event) => this.onKey(event));
    this.body.addEventListener("click", (event) => this.onClick(event));
    this.body.addEventListener("focusin", (event) => this.onFocus(event));
    byId("mark-all").addEventListener("change", () => this.marks.toggleAll(this.shown));
    byId("marked-clear").addEventListener("click", () => { this.marks.clear(this.shown); this.focusRow(this.currentKey); });
    byId("marked-stop").addEventListener("click", () => this.actions.stop(this.marks.chosen));
    for (const button of byId("marked").querySelectorAll("[data-switch]")) {
      button.addEventListener("click", () => this.actions.switchMany(this.marks.chosen, button.dataset.switch));
    }
  }

  makeHead() {
    const line = this.table.tHead.rows[0];
    for (const column of COLUMNS) {
      const button = make("button", { type: "button", title: column.note ?? "" }, column.title);
      button.addEventListener("click", () => this.sortBy(column));
      column.head = make("th", { scope: "col", role: "columnheader", class: `c-${column.key}${column.numeric ? " num" : ""}` }, button);
      line.append(column.head);
    }
    line.append(make("th", { scope: "col", role: "columnheader", class: "c-acts" }, make("span", { class: "visually-hidden" }, "Knobs and stop")));
    this.markSorted();
  }

  sortBy(column) {
    const way = this.sortKey === column.key ? -this.sortWay : column.first;
    this.setSort(column.key, way);
    this.actions.arranged({ sort: this.sort });
  }

  setSort(key, way) {
    this.sortKey = key;
    this.sortWay = way;
    this.markSorted();
    this.arrange();
  }

  // As a word: `rate`, or `-rate` from the largest on. The order of a new page needs none.
  get sort() {
    const word = `${this.sortWay < 0 ? "-" : ""}${this.sortKey}`;
    return word === FIRST_SORT ? "" : word;
  }

  set sort(word) {
    const [, minus, key] = /^(-?)(.*)$/.exec(word || FIRST_SORT);
    if (COLUMNS.some((column) => column.key === key)) this.setSort(key, minus ? -1 : 1);
  }

  markSorted() {
    for (const column of COLUMNS) {
      if (column.key === this.sortKey) column.head.setAttribute("aria-sort", this.sortWay > 0 ? "ascending" : "descending");
      else column.head.removeAttribute("aria-sort");
    }
  }

  // --- what the engine says -------------------------------------------------------------------

  update(streams, nowMs) {
    const seen = new Set();
    let changed = false;
    for (const stream of streams) {
      const key = keyOf(stream);
      seen.add(key);
      let row = this.rows.get(key);
      if (!row) {
        row = makeRow(key, stream);
        this.rows.set(key, row);
        changed = true;
      }
      changed ||= row.state !== stream.state;
      Object.assign(row, stream);
      row.counter.update(stream.rows, nowMs);
    }
    for (const [key, row] of this.rows) {
      if (!seen.has(key)) {
        this.rows.delete(key);
        changed = true;
      }
    }
    this.nowMs = nowMs;
    this.paintChips();
    // Rows that jump under the pointer or the focus cannot be clicked: order rests while one is used.
    const isUsed = this.body.matches(":hover") || this.body.contains(document.activeElement);
    const isDue = !FIXED.has(this.sortKey) && !isUsed && nowMs - this.arrangedMs >= ORDER_MS;
    if (changed || isDue) this.arrange();
    if (changed) this.marks.prune(this.shown);
    for (const row of this.window.inside) this.paint(row);
  }

  // Which kinds of a venue's instruments there are streams of.
  kindsBySymbol(venue) {
    const found = new Map();
    for (const row of this.rows.values()) {
      if (row.venue === venue) found.set(row.symbol, [...(found.get(row.symbol) ?? []), row.kind]);
    }
    return found;
  }

  paint(row) {
    paintRow(row, this.nowMs, this.isReadOnly);
    this.draw(row);
  }

  draw(row) {
    drawSpark(row.cells.spark, row.counter.history);
    this.gaps.paintStrip(row, this.nowMs);
  }

  // Between two messages only the age of the last row moves.
  tick(nowMs) {
    for (const row of this.window.inside) paintLag(row, nowMs);
  }

  redraw() {
    for (const row of this.window.inside) this.draw(row);
  }

  // --- which rows, in which order -------------------------------------------------------------

  setFilter(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.arrange();
  }

  matches(row) {
    if (this.state && row.state !== this.state) return false;
    return this.words.every((word) => row.text.includes(word) || row.state.startsWith(word));
  }

  arrange() {
    this.arrangedMs = this.nowMs ?? 0;
    const { sort } = COLUMNS.find((column) => column.key === this.sortKey);
    const rows = [...this.rows.values()].filter((row) => this.matches(row));
    rows.sort((a, b) => {
      const left = sort(a), right = sort(b);
      if (left === right) return a.key < b.key ? -1 : 1;
      return (left < right ? -1 : 1) * this.sortWay;
    });
    const same = rows.length === this.shown.length && rows.every((row, index) => row === this.shown[index]);
    if (!same) {
      this.shown = rows;
      this.window.show(rows);
      setAttribute(this.table, "aria-rowcount", String(rows.length + 1));
      this.marks.paint(rows);
    }
    if (!rows.some((row) => row.key === this.currentKey)) this.setCurrent(rows[0]);
    setText(byId("stream-count"), rows.length === this.rows.size ? String(rows.length) : `${rows.length} of ${this.rows.size}`);
    this.paintEmpty(rows.length);
  }

  paintEmpty(shownCount) {
    const empty = byId("streams-empty");
    empty.hidden = shownCount > 0 || !this.loaded;
    this.table.hidden = shownCount === 0;
    if (empty.hidden) return;
    setText(empty.querySelector("p"), this.rows.size ? "No stream matches the filter." : "Nothing is collected yet.");
    empty.querySelector("div").hidden = this.rows.size > 0;
  }

  paintChips() {
    const counts = new Map();
    for (const row of this.rows.values()) counts.set(row.state, (counts.get(row.state) ?? 0) + 1);
    for (const state of Object.keys(TROUBLE)) {
      const number = counts.get(state) ?? 0;
      let chip = this.chips.get(state);
      if (!chip && !number && this.state !== state) continue;
      if (!chip) {
        chip = make("button", { type: "button", class: "chip", data: { state }, "aria-pressed": String(state === this.state) },
          make("span", { class: "dot" }), make("span", { class: "number" }), ` ${state}`);
        chip.addEventListener("click", () => this.chooseState(this.state === state ? "" : state));
        this.chips.set(state, chip);
        byId("state-chips").append(chip);
      }
      chip.hidden = number === 0 && this.state !== state;
      setText(chip.querySelector(".number"), String(number));
    }
  }

  chooseState(state) {
    this.setState(state);
    this.actions.arranged({ state });
  }

  // A word that is no state shows all of them.
  setState(state) {
    this.state = Object.hasOwn(TROUBLE, state) ? state : "";
    this.paintChips();
    for (const [name, chip] of this.chips) chip.setAttribute("aria-pressed", String(name === this.state));
    this.arrange();
  }

  // --- pointer and keys -----------------------------------------------------------------------

  // One row is in the tab order, with its controls; the arrows choose which.
  setCurrent(row) {
    const before = this.rows.get(this.currentKey);
    for (const [each, index] of [[before, -1], [row, 0]]) {
      if (!each) continue;
      each.element.tabIndex = index;
      for (const control of each.element.querySelectorAll("button, input")) control.tabIndex = index;
    }
    this.currentKey = row?.key ?? "";
    this.window.pin(row);
  }

  select(row) {
    this.markSelected(row.key);
    this.actions.select(row);
  }

  markSelected(key) {
    this.rows.get(this.selectedKey)?.element.removeAttribute("aria-current");
    this.selectedKey = key;
    this.rows.get(key)?.element.setAttribute("aria-current", "true");
  }

  // What is marked, when this row is; otherwise this row alone.
  stop(row) {
    this.actions.stop(this.marks.keys.has(row.key) ? this.marks.chosen : [row]);
  }

  rowOf(event) {
    const element = event.target.closest("tr");
    return element ? this.rows.get(element.dataset.key) : undefined;
  }

  onFocus(event) {
    const row = this.rowOf(event);
    if (row && row.key !== this.currentKey) this.setCurrent(row);
  }

  onClick(event) {
    const row = this.rowOf(event);
    if (!row) return;
    const control = event.target.closest("button, input");
    // The narrow cell around the box is easier to hit than the box.
    const isMark = control?.dataset.act === "mark" || (!control && event.target.closest(".c-mark"));
    if (isMark) this.marks.toggle(row, this.shown, event.shiftKey);
    else if (control?.dataset.knob) this.toggle(row, control.dataset.knob);
    else if (control?.dataset.act === "tune") this.actions.tune(row);
    else if (control?.dataset.act === "stop") this.actions.stop([row]);
    else this.select(row);
  }

  async toggle(row, name) {
    if (this.isReadOnly) return;
    const value = !(row.pending?.[name] ?? row[name]);
    row.pending = { ...row.pending, [name]: value };
    this.paint(row);
    try { await this.actions.setKnob(row, name, value); } finally {
      // The status says the new value within a second; until then the switch shows what was asked.
      setTimeout(() => { delete row.pending?.[name]; }, 1200);
    }
  }

  move(event, row) {
    const index = this.shown.indexOf(row);
    const targets = {
      ArrowDown: index + 1, ArrowUp: index - 1, PageDown: index + PAGE_ROWS, PageUp: index - PAGE_ROWS,
      Home: 0, End: this.shown.length - 1,
    };
    if (!(event.key in targets)) return false;
    const next = this.shown[Math.max(0, Math.min(this.shown.length - 1, targets[event.key]))];
    this.setCurrent(next);
    next.element.focus({ preventScroll: true });
    next.element.scrollIntoView({ block: "nearest" });
    return true;
  }

  moveAcross(event, row) {
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return false;
    const stops = [row.element, ...row.element.querySelectorAll("button, input")].filter((each) => each.offsetParent);
    const at = stops.indexOf(document.activeElement) + (event.key === "ArrowRight" ? 1 : -1);
    stops[Math.max(0, Math.min(stops.length - 1, at))].focus();
    return true;
  }

  onKey(event) {
    const row = this.rowOf(event);
    if (!row || event.altKey) return;
    const isRow = event.target === row.element;
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "a") return;
      this.marks.toggleAll(this.shown);
    } else if (this.move(event, row) || this.moveAcross(event, row)) { /* moved */
    } else if (event.key === "Delete") this.stop(row);
    else if (event.key.toLowerCase() === "k") this.actions.tune(row);
    else if (event.key === "Enter" && isRow) this.select(row);
    else if (event.key === " " && isRow) this.marks.toggle(row, this.shown, event.shiftKey);
    else if (event.key === "Escape" && !isRow) row.element.focus();
    else if (event.key === "Escape") this.marks.clear(this.shown);
    else return;
    event.preventDefault();
  }

  focusRow(key) {
    const known = this.rows.get(key);
    const row = this.shown.includes(known) ? known : this.shown[0];
    if (!row) return;
    this.setCurrent(row); // which brings it into the document
    row.element.focus();
  }
}
