// Exchange, kind and transport as three selects that only ever name what the engine can do.

import * as api from "./api.js";
import { fillSelect, setText } from "./dom.js";
import * as format from "./format.js";

export class Offers {
  constructor({ exchange, kind, transport, note }) {
    Object.assign(this, { exchange, kind, transport, note });
    this.offers = [];
    exchange.addEventListener("change", () => this.fillKinds());
    kind.addEventListener("change", () => this.fillTransports());
    transport.addEventListener("change", () => this.fillNote());
  }

  // `seed`: the stream that is looked at, for a start.
  async load(seed = {}) {
    this.offers = await api.capabilities();
    fillSelect(this.exchange, this.offered("exchange", {}), format.venue);
    if (this.offered("exchange", {}).includes(seed.venue)) this.exchange.value = seed.venue;
    this.fillKinds();
  }

  get values() {
    return { exchange: this.exchange.value, kind: this.kind.value, transport: this.transport.value };
  }

  offered(field, conditions) {
    const matching = this.offers.filter((offer) => Object.entries(conditions).every(([name, value]) => offer[name] === value));
    return [...new Set(matching.map((offer) => offer[field]))];
  }

  fillKinds() {
    fillSelect(this.kind, this.offered("kind", { exchange: this.exchange.value }), format.kind);
    this.fillTransports();
  }

  fillTransports() {
    const conditions = { exchange: this.exchange.value, kind: this.kind.value };
    fillSelect(this.transport, this.offered("transport", conditions), format.transport);
    this.fillNote();
  }

  fillNote() {
    const [note] = this.offered("note", this.values);
    setText(this.note, note ?? "");
  }
}
