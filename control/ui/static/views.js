// The page's three views: what is collected, what the venues list, and what they offer.

import { byId, setAttribute } from "./dom.js";

const FIRST = "streams";

export class Views {
  // `opened(view)`: another one is seen. `chosen(view)`: because somebody pressed its button.
  constructor({ opened, chosen }) {
    this.opened = opened;
    this.buttons = [...byId("views").querySelectorAll("button")];
    for (const button of this.buttons) {
      button.addEventListener("click", () => { this.show(button.dataset.view); chosen(this.shown === FIRST ? "" : this.shown); });
    }
  }

  show(view) {
    const names = this.buttons.map((button) => button.dataset.view);
    this.shown = names.includes(view) ? view : FIRST;
    for (const button of this.buttons) setAttribute(button, "aria-pressed", String(button.dataset.view === this.shown));
    for (const part of document.querySelectorAll("[data-in]")) part.hidden = part.dataset.in !== this.shown;
    this.opened(this.shown);
  }
}
