// The table of streams: hundreds of rows, updated in place a few times a second.

import { byId, make, setAttribute, setText } from "/ui/dom.js";
import * as format from "/ui/format.js";
import { Counter } from "/ui/rates.js";
import { drawSpark } from "/ui/spark.js";

const TROUBLE = { failed: 0, backoff: 1, stale: 2, stopped: 3, syncing: 4, connecting: 5, pending: 6, live: 7 };
const PAGE_ROWS = 12;

// `sort`: what a click on the head orders by. `first`: the direction of the first click.
const COLUMNS = [
  { key: "state", title: "State", sort: (row) => TROUBLE[row.state] ?? 9, first: 1 },
  { key: "symbol", title: "Symbol", sort: (row) => row.symbol, first: 1 },
  { key: "venue", title: "Exchange", sort: (row) => row.venue, first: 1 },
  { key: "kind", title: "Kind", sort: (row) => row.kind, first: 1 },
  { key: "rate", title: "Rows/s", sort: (row) => row.counter.rate ?? -1, first: -1, numeric: true },
  { key: "lag", title: "Lag", sort: (row) => row.lagMs ?? Infinity, first: -1, numeric: true },
  { key: "rows", title: "Rows", sort: (row) => row.rows, first: -1, numeric: true },
  { key: "gaps", title: "Gaps", sort: (row) => row.gaps, first: -1, numeric: true },
  { key: "missing", title: "Missing", sort: (row) => row.missing, first: -1, numeric: true },
  { key: "duplicates", title: "Dupes", sort: (row) => row.duplicates, first: -1, numeric: true },
  { key: "db", title: "DB", sort: (row) => Number(row.db), first: 1 },
  { key: "redis", title: "Redis", sort: (row) => Number(row.redis), first: 1 },
  { key: "stop", title: "" },
];

export const keyOf = (row) => `${row.venue}/${row.symbol}/${row.kind}/${row.transport}`;
const nameOf = (row) => `${row.symbol} ${row.kind} on ${format.venue(row.venue)}`;

export class StreamTable {
  // `actions`: select(row), stop(row), setKnob(row, name, value) -> promise
  constructor(actions) {
    this.actions = actions;
    this.rows = new Map();
    this.table = byId("streams");
    this.body = this.table.tBodies[0];
    this.sortKey = "symbol";
    this.sortWay = 1;
    this.words = [];
    this.state = "";
    this.selectedKey = "";
    this.currentKey = "";
    this.shown = [];
    this.visible = new Set();
    this.chips = new Map();
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const row = this.rows.get(entry.target.dataset.key);
        if (!row) continue;
        if (entry.isIntersecting) { this.visible.add(row); drawSpark(row.cells.spark, row.counter.history); }
        else this.visible.delete(row);
      }
    }, { rootMargin: "100px" });
    this.makeHead();
    this.body.addEventListener("keydown", (event) => this.onKey(event));
    this.body.addEventListener("click", (event) => this.onClick(event));
    this.body.addEventListener("focusin", (event) => this.onFocus(event));
  }

  makeHead() {
    const line = this.table.tHead.rows[0];
    for (const column of COLUMNS) {
      const head = make("th", { scope: "col", role: "columnheader", class: `c-${column.key}${column.numeric ? " num" : ""}` });
      if (column.sort) {
        const button = make("button", { type: "button" }, column.title);
        button.addEventListener("click", () => this.sortBy(column));
        head.append(button);
      } else {
        head.append(make("span", { class: "visually-hidden" }, "Stop"));
      }
      column.head = head;
      line.append(head);
    }
    this.markSorted();
  }

  sortBy(column) {
    if (this.sortKey === column.key) this.sortWay = -this.sortWay;
    else { this.sortKey = column.key; this.sortWay = column.first; }
    this.markSorted();
    this.arrange();
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
        row = this.makeRow(key, stream);
        this.rows.set(key, row);
        changed = true;
      }
      if (row.state !== stream.state) changed = true;
      Object.assign(row, stream);
      row.counter.update(stream.rows, nowMs);
      this.paint(row, nowMs);
    }
    for (const [key, row] of this.rows) {
      if (!seen.has(key)) {
        this.observer.unobserve(row.element);
        this.visible.delete(row);
        this.rows.delete(key);
        changed = true;
      }
    }
    this.paintChips();
    const follows = !["symbol", "venue", "kind"].includes(this.sortKey);
    // Rows that jump under the pointer or the focus cannot be clicked: order rests while one is used.
    const isUsed = this.body.matches(":hover") || this.body.contains(document.activeElement);
    if (changed || (follows && !isUsed)) this.arrange();
    for (const row of this.visible) drawSpark(row.cells.spark, row.counter.history);
  }

  // Between two messages only the age of the last row moves.
  tick(nowMs) {
    for (const row of this.visible) this.paintLag(row, nowMs);
  }

  redraw() {
    for (const row of this.visible) drawSpark(row.cells.spark, row.counter.history);
  }

  makeRow(key, stream) {
    const cells = {};
    const cell = (name, ...children) => {
      const column = COLUMNS.find((each) => each.key === name);
      const element = make("td", { role: "cell", class: `c-${name}${column.numeric ? " num" : ""}` }, ...children);
      cells[name] = element;
      return element;
    };
    cells.word = make("span", { class: "word" });
    cells.reason = make("span", { class: "reason" });
    cells.spark = make("canvas", { class: "spark", "aria-hidden": "true" });
    cells.rateText = make("span", { class: "value" });
    const toggle = (name, title) => {
      const button = make("button", {
        type: "button", class: "toggle", tabIndex: -1, role: "switch", data: { knob: name },
        "aria-label": `${title}: ${nameOf(stream)}`,
      }, make("span", { class: "thumb" }));
      cells[`${name}Toggle`] = button;
      return button;
    };
    const stop = make("button", {
      type: "button", class: "stop", tabIndex: -1, title: "Stop stream",
      "aria-label": `Stop ${nameOf(stream)}`, data: { stop: "" },
    }, make("span", { class: "stop-word" }, "Stop"), make("span", { class: "stop-sign", "aria-hidden": "true" }, "✕"));
    const element = make("tr", { role: "row", tabIndex: -1, data: { key } },
      cell("state", make("span", { class: "dot" }), cells.word, cells.reason),
      cell("symbol", make("span", { class: "symbol-text" }, stream.symbol), make("span", { class: "sub" }, `${stream.kind} · ${format.venue(stream.venue)}`)),
      cell("venue", format.venue(stream.venue)),
      cell("kind", stream.kind, stream.transport === "Ws" ? "" : make("span", { class: "via" }, "HTTP")),
      cell("rate", cells.spark, cells.rateText), cell("lag"), cell("rows"),
      cell("gaps"), cell("missing"), cell("duplicates"),
      cell("db", toggle("db", "Store in the database")), cell("redis", toggle("redis", "Publish to Redis")),
      cell("stop", stop));
    cells.kind.title = stream.transport;
    this.observer.observe(element);
    return { key, element, cells, counter: new Counter(), text: `${key} ${format.venue(stream.venue)}`.toLowerCase() };
  }

  paint(row, nowMs) {
    const { cells } = row;
    setAttribute(row.element, "data-state", row.state);
    setText(cells.word, row.state);
    setText(cells.reason, row.state === "live" ? "" : row.reason);
    setAttribute(cells.state, "title", row.reason || row.state);
    setText(cells.rateText, format.rate(row.counter.rate));
    setText(cells.rows, format.short(row.rows));
    for (const name of ["gaps", "missing", "duplicates"]) {
      setText(cells[name], row[name] ? format.short(row[name]) : "0");
      setAttribute(cells[name], "data-any", String(row[name] > 0));
    }
    setAttribute(cells.rows, "title", format.count(row.rows));
    for (const name of ["db", "redis"]) {
      setAttribute(cells[`${name}Toggle`], "aria-checked", String(row.pending?.[name] ?? row[name]));
    }
    this.paintLag(row, nowMs);
  }

  paintLag(row, nowMs) {
    row.lagMs = row.last_recv_ms ? nowMs - row.last_recv_ms : null;
    setText(row.cells.lag, format.lag(row.lagMs));
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
    const { sort } = COLUMNS.find((column) => column.key === this.sortKey);
    const rows = [...this.rows.values()].filter((row) => this.matches(row));
    rows.sort((a, b) => {
      const left = sort(a), right = sort(b);
      if (left === right) return a.key < b.key ? -1 : 1;
      return (left < right ? -1 : 1) * this.sortWay;
    });
    const same = rows.length === this.shown.length && rows.every((row, index) => row === this.shown[index]);
    if (!same) {
      const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
      this.body.replaceChildren(...rows.map((row) => row.element));
      this.shown = rows;
      if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
    }
    if (!rows.some((row) => row.key === this.currentKey)) this.setCurrent(rows[0]);
    setText(byId("stream-count"), rows.length === this.rows.size ? String(rows.length) : `${rows.length} of ${this.rows.size}`);
    this.paintEmpty(rows.length);
  }

  paintEmpty(shownCount) {
    const empty = byId("streams-empty");
    empty.hidden = shownCount > 0 || !this.loaded;
    this.table.hidden = shownCount === 0;
    if (!empty.hidden) {
      setText(empty.querySelector("p"), this.rows.size ? "No stream matches the filter." : "Nothing is collected yet.");
      empty.querySelector("button").hidden = this.rows.size > 0;
    }
  }

  paintChips() {
    const counts = new Map();
    for (const row of this.rows.values()) counts.set(row.state, (counts.get(row.state) ?? 0) + 1);
    for (const state of Object.keys(TROUBLE)) {
      const number = counts.get(state) ?? 0;
      let chip = this.chips.get(state);
      if (!chip && !number) continue;
      if (!chip) {
        chip = make("button", { type: "button", class: "chip", data: { state }, "aria-pressed": "false" },
          make("span", { class: "dot" }), make("span", { class: "number" }), ` ${state}`);
        chip.addEventListener("click", () => this.setState(this.state === state ? "" : state));
        this.chips.set(state, chip);
        byId("state-chips").append(chip);
      }
      chip.hidden = number === 0 && this.state !== state;
      setText(chip.querySelector(".number"), String(number));
    }
  }

  setState(state) {
    this.state = state;
    for (const [name, chip] of this.chips) chip.setAttribute("aria-pressed", String(name === state));
    this.arrange();
  }

  // --- pointer and keys -----------------------------------------------------------------------

  // One row is in the tab order, with its buttons; the arrows choose which.
  setCurrent(row) {
    const before = this.rows.get(this.currentKey);
    for (const [each, index] of [[before, -1], [row, 0]]) {
      if (!each) continue;
      each.element.tabIndex = index;
      for (const button of each.element.querySelectorAll("button")) button.tabIndex = index;
    }
    this.currentKey = row?.key ?? "";
  }

  select(row) {
    this.rows.get(this.selectedKey)?.element.removeAttribute("aria-current");
    this.selectedKey = row?.key ?? "";
    row?.element.setAttribute("aria-current", "true");
    if (row) this.actions.select(row);
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
    const button = event.target.closest("button");
    if (button?.dataset.knob) this.toggle(row, button.dataset.knob);
    else if (button && "stop" in button.dataset) this.actions.stop(row);
    else this.select(row);
  }

  async toggle(row, name) {
    const value = !(row.pending?.[name] ?? row[name]);
    row.pending = { ...row.pending, [name]: value };
    this.paint(row, Date.now());
    try { await this.actions.setKnob(row, name, value); } finally {
      // The status says the new value within a second; until then the switch shows what was asked.
      setTimeout(() => { delete row.pending?.[name]; }, 1200);
    }
  }

  onKey(event) {
    const row = this.rowOf(event);
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const index = this.shown.indexOf(row);
    const targets = {
      ArrowDown: index + 1, ArrowUp: index - 1, PageDown: index + PAGE_ROWS, PageUp: index - PAGE_ROWS,
      Home: 0, End: this.shown.length - 1,
    };
    if (event.key in targets) {
      const next = this.shown[Math.max(0, Math.min(this.shown.length - 1, targets[event.key]))];
      this.setCurrent(next);
      next.element.focus();
      next.element.scrollIntoView({ block: "nearest" });
    } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const stops = [row.element, ...row.element.querySelectorAll("button")].filter((each) => each.offsetParent);
      const at = stops.indexOf(document.activeElement) + (event.key === "ArrowRight" ? 1 : -1);
      stops[Math.max(0, Math.min(stops.length - 1, at))].focus();
    } else if (event.key === "Delete") {
      this.actions.stop(row);
    } else if ((event.key === "Enter" || event.key === " ") && event.target === row.element) {
      this.select(row);
    } else if (event.key === "Escape" && event.target !== row.element) {
      row.element.focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  focusRow(key) {
    const row = this.rows.get(key) ?? this.shown[0];
    row?.element.focus();
  }
}
