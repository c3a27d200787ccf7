// Before the first paint, so that a dark page does not flash white. Automatic unless chosen.
"use strict";
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("fts-theme"); } catch { /* storage may be switched off */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
