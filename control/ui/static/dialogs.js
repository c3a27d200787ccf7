// Adding a stream without JSON, stopping one with a second thought, and the token.

import * as api from "/ui/api.js";
import { byId, make, onClose, setText } from "/ui/dom.js";
import * as format from "/ui/format.js";

const SEARCH_DELAY_MS = 150;

function fillSelect(select, values, textOf = (value) => value) {
  const before = select.value;
  select.replaceChildren(...values.map((value) => make("option", { value }, textOf(value))));
  if (values.includes(before)) select.value = before;
}

function showError(element, text) {
  element.hidden = !text;
  setText(element, text);
}

export class AddDialog {
  constructor(report) {
    this.report = report;
    this.dialog = byId("add-dialog");
    this.exchange = byId("add-exchange");
    this.kind = byId("add-kind");
    this.transport = byId("add-transport");
    this.symbol = byId("add-symbol");
    this.options = byId("add-options");
    this.error = byId("add-error");
    this.offers = [];
    this.active = -1;
    this.asked = 0;
    onClose(this.dialog);
    byId("add-form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    this.exchange.addEventListener("change", () => { this.fillKinds(); this.search(); });
    this.kind.addEventListener("change", () => this.fillTransports());
    this.transport.addEventListener("change", () => this.fillNote());
    this.symbol.addEventListener("input", () => this.searchSoon());
    this.symbol.addEventListener("focus", () => this.searchSoon());
    this.symbol.addEventListener("keydown", (event) => this.onKey(event));
    this.symbol.addEventListener("blur", () => this.closeOptions());
  }

  async open(seed = {}) {
    showError(this.error, "");
    this.symbol.value = seed.symbol ?? "";
    this.dialog.showModal();
    this.symbol.focus();
    try {
      this.offers = await api.capabilities();
    } catch (error) {
      showError(this.error, `What can be added is unknown: ${error.message}`);
      return;
    }
    fillSelect(this.exchange, [...new Set(this.offers.map((offer) => offer.exchange))], format.venue);
    if (seed.venue) this.exchange.value = this.offers.find((offer) => format.venueKey(offer.exchange) === seed.venue)?.exchange ?? this.exchange.value;
    this.fillKinds();
  }

  offered(field, conditions) {
    const matching = this.offers.filter((offer) => Object.entries(conditions).every(([name, value]) => offer[name] === value));
    return [...new Set(matching.map((offer) => offer[field]))];
  }

  fillKinds() {
    fillSelect(this.kind, this.offered("kind", { exchange: this.exchange.value }));
    this.fillTransports();
  }

  fillTransports() {
    const conditions = { exchange: this.exchange.value, kind: this.kind.value };
    fillSelect(this.transport, this.offered("transport", conditions), (value) => (value === "Ws" ? "WebSocket" : "HTTP poll"));
    this.fillNote();
  }

  fillNote() {
    const offer = this.offers.find((each) => each.exchange === this.exchange.value
      && each.kind === this.kind.value && each.transport === this.transport.value);
    setText(byId("add-note"), offer?.note ?? "");
  }

  // --- instrument search ----------------------------------------------------------------------

  searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.search(), SEARCH_DELAY_MS);
  }

  async search() {
    if (!this.exchange.value || document.activeElement !== this.symbol) return;
    const asked = ++this.asked;
    let found = [];
    try { found = await api.instruments(this.exchange.value, this.symbol.value.trim()); } catch { /* typing works without */ }
    if (asked !== this.asked || document.activeElement !== this.symbol) return;
    const isDone = found.length === 1 && found[0].symbol === this.symbol.value;
    this.showOptions(isDone ? [] : found.slice(0, 8));
  }

  showOptions(found) {
    this.active = -1;
    this.options.replaceChildren(...found.map((instrument, index) => {
      const option = make("li", { role: "option", id: `add-option-${index}`, data: { symbol: instrument.symbol }, "aria-selected": "false" },
        make("b", {}, instrument.symbol),
        make("span", {}, [instrument.base && instrument.quote ? `${instrument.base}/${instrument.quote}` : "", instrument.tick_size ? `tick ${instrument.tick_size}` : "", instrument.status && instrument.status !== "TRADING" ? instrument.status : ""].filter(Boolean).join(" · ")));
      // pointerdown, because the input's blur would close the list before a click arrives
      option.addEventListener("pointerdown", (event) => { event.preventDefault(); this.choose(index); });
      return option;
    }));
    this.options.hidden = found.length === 0;
    this.symbol.setAttribute("aria-expanded", String(found.length > 0));
    this.symbol.removeAttribute("aria-activedescendant");
  }

  closeOptions() { this.asked += 1; this.showOptions([]); }

  choose(index) {
    const option = this.options.children[index];
    if (option) this.symbol.value = option.dataset.symbol;
    this.closeOptions();
  }

  mark(index) {
    const options = [...this.options.children];
    this.active = (index + options.length) % options.length;
    options.forEach((option, each) => option.setAttribute("aria-selected", String(each === this.active)));
    options[this.active].scrollIntoView({ block: "nearest" });
    this.symbol.setAttribute("aria-activedescendant", options[this.active].id);
  }

  onKey(event) {
    const isOpen = !this.options.hidden;
    if (event.key === "ArrowDown" && isOpen) this.mark(this.active + 1);
    else if (event.key === "ArrowUp" && isOpen) this.mark(this.active - 1);
    else if (event.key === "Enter" && isOpen && this.active >= 0) this.choose(this.active);
    else if (event.key === "Escape" && isOpen) { event.stopPropagation(); this.closeOptions(); }
    else if (event.key === "ArrowDown") { this.searchSoon(); return; }
    else return;
    event.preventDefault();
  }

  // --- sending --------------------------------------------------------------------------------

  async submit() {
    const stream = {
      venue: this.exchange.value, symbol: this.symbol.value.trim(), kind: this.kind.value, transport: this.transport.value,
    };
    if (!stream.symbol) { showError(this.error, "Which instrument?"); this.symbol.focus(); return; }
    const button = this.dialog.querySelector("[type=submit]");
    button.disabled = true;
    try {
      await api.addStream(stream);
      this.report("ok", `Added ${stream.symbol} ${stream.kind}`);
      this.dialog.close();
    } catch (error) {
      this.report("error", `Add ${stream.symbol} ${stream.kind}: ${error.message}`);
      this.showRefusal(error);
    } finally {
      button.disabled = false;
    }
  }

  // A refusal that names what may have been meant is one click from being put right.
  showRefusal(error) {
    showError(this.error, error.message);
    for (const symbol of error.near.slice(0, 5)) {
      const button = make("button", { type: "button", class: "near" }, symbol);
      button.addEventListener("click", () => { this.symbol.value = symbol; showError(this.error, ""); this.symbol.focus(); });
      this.error.append(" ", button);
    }
  }
}

export class StopDialog {
  constructor(report, onClosed) {
    this.report = report;
    this.dialog = byId("stop-dialog");
    onClose(this.dialog);
    byId("stop-confirm").addEventListener("click", () => this.confirm());
    this.dialog.addEventListener("close", () => onClosed(this.stream));
  }

  open(stream) {
    this.stream = stream;
    setText(byId("stop-name"), `${format.venue(stream.venue)}  ${stream.symbol}  ${stream.kind}  ${stream.transport}`);
    this.dialog.showModal();
    byId("stop-cancel").focus();
  }

  async confirm() {
    const stream = this.stream;
    this.dialog.close();
    try {
      await api.stopStream(stream);
      this.report("ok", `Stopped ${stream.symbol} ${stream.kind}`);
    } catch (error) {
      this.report("error", `Stop ${stream.symbol} ${stream.kind}: ${error.message}`);
    }
  }
}

export class TokenDialog {
  constructor() {
    this.dialog = byId("token-dialog");
    this.input = byId("token-input");
    this.dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const value = this.input.value.trim();
      if (!value) return;
      // A header takes printable ASCII; anything else cannot be a token of ours.
      if (!/^[\x21-\x7e]+$/.test(value)) { showError(byId("token-error"), "A token has only letters, digits and signs."); return; }
      api.token.set(value);
      this.input.value = "";
      this.dialog.close();
      byId("forget-token").hidden = false;
      this.done();
    });
  }

  prompt(wasWrong) {
    showError(byId("token-error"), wasWrong ? "This token is not accepted." : "");
    if (!this.dialog.open) this.dialog.showModal();
    this.input.focus();
    return new Promise((resolve) => { this.done = resolve; });
  }
}
