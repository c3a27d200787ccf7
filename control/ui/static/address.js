// What one looks at stands in the page's address: it can be kept and sent, and the back button works.

export const read = () => Object.fromEntries(new URLSearchParams(location.search));

// `changes`: by name; "" is what needs no word. A step is one that the back button takes back.
export function write(changes, isStep = true) {
  const before = new URLSearchParams(location.search).toString();
  const wanted = new URLSearchParams(before);
  for (const [name, value] of Object.entries(changes)) {
    if (value) wanted.set(name, value); else wanted.delete(name);
  }
  const query = wanted.toString();
  if (query === before) return;
  history[isStep ? "pushState" : "replaceState"](null, "", location.pathname + (query && `?${query}`));
}

// Somebody went back or forth.
export const onMove = (show) => window.addEventListener("popstate", () => show(read()));
