// Widths for columns of exact numbers. They are never cut: where they are long, the type is smaller.

export class Columns {
  // `room`: characters that fit beside each other in full size; `others`: those of other columns.
  constructor(box, room, others) {
    Object.assign(this, { box, room, others });
    this.reset();
  }

  reset() {
    this.price = 4;
    this.size = 4;
    this.apply();
  }

  // Grows with what is shown and never shrinks: columns that breathe cannot be read.
  fit(prices, sizes) {
    const price = Math.max(this.price, ...prices.map((text) => text.length));
    const size = Math.max(this.size, ...sizes.map((text) => text.length));
    if (price === this.price && size === this.size) return;
    this.price = price;
    this.size = size;
    this.apply();
  }

  apply() {
    const { style } = this.box;
    style.setProperty("--price", `${this.price}ch`);
    style.setProperty("--size", `${this.size}ch`);
    style.setProperty("--fit", Math.min(1, this.room / (this.price + this.size + this.others)).toFixed(3));
  }
}
