// A stream's rate over the last minute, in one small canvas.

export const POINTS = 60;

let colours = null;
export const forgetColours = () => { colours = null; };

function palette() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    colours = { line: style.getPropertyValue("--spark").trim(), fill: style.getPropertyValue("--spark-fill").trim() };
  }
  return colours;
}

export function drawSpark(canvas, values) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 72;
  const height = canvas.clientHeight || 18;
  if (canvas.width !== Math.round(width * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  if (values.length < 2) return;
  const top = Math.max(...values, 1e-9);
  const x = (index) => (index + POINTS - values.length) / (POINTS - 1) * (width - 1) + 0.5;
  const y = (value) => height - 1.5 - (value / top) * (height - 3);
  context.beginPath();
  values.forEach((value, index) => context[index ? "lineTo" : "moveTo"](x(index), y(value)));
  context.strokeStyle = palette().line;
  context.lineWidth = 1.25;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(x(values.length - 1), height);
  context.lineTo(x(0), height);
  context.fillStyle = palette().fill;
  context.fill();
}
