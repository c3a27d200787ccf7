// What a venue lists, and what of it is collected.

import * as api from "./api.js";
import { byId, fillSelect, make, setText, showError } from "./dom.js";
import * as format from "./format.js";
import { report } from "./log.js";
import { dateOf } from "./times.js";

const SHOWN = 300;
const MATCHES = {
  contains: (symbol, text) => symbol.includes(text), starts: (symbol, text) => symbol.startsWith(text),
  ends: (symbol, text) => symbol.endsWith(text), exact: (symbol, text) => !text || symbol === text,
};

const day = (ns) => (ns > 0 ? dateOf(Math.floor(ns / 1e6)) : "");

export class InstrumentsView {
  // `collected(venue)`: the kinds of streams by symbol. `add(seed)`: somebody wants one of it.
  constructor({ collected, add }) {
    Object.assign(this, { collected, add });
    this.listed = null;
    this.asked = 0;
    this.exchange = byId("listed-exchange");
    this.fields = ["text", "match", "kind", "state", "collected"].map((name) => byId(`listed-${name}`));
    this.exchange.addEventListener("change", () => this.load());
    for (const field of this.fields) field.addEventListener("input", () => this.paint());
    byId("listed-form").addEventListener("submit", (event) => event.preventDefault());
    byId("listed-refresh").addEventListener("click", () => this.refresh());
  }

  async open(seed = {}) {
    try {
      if (!this.exchange.length) {
        const offers = await api.capabilities();
        fillSelect(this.exchange, [...new Set(offers.map((offer) => offer.exchange))], format.venue);
        if (seed.venue) this.exchange.value = seed.venue;
      }
      if (!this.listed) await this.load();
      this.paint();
      byId("listed-text").focus();
    } catch (error) { this.fail(error); }
  }

  async load() {
    const asked = ++this.asked;
    try {
      const listed = await api.instruments({ exchange: this.exchange.value });
      if (asked !== this.asked) return;
      this.listed = listed;
      showError(byId("listed-error"), "");
      this.paint();
    } catch (error) { if (asked === this.asked) this.fail(error); }
  }

  fail(error) { showError(byId("listed-error"), `What is listed is unknown: ${error.message}`); }

  // The venue is asked anew; what was known stays where it does not answer.
  async refresh() {
    const button = byId("listed-refresh");
    button.disabled = true;
    try {
      const [{ error, instrument_count: count, event_count: changes }] = await api.refreshInstruments(this.exchange.value);
      const name = format.venue(this.exchange.value);
      if (error) report("error", `${name}: ${error}`);
      else report("ok", `${name} lists ${format.count(count)} instruments, ${format.count(changes)} changes`);
      await this.load();
      showError(byId("listed-error"), error);
    } catch (error) {
      report("error", `Refresh: ${error.message}`);
      showError(byId("listed-error"), error.message);
    } finally {
      button.disabled = false;
    }
  }

  // --- what is shown --------------------------------------------------------------------------

  matching(collected) {
    const [text, match, kind, state, wanted] = this.fields.map((field) => field.value.trim());
    const lower = text.toLowerCase();
    return this.listed.filter((each) => MATCHES[match](each.symbol.toLowerCase(), lower)
      && (!kind || each.kind === kind) && (!state || each.state === state)
      && (!wanted || (wanted === "yes") === collected.has(each.symbol)));
  }

  // Streams come and go while one looks.
  recount(streamCount) {
    if (streamCount !== this.streamCount) this.paint();
    this.streamCount = streamCount;
  }

  paint() {
    if (!this.listed) return;
    const collected = this.collected(this.exchange.value);
    const found = this.matching(collected);
    const more = found.length - SHOWN;
    setText(byId("listed-count"), `${format.count(found.length)} of ${format.count(this.listed.length)}${more > 0 ? `, the first ${SHOWN} are shown` : ""}`);
    byId("listed").tBodies[0].replaceChildren(...found.slice(0, SHOWN).map((each) => this.rowOf(each, collected.get(each.symbol) ?? [])));
  }

  rowOf(each, kinds) {
    const button = make("button", { type: "button", class: "quiet commands", "aria-label": `Add a stream of ${each.symbol}` }, "Add");
    button.addEventListener("click", () => this.add({ venue: each.exchange, symbol: each.symbol }));
    return make("tr", {},
      make("th", { scope: "row" }, each.symbol), make("td", {}, [each.base, each.quote].filter(Boolean).join("/")),
      make("td", {}, each.kind || each.venue_kind), make("td", {}, each.state || each.status),
      make("td", { class: "num" }, each.tick_size), make("td", { class: "num" }, each.lot_size),
      make("td", { class: "num" }, `${each.contract_size} ${each.contract_unit === "quote" ? each.quote : each.contract_unit === "base" ? each.base : ""}`.trim()),
      make("td", {}, day(each.listed_ns)), make("td", {}, day(each.delivery_ns)),
      make("td", {}, kinds.map(format.kind).join(", ")), make("td", {}, button));
  }
}
