// One kind of stream on every instrument of a filter: seen before it is done, and answered for each.

import * as api from "./api.js";
import { byId, make, onClose, setText, showError, withoutField } from "./dom.js";
import * as format from "./format.js";
import { report } from "./log.js";
import { Offers } from "./offers.js";

const DELAY_MS = 250;
const FIRST_NAMES = 12;
const TYPED = ["symbol", "base", "quote", "limit"]; // what can be wrong
const CHOSEN = { kind: "bulk-market", state: "bulk-state" };
const OUTCOMES = ["refused", "exists", "created"]; // what went wrong comes first

const outcomeOf = (item) => (item.ok ? "created" : item.error_kind === "stream_exists" ? "exists" : "refused");

export class BulkDialog {
  // `isRunning(stream)`: whether there is nothing to add.
  constructor(isRunning) {
    this.isRunning = isRunning;
    this.dialog = byId("bulk-dialog");
    this.error = byId("bulk-error");
    this.submitButton = byId("bulk-submit");
    this.typed = Object.fromEntries(TYPED.map((name) => [name, byId(`bulk-${name}`)]));
    this.fields = { ...this.typed, ...Object.fromEntries(Object.entries(CHOSEN).map(([name, id]) => [name, byId(id)])) };
    this.asked = 0;
    this.found = null; // instruments of the conditions as they stand; null while that is unknown
    this.seen = 0; // streams that would be added
    this.isSending = false;
    this.offers = new Offers({
      exchange: byId("bulk-exchange"), kind: byId("bulk-kind"), transport: byId("bulk-transport"), note: byId("bulk-note"),
    });
    onClose(this.dialog);
    byId("bulk-form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    byId("bulk-again").addEventListener("click", () => this.showForm());
    for (const field of Object.values(this.fields)) field.addEventListener("input", () => this.previewSoon());
    this.offers.exchange.addEventListener("change", () => this.preview());
    for (const field of [this.offers.kind, this.offers.transport]) field.addEventListener("change", () => this.recount());
  }

  async open(seed = {}) {
    this.showForm();
    this.forget();
    this.dialog.showModal();
    this.fields.symbol.focus();
    try {
      await this.offers.load(seed);
      await this.preview();
    } catch (error) {
      showError(this.error, `What can be added is unknown: ${error.message}`);
    }
  }

  showForm() {
    byId("bulk-form").hidden = false;
    byId("bulk-answer").hidden = true;
    this.showRefusal(null);
    if (this.dialog.open) this.fields.symbol.focus();
  }

  // An empty field is no condition; the engine's default for the state is what trades, so it is said.
  get filter() {
    const given = Object.entries(this.fields).map(([name, field]) => [name, field.value.trim() || null]);
    const { limit, ...filter } = Object.fromEntries(given);
    return limit ? { ...filter, limit: Number(limit) } : filter;
  }

  // --- what it would be -----------------------------------------------------------------------

  // Only what was seen can be added.
  paintSubmit() { this.submitButton.disabled = this.isSending || !this.seen; }

  // An answer that is still on its way is to a question of before.
  forget() {
    clearTimeout(this.timer);
    this.asked += 1;
    this.found = null;
    this.seen = 0;
    this.paintSubmit();
  }

  previewSoon() {
    this.forget();
    this.timer = setTimeout(() => this.preview(), DELAY_MS);
  }

  async preview() {
    this.forget();
    const { limit: _, ...conditions } = this.filter;
    const exchange = this.offers.exchange.value;
    if (!exchange) return;
    const { asked } = this;
    let found = null;
    try { found = await api.instruments({ exchange, ...conditions }); } catch (error) {
      if (asked === this.asked) this.showRefusal(error);
    }
    if (asked !== this.asked || !found) return;
    this.showRefusal(null);
    this.found = found.map((row) => row.symbol);
    this.recount();
  }

  // Streams come and go while one looks, and what runs already is not added.
  recount() {
    if (!this.found) return;
    const { limit } = this.filter;
    const { exchange, kind, transport } = this.offers.values;
    const wanted = this.found.slice(0, limit > 0 ? limit : undefined);
    const added = wanted.filter((symbol) => !this.isRunning({ venue: exchange, symbol, kind, transport }));
    const count = added.length, running = wanted.length - count;
    const names = added.slice(0, FIRST_NAMES);
    const beyond = count > names.length ? `, and ${format.count(count - names.length)} more` : "";
    setText(byId("bulk-count"), (wanted.length === 1 ? "1 instrument" : `${format.count(wanted.length)} instruments`)
      + (running ? `, ${format.count(running)} collected already` : ""));
    setText(byId("bulk-names"), count ? `${names.join(", ")}${beyond}`
      : running ? "Nothing is left to add." : `${format.venue(exchange)} lists nothing like it.`);
    setText(this.submitButton, count ? `Add ${format.count(count)} ${count === 1 ? "stream" : "streams"}` : "Add streams");
    this.seen = count;
    this.paintSubmit();
  }

  // --- what became of it ----------------------------------------------------------------------

  async submit() {
    const { exchange, kind, transport } = this.offers.values;
    this.isSending = true;
    this.paintSubmit();
    try {
      this.showAnswer(await api.addByFilter({ exchange, kind, transport, filter: this.filter }));
    } catch (error) {
      report("error", `Add many ${format.kind(kind)}: ${error.message}`);
      this.showRefusal(error);
    } finally {
      this.isSending = false;
      this.paintSubmit();
    }
  }

  showAnswer(answer) {
    const counts = { created: 0, exists: 0, refused: 0 };
    for (const item of answer.results) counts[outcomeOf(item)] += 1;
    const summary = [`${counts.created} created`, `${counts.exists} existed already`, `${counts.refused} refused`,
      ...(answer.skipped ? [`${format.count(answer.skipped)} skipped that can have none`] : [])].join(", ");
    report(counts.refused ? "error" : "ok", `Added ${format.kind(this.offers.kind.value)}: ${summary}`);
    setText(byId("bulk-summary"), summary);
    const items = [...answer.results].sort((a, b) => OUTCOMES.indexOf(outcomeOf(a)) - OUTCOMES.indexOf(outcomeOf(b)));
    byId("bulk-results").replaceChildren(...items.map((item) => make("li", { data: { outcome: outcomeOf(item) } },
      make("b", {}, item.symbol), make("span", { class: "outcome" }, outcomeOf(item)),
      make("span", { class: "why" }, outcomeOf(item) === "refused" ? item.error || item.error_kind : ""))));
    byId("bulk-form").hidden = true;
    byId("bulk-answer").hidden = false;
    byId("bulk-done").focus();
  }

  // The API names the field that is wrong: `filter.limit` in a body, `base` in a query.
  showRefusal(error) {
    const named = error?.field.split(".").at(-1);
    for (const [name, field] of Object.entries(this.typed)) {
      field.setAttribute("aria-invalid", String(name === named));
      showError(byId(`bulk-${name}-error`), name === named ? withoutField(error) : "");
    }
    showError(this.error, error && !(named in this.typed) ? error.message : "");
  }
}
