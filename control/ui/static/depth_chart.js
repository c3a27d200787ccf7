// How much stands in the book up to which price: two stairs that meet in the middle.

import { colour, label, line, prepare } from "./canvas.js";
import { byId, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const FOOT = 14;

// Price and sum of sizes, best first.
function stairs(levels) {
  let sum = 0;
  return levels.map(([price, size]) => [price, sum += size]);
}

export class DepthChart {
  constructor() {
    this.canvas = byId("depth");
    new ResizeObserver(() => this.paint()).observe(this.canvas);
    this.clear();
  }

  clear() {
    this.decimals = 0;
    this.take({ bids: [], asks: [] });
  }

  describe({ book, price_decimals: decimals }) {
    this.decimals = decimals ?? 0;
    this.trouble = !book ? "The book of this symbol is not collected." : book.attached ? "" : book.reason;
    if (!book) this.take({ bids: [], asks: [] }); else this.paint();
  }

  take({ bids, asks }) {
    this.bids = stairs(bids);
    this.asks = stairs(asks);
    this.paint();
  }

  paint() {
    const { context, width, height } = prepare(this.canvas, [260, 260]);
    const { bids, asks } = this;
    const isKnown = bids.length > 0 && asks.length > 0;
    setText(byId("depth-note"), isKnown ? "" : this.trouble || "Needs a whole book.");
    setAttribute(this.canvas, "aria-label", isKnown
      ? `Depth: ${format.short(bids.at(-1)[1])} bid down to ${bids.at(-1)[0]}, ${format.short(asks.at(-1)[1])} asked up to ${asks.at(-1)[0]}`
      : "No depth yet");
    if (!isKnown) return;
    // As far to one side as to the other, or the middle would not be in the middle.
    const middle = (bids[0][0] + asks[0][0]) / 2;
    const reach = Math.min(middle - bids.at(-1)[0], asks.at(-1)[0] - middle) || middle * 1e-4;
    const within = ([price]) => Math.abs(price - middle) <= reach * 1.000001;
    const most = Math.max(1e-12, ...[...bids, ...asks].filter(within).map(([, sum]) => sum));
    const foot = height - FOOT;
    const x = (price) => width / 2 + (price - middle) / reach * width / 2;
    const y = (sum) => foot - sum / most * (foot - 14);
    this.paintSide(context, bids.filter(within), x, y, ["--buy", "--buy-soft"], 0, foot);
    this.paintSide(context, asks.filter(within), x, y, ["--sell", "--sell-soft"], width, foot);
    context.fillStyle = colour("--line");
    context.fillRect(0, foot, width, 1);
    label(context, format.short(Number(most.toPrecision(4))), 2, 10);
    label(context, (middle - reach).toFixed(this.decimals), 2, height - 3);
    label(context, (middle + reach).toFixed(this.decimals), width - 2, height - 3, "right");
  }

  paintSide(context, levels, x, y, [stroke, fill], edge, foot) {
    if (!levels.length) return;
    const points = [[x(levels[0][0]), foot]];
    let before = foot;
    for (const [price, sum] of levels) {
      points.push([x(price), before], [x(price), y(sum)]);
      before = y(sum);
    }
    points.push([edge, before]);
    line(context, points, colour(stroke));
    context.lineTo(edge, foot);
    context.closePath();
    context.fillStyle = colour(fill);
    context.fill();
  }
}
