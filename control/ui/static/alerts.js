// One line under the header that is always there: all is well, or what is not. What changes there by
// the second is not read aloud; that something turned better or worse is, once.

import { byId, make, setAttribute, setText } from "./dom.js";
import { moment } from "./times.js";
import { paintVitalSign } from "./vital_sign.js";

const WORDS = { green: "healthy", yellow: "degraded", red: "failing", unknown: "unknown" };

// The engine's verdict is often the sentence of one of its lights: once is enough.
const distinct = (lights) => lights.filter(([, light], index) =>
  !light.reason || lights.findIndex(([, other]) => other.reason === light.reason) === index);

export function announce(text) {
  setText(byId("announcement"), text);
}

export class Alerts {
  constructor() {
    this.lights = new Map();
    this.said = null;
    this.lostSince = null;
    this.reason = "";
    this.lines = [];
  }

  lost(reason) {
    if (!this.lostSince) announce("The connection to the engine is lost. Trying again.");
    this.lostSince ??= Date.now();
    this.reason = reason;
    this.paint();
  }

  found() {
    if (this.lostSince) announce("The connection to the engine is back.");
    this.lostSince = null;
    this.paint();
  }

  // `said`: what the engine says of itself. Its light is the worst of that and of the others.
  update(lights, said) {
    this.said = said;
    const changed = [];
    for (const item of byId("lights").children) {
      const name = item.querySelector(".name").textContent;
      const light = lights[item.dataset.light] ?? { status: "unknown", reason: "nothing is known" };
      const word = WORDS[light.status] ?? light.status;
      setAttribute(item, "data-status", light.status);
      setAttribute(item, "title", light.reason || word);
      setText(item.querySelector(".word"), word);
      const before = this.lights.get(name);
      if (before ? before.status !== light.status : light.status !== "green") changed.push([name, light]);
      this.lights.set(name, light);
    }
    const words = distinct(changed).map(([name, light]) => `${name}: ${WORDS[light.status] ?? light.status}. ${light.reason}`);
    if (words.length) announce(words.join(" "));
    this.paint();
  }

  paint() {
    const own = this.said ? [["Engine", this.said]] : [];
    const parts = [...this.lights].filter(([name]) => name !== "Engine");
    const lines = distinct([...own, ...parts].filter(([, light]) => light.status !== "green"))
      .map(([name, light]) => [light.status, name, light.reason || WORDS[light.status]]);
    if (this.lostSince) {
      const known = this.lights.size ? " What is shown is from then." : "";
      lines.unshift(["red", "No connection",
        `since ${moment(this.lostSince)}: ${this.reason}.${known} Trying again.`]);
    }
    const box = byId("alerts");
    const isBad = lines.some(([status]) => status === "red");
    paintVitalSign(this.lostSince ? "lost" : isBad ? "red" : lines.length ? "yellow" : "green");
    if (!lines.length) lines.push(["green", this.lights.size ? "All healthy" : "Waiting for the engine", ""]);
    setAttribute(box, "data-status", lines[0][0]);
    while (box.childElementCount > lines.length) box.lastChild.remove();
    while (box.childElementCount < lines.length) box.append(make("p", {}, make("span", { class: "dot" }), make("b"), make("span")));
    lines.forEach(([status, name, text], index) => {
      const line = box.children[index];
      setAttribute(line, "data-status", status);
      setText(line.children[1], name);
      setText(line.children[2], text);
    });
  }
}
