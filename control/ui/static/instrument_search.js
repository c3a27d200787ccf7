// A text field that searches the exchange's instruments while one types.

import * as api from "./api.js";
import { make } from "./dom.js";

const DELAY_MS = 150;
const SHOWN = 8;

// That it trades goes without saying; a word that nobody has mapped is shown as the venue says it.
function detailOf({ base, quote, kind, venue_kind: venueKind, tick_size: tick, state, status }) {
  const pair = base && quote ? `${base}/${quote}` : "";
  return [pair, kind || venueKind, tick ? `tick ${tick}` : "", state === "trading" ? "" : state || status]
    .filter(Boolean).join(" · ");
}

export class InstrumentSearch {
  constructor(input, options, exchangeOf) {
    Object.assign(this, { input, options, exchangeOf });
    this.active = -1;
    this.asked = 0;
    input.addEventListener("input", () => this.soon());
    input.addEventListener("focus", () => this.soon());
    input.addEventListener("keydown", (event) => this.onKey(event));
    input.addEventListener("blur", () => this.close());
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.search(), DELAY_MS);
  }

  async search() {
    const exchange = this.exchangeOf();
    if (!exchange || document.activeElement !== this.input) return;
    const asked = ++this.asked;
    let found = [];
    try { found = await api.instruments({ exchange, q: this.input.value.trim(), limit: SHOWN }) ?? []; } catch { /* typing works without */ }
    if (asked !== this.asked || document.activeElement !== this.input) return;
    const isDone = found.length === 1 && found[0].symbol === this.input.value;
    this.show(isDone ? [] : found);
  }

  show(found) {
    this.active = -1;
    this.options.replaceChildren(...found.map((instrument, index) => {
      const option = make("li", { role: "option", id: `${this.options.id}-${index}`, data: { symbol: instrument.symbol }, "aria-selected": "false" },
        make("b", {}, instrument.symbol), make("span", {}, detailOf(instrument)));
      // pointerdown, because the input's blur would close the list before a click arrives
      option.addEventListener("pointerdown", (event) => { event.preventDefault(); this.choose(index); });
      return option;
    }));
    this.options.hidden = found.length === 0;
    this.input.setAttribute("aria-expanded", String(found.length > 0));
    this.input.removeAttribute("aria-activedescendant");
  }

  close() { this.asked += 1; this.show([]); }

  choose(index) {
    const option = this.options.children[index];
    if (option) this.input.value = option.dataset.symbol;
    this.close();
  }

  mark(index) {
    const options = [...this.options.children];
    this.active = (index + options.length) % options.length;
    options.forEach((option, each) => option.setAttribute("aria-selected", String(each === this.active)));
    options[this.active].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", options[this.active].id);
  }

  onKey(event) {
    const isOpen = !this.options.hidden;
    if (event.key === "ArrowDown" && isOpen) this.mark(this.active + 1);
    else if (event.key === "ArrowUp" && isOpen) this.mark(this.active - 1);
    else if (event.key === "Enter" && isOpen && this.active >= 0) this.choose(this.active);
    else if (event.key === "Escape" && isOpen) { event.stopPropagation(); this.close(); }
    else if (event.key === "ArrowDown") { this.soon(); return; }
    else return;
    event.preventDefault();
  }
}
