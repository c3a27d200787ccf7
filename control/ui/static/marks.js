// Which rows are marked, for what is done to many at once.

import { byId, setAttribute, setText } from "./dom.js";

export class Marks {
  constructor(rows) {
    this.rows = rows; // the table's rows by key
    this.keys = new Set();
    this.anchor = "";
    this.all = byId("mark-all");
  }

  get chosen() { return [...this.keys].map((key) => this.rows.get(key)).filter(Boolean); }

  set(row, isMarked) {
    if (isMarked) this.keys.add(row.key); else this.keys.delete(row.key);
    row.cells.box.checked = isMarked;
    setAttribute(row.element, "aria-selected", String(isMarked));
  }

  // With Shift, everything from the row that was marked before becomes like this one.
  toggle(row, shown, isRange) {
    const isMarked = !this.keys.has(row.key);
    const from = shown.findIndex((each) => each.key === this.anchor), to = shown.indexOf(row);
    const affected = isRange && from >= 0 ? shown.slice(Math.min(from, to), Math.max(from, to) + 1) : [row];
    for (const each of affected) this.set(each, isMarked);
    this.anchor = row.key;
    this.paint(shown);
  }

  toggleAll(shown) {
    const isMarked = shown.some((row) => !this.keys.has(row.key));
    for (const row of shown) this.set(row, isMarked);
    this.paint(shown);
  }

  clear(shown) {
    for (const row of this.chosen) this.set(row, false);
    this.keys.clear();
    this.paint(shown);
  }

  // Streams go, and their marks with them.
  prune(shown) {
    for (const key of this.keys) if (!this.rows.has(key)) this.keys.delete(key);
    this.paint(shown);
  }

  paint(shown) {
    const count = this.keys.size;
    const hidden = count - shown.filter((row) => this.keys.has(row.key)).length;
    byId("marked").hidden = count === 0;
    byId("streams-panel").classList.toggle("has-marks", count > 0);
    setText(byId("marked-count"), `${count} marked${hidden ? `, ${hidden} of them filtered out` : ""}`);
    this.all.checked = count > 0 && hidden === 0 && count === shown.length;
    this.all.indeterminate = count > 0 && !this.all.checked;
  }
}
