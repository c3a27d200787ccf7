// What all that is drawn here has in common: sharp lines on any screen, and the theme's colours.

let colours = new Map();
export const forgetColours = () => { colours = new Map(); };

// `name`: a custom property of the style.
export function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.get(name);
}

// An empty canvas as large as its box; sizes are in CSS pixels.
export function prepare(canvas, fallback = [72, 18]) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || fallback[0], height = canvas.clientHeight || fallback[1];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineJoin = "round";
  return { context, width, height };
}

export function line(context, points, stroke, { width = 1.25, dash = [] } = {}) {
  context.beginPath();
  let isDown = false;
  for (const point of points) {
    if (!point) { isDown = false; continue; } // nobody knows: no line through it
    context[isDown ? "lineTo" : "moveTo"](point[0], point[1]);
    isDown = true;
  }
  context.setLineDash(dash);
  context.strokeStyle = stroke;
  context.lineWidth = width;
  context.stroke();
  context.setLineDash([]);
}

// The next of 1, 2, 5, 10, … that is not less.
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

const STEPS_S = [1, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];

// Whole times between two (ms), so many at most.
export function timesBetween(from, to, count) {
  const step = 1000 * (STEPS_S.find((seconds) => (to - from) / 1000 / seconds <= count) ?? STEPS_S.at(-1));
  const first = Math.ceil(from / step) * step;
  return Array.from({ length: Math.max(0, Math.floor((to - first) / step) + 1) }, (_, index) => first + index * step);
}

export function label(context, text, x, y, align = "left", name = "--faint") {
  context.font = `10px ${getComputedStyle(document.body).fontFamily}`;
  context.fillStyle = colour(name);
  context.textAlign = align;
  context.fillText(text, x, y);
}
