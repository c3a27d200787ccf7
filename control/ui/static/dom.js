// The few things we do with the document. Text goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Writing text that is already there would still cost a layout.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function fillSelect(select, values, textOf = (value) => value) {
  const before = select.value;
  select.replaceChildren(...values.map((value) => make("option", { value }, textOf(value))));
  if (values.includes(before)) select.value = before;
}

export function showError(element, text) {
  element.hidden = !text;
  setText(element, text);
}

// Beside the field that a refusal names, its name need not be said.
export const withoutField = (error) => error.message.replace(`${error.field}: `, "");

export function onClose(dialog) {
  for (const button of dialog.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => dialog.close());
  }
}
