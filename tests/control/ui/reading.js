// What a reader would stumble over, evaluated in the page: a list of complaints.
() => {
  // --- every visible text against what is painted behind it: WCAG 2.1, 1.4.3 ---
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) =>
    top.slice(0, 3).map((each, at) => each * top[3] + under[at] * (1 - top[3]));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const style = getComputedStyle(element);
    const bar = style.getPropertyValue("--bar") && element.matches(".ladder li") ? rgba(style.getPropertyValue("--bar")) : [0, 0, 0, 0];
    return over(bar, over(rgba(style.backgroundColor), behind(element.parentElement)));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((each) => each / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility() || element.closest("button:disabled, .visually-hidden")) continue;
    const ground = behind(element);
    const [one, two] = [light(over(rgba(getComputedStyle(element).color), ground)), light(ground)].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    if (ratio < 4.5) found.push(`${walk.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  // --- every control has a name ---
  const controls = document.querySelectorAll("button, input, select, [role=meter], [tabindex]:not(tr)");
  for (const each of controls) {
    const isNamed = each.matches("[aria-label], [aria-labelledby]") || each.labels?.length || each.textContent.trim();
    if (each.checkVisibility() && !isNamed) found.push(`nameless: ${each.outerHTML.slice(0, 80)}`);
  }
  return [...new Set(found)];
}
