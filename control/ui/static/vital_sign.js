// The engine's health where one sees it without looking at the page: the tab's title and icon.

const SIGNS = { yellow: ["degraded", "icon-degraded.svg"], red: ["failing", "icon-failing.svg"], lost: ["no connection", "icon-lost.svg"] };
const NAME = document.title;

let shown = "";

// `light`: the worst there is, or `lost`.
export function paintVitalSign(light) {
  if (light === shown) return;
  shown = light;
  const [word, icon] = SIGNS[light] ?? ["", "icon.svg"];
  document.title = word ? `${word} · ${NAME}` : NAME;
  document.querySelector("link[rel=icon]").href = new URL(icon, import.meta.url).href;
}
