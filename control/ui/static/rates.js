// Rates from counters: the engine sends totals, the difference of two looks is the rate.

import { POINTS } from "./spark.js";

const WINDOW_MS = 3000; // counters arrive in half-second steps; three seconds smooth them
const SETTLED_MS = 900;

export class Counter {
  constructor() {
    this.looks = [];
    this.history = [];
    this.nextPoint = 0;
    this.rate = null;
  }

  update(value, nowMs) {
    const last = this.looks.at(-1);
    // A counter that went back belongs to a new engine: its past says nothing.
    if (last && value < last.value) { this.looks = []; this.history = []; this.rate = null; }
    if (last && nowMs <= last.at) return;
    this.looks.push({ at: nowMs, value });
    while (this.looks.length > 2 && this.looks[1].at <= nowMs - WINDOW_MS) this.looks.shift();
    const first = this.looks[0];
    // The first half second would read as a burst or as silence, by luck.
    if (nowMs - first.at >= SETTLED_MS) this.rate = Math.max(0, (value - first.value) * 1000 / (nowMs - first.at));
    if (this.rate !== null && nowMs >= this.nextPoint) {
      this.history.push(this.rate);
      if (this.history.length > POINTS) this.history.shift();
      this.nextPoint = nowMs + 1000;
    }
  }
}
