// Times on the page: all are UTC, and each has its date as soon as it is not today's.

import { make, setText } from "./dom.js";

const iso = (ms) => new Date(ms).toISOString();
const dayOf = (ms) => iso(ms).slice(0, 10);
const date = (ms) => new Date(ms).toUTCString().slice(5, 11); // "21 Nov"

// As wide as its column: what is of another day leaves out the finer digits.
const STYLES = {
  second: (ms, isToday) => (isToday ? "" : `${date(ms)} `) + iso(ms).slice(11, 19),
  exact: (ms, isToday) => (isToday ? iso(ms).slice(11, 23) : `${date(ms)} ${iso(ms).slice(11, 16)}`),
  narrow: (ms, isToday) => (isToday ? iso(ms).slice(11, 19) : date(ms)),
};

const textOf = (ms, style) => STYLES[style](ms, dayOf(ms) === dayOf(Date.now()));

// For a sentence.
export const moment = (ms) => `${textOf(ms, "second")} UTC`;

// For the foot of a chart.
export const clock = (ms) => iso(ms).slice(11, 19);

// For what may be years ago.
export const dateOf = (ms) => iso(ms).slice(0, 10);

// For a list.
export const timeOf = (ms, style, className = "") =>
  make("time", { class: className, dateTime: iso(ms), data: { style } }, textOf(ms, style));

let painted = dayOf(Date.now());

// What was today's is yesterday's after midnight.
export function followDay() {
  if (dayOf(Date.now()) === painted) return;
  painted = dayOf(Date.now());
  for (const each of document.querySelectorAll("time[data-style]")) {
    setText(each, textOf(Date.parse(each.dateTime), each.dataset.style));
  }
}
