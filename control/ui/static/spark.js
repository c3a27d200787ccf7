// A stream's rate over the last minute, in one small canvas.

import { colour, line, prepare } from "./canvas.js";

export const POINTS = 60;

export function drawSpark(canvas, values) {
  const { context, width, height } = prepare(canvas);
  if (values.length < 2) return;
  const top = Math.max(...values, 1e-9);
  const x = (index) => (index + POINTS - values.length) / (POINTS - 1) * (width - 1) + 0.5;
  const y = (value) => height - 1.5 - (value / top) * (height - 3);
  line(context, values.map((value, index) => [x(index), y(value)]), colour("--spark"));
  context.lineTo(x(values.length - 1), height);
  context.lineTo(x(0), height);
  context.fillStyle = colour("--spark-fill");
  context.fill();
}
