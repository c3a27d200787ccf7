// Adding one stream without JSON.

import * as api from "./api.js";
import { byId, make, onClose, showError } from "./dom.js";
import * as format from "./format.js";
import { InstrumentSearch } from "./instrument_search.js";
import { report } from "./log.js";
import { Offers } from "./offers.js";

export class AddDialog {
  constructor() {
    this.dialog = byId("add-dialog");
    this.symbol = byId("add-symbol");
    this.error = byId("add-error");
    this.offers = new Offers({
      exchange: byId("add-exchange"), kind: byId("add-kind"), transport: byId("add-transport"), note: byId("add-note"),
    });
    this.search = new InstrumentSearch(this.symbol, byId("add-options"), () => this.offers.exchange.value);
    onClose(this.dialog);
    byId("add-form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
  }

  async open(seed = {}) {
    this.showRefusal(null);
    this.symbol.value = seed.symbol ?? "";
    this.dialog.showModal();
    this.symbol.focus();
    this.symbol.select();
    this.loading = this.offers.load(seed);
    try {
      await this.loading;
    } catch (error) {
      showError(this.error, `What can be added is unknown: ${error.message}`);
    }
  }

  // Who is quicker than the answer of what can be added means what that is going to show.
  async submit() {
    try { await this.loading; } catch { return; }
    const { exchange, kind, transport } = this.offers.values;
    const stream = { venue: exchange, symbol: this.symbol.value.trim(), kind, transport };
    const name = `${stream.symbol} ${format.kind(kind)}`;
    if (!stream.symbol) { showError(this.error, "Which instrument?"); this.symbol.focus(); return; }
    const button = this.dialog.querySelector("[type=submit]");
    button.disabled = true;
    try {
      await api.addStream(stream);
      report("ok", `Added ${name}`);
      this.dialog.close();
    } catch (error) {
      report("error", `Add ${name}: ${error.message}`);
      this.showRefusal(error);
    } finally {
      button.disabled = false;
    }
  }

  // A refusal that names what may have been meant is one click from being put right.
  showRefusal(error) {
    showError(this.error, error?.message ?? "");
    this.symbol.setAttribute("aria-invalid", String(error?.field === "symbol"));
    if (!error) return;
    if (error.field === "symbol") this.symbol.focus();
    for (const symbol of error.near.slice(0, 5)) {
      const button = make("button", { type: "button", class: "near" }, symbol);
      button.addEventListener("click", () => { this.symbol.value = symbol; this.showRefusal(null); this.symbol.focus(); });
      this.error.append(" ", button);
    }
  }
}
