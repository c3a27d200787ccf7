// What each venue offers and what one may rely on, in the words of the venues' registry.

import * as api from "./api.js";
import { byId, make, showError } from "./dom.js";
import * as format from "./format.js";

const PROOFS = {
  ids: ["exact", "ids of the venue tell what is missing, and how much"],
  checksum: ["checked", "sums of the venue tell that something is missing, and not what"],
  history: ["told again", "the venue tells the past once more, as far back as it reaches"],
  samples: ["sampled", "each row is how things were; what lies between two is not seen"],
  nothing: ["unprovable", "no row tells whether one is missing; interruptions are declared"],
};

export class VenuesView {
  async open() {
    if (this.isLoaded) return;
    try {
      this.paint(await api.capabilities());
      this.isLoaded = true;
      showError(byId("venues-error"), "");
    } catch (error) {
      showError(byId("venues-error"), `What the venues offer is unknown: ${error.message}`);
    }
  }

  paint(offers) {
    byId("proofs").replaceChildren(...Object.entries(PROOFS).map(([proof, [word, text]]) =>
      make("div", {}, make("dt", {}, make("span", { class: "proof", data: { proof } }, word)), make("dd", {}, text))));
    byId("venues").tBodies[0].replaceChildren(...offers.map((offer, index) => {
      const [word, text] = PROOFS[offer.proof] ?? [offer.proof, ""];
      const isFirst = offers[index - 1]?.exchange !== offer.exchange;
      const every = offer.interval_s ? ` every ${format.period(offer.interval_s)}` : "";
      return make("tr", { class: isFirst ? "first" : "" },
        make("th", { scope: "row" }, isFirst ? format.venue(offer.exchange) : make("span", { class: "visually-hidden" }, format.venue(offer.exchange))),
        make("td", {}, format.kind(offer.kind)), make("td", {}, format.transport(offer.transport) + every),
        make("td", {}, make("span", { class: "proof", data: { proof: offer.proof }, title: text }, word)),
        make("td", {}, offer.time === "venue" ? "the venue's" : "of receipt"), make("td", { class: "wraps" }, offer.note ?? ""));
    }));
  }
}
