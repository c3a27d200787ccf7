// Of hundreds of rows only those in sight are in the document, each at its own place. All rows are of
// one height, so where a row stands follows from its number.

import { setAttribute } from "./dom.js";

const BEYOND = 6; // rows above and below the sight, so that a scroll does not meet blanks

export class RowWindow {
  // `onEnter(row)`: a row has come into the document and is to be painted.
  constructor(scroller, body, onEnter) {
    Object.assign(this, { scroller, body, onEnter });
    this.rows = [];
    this.pinned = null;
    this.inside = new Set();
    this.rowHeight = 0;
    scroller.addEventListener("scroll", () => this.place(), { passive: true });
    new ResizeObserver(() => { this.rowHeight = 0; this.place(); }).observe(scroller);
  }

  show(rows) {
    this.rows = rows;
    rows.forEach((row, index) => { row.index = index; });
    this.place();
  }

  // The row in the tab order stays, wherever one has scrolled to.
  pin(row) {
    this.pinned = row ?? null;
    this.place();
  }

  measure() {
    if (this.rowHeight) return;
    this.rowHeight = parseFloat(getComputedStyle(this.body).getPropertyValue("--row-height")) || 29;
    for (const row of this.inside) row.top = null;
  }

  place() {
    this.measure();
    const { scroller, rows, rowHeight } = this;
    const first = Math.max(0, Math.floor(scroller.scrollTop / rowHeight) - BEYOND);
    const last = Math.ceil((scroller.scrollTop + scroller.clientHeight) / rowHeight) + BEYOND;
    const wanted = rows.slice(first, last);
    const { pinned } = this;
    if (pinned && rows[pinned.index] === pinned) {
      if (pinned.index < first) wanted.unshift(pinned);
      else if (pinned.index >= last) wanted.push(pinned);
    }
    const height = `${rows.length * rowHeight}px`;
    if (this.body.style.height !== height) this.body.style.height = height;
    this.fill(wanted);
  }

  fill(wanted) {
    const before = this.inside;
    this.inside = new Set(wanted);
    // Whoever stays is not taken out: it may have the focus, or a pointer on it.
    for (const row of before) if (!this.inside.has(row)) row.element.remove();
    let next = this.body.firstElementChild;
    for (const row of wanted) {
      const top = row.index * this.rowHeight;
      if (row.top !== top) {
        row.element.style.top = `${top}px`;
        setAttribute(row.element, "aria-rowindex", String(row.index + 2)); // the head is the first
        row.top = top;
      }
      if (row.element === next) next = next.nextElementSibling;
      else if (document.activeElement && row.element.contains(document.activeElement)) next = row.element.nextElementSibling;
      else this.body.insertBefore(row.element, next);
      if (!before.has(row)) this.onEnter(row);
    }
  }
}
