// A stream's knobs. An empty field is the configured value, as null is in the API.

import * as api from "./api.js";
import { byId, onClose, setText, showError, withoutField } from "./dom.js";
import * as format from "./format.js";
import { report } from "./log.js";
import { FLUSH_KNOBS, nameOf } from "./stream_row.js";

// As the API names them, and as the status does.
const SWITCHES = [["db_writes_enabled", "db"], ["redis_publishes_enabled", "redis"]];

export class KnobsDialog {
  constructor(onClosed) {
    this.dialog = byId("knobs-dialog");
    this.ranges = {};
    this.switches = Object.fromEntries(SWITCHES.map(([name]) => [name, byId(`knob-${name}`)]));
    this.fields = Object.fromEntries(FLUSH_KNOBS.map((name) => [name, byId(`knob-${name}`)]));
    onClose(this.dialog);
    byId("knobs-form").addEventListener("submit", (event) => { event.preventDefault(); this.save(); });
    this.dialog.addEventListener("close", () => onClosed(this.stream));
    for (const name of FLUSH_KNOBS) {
      this.fields[name].addEventListener("input", () => this.paintDefault(name));
      byId(`knob-${name}-default`).addEventListener("click", () => {
        this.fields[name].value = "";
        this.paintDefault(name);
        this.fields[name].focus();
      });
    }
  }

  // What the engine allows, and what it is configured to: said with its first word.
  learn(ranges) {
    this.ranges = ranges;
    for (const name of FLUSH_KNOBS) {
      const { min, max, default: configured } = ranges[name];
      const text = configured === null ? "the configured value" : format.count(configured);
      this.fields[name].placeholder = `default: ${text}`;
      setText(byId(`knob-${name}-hint`), `${format.count(min)} to ${format.count(max)}; empty for the default, ${text}`);
    }
  }

  open(stream) {
    this.stream = stream;
    this.before = Object.fromEntries(FLUSH_KNOBS.map((name) => [name, stream[name]]));
    setText(byId("knobs-name"), nameOf(stream));
    for (const [name, member] of SWITCHES) {
      this.before[name] = stream[member];
      this.switches[name].checked = stream[member];
    }
    for (const name of FLUSH_KNOBS) {
      this.fields[name].value = this.before[name] ?? "";
      this.paintDefault(name);
    }
    this.showRefusal(null);
    this.dialog.showModal();
    this.fields[FLUSH_KNOBS[0]].focus();
  }

  paintDefault(name) {
    byId(`knob-${name}-default`).disabled = this.fields[name].value === "";
  }

  // Only what was changed is sent; what is no number goes as it is, and the API says so.
  get changes() {
    const changes = {};
    for (const [name, { checked }] of Object.entries(this.switches)) {
      if (checked !== this.before[name]) changes[name] = checked;
    }
    for (const name of FLUSH_KNOBS) {
      const text = this.fields[name].value.trim();
      const value = text === "" ? null : /^-?\d+$/.test(text) ? Number(text) : text;
      if (value !== this.before[name]) changes[name] = value;
    }
    return changes;
  }

  async save() {
    const { changes, stream } = this;
    if (!Object.keys(changes).length) { this.dialog.close(); return; }
    try {
      await api.patchKnobs(stream, changes);
      const said = Object.entries(changes).map(([name, value]) => `${name} = ${value ?? "default"}`);
      report("ok", `${nameOf(stream)}: ${said.join(", ")}`);
      this.dialog.close();
    } catch (error) {
      report("error", `${nameOf(stream)}: ${error.message}`);
      this.showRefusal(error);
    }
  }

  showRefusal(error) {
    for (const name of FLUSH_KNOBS) {
      const isNamed = error?.field === name;
      this.fields[name].setAttribute("aria-invalid", String(isNamed));
      showError(byId(`knob-${name}-error`), isNamed ? withoutField(error) : "");
      if (isNamed) this.fields[name].focus();
    }
    showError(byId("knobs-error"), error && !FLUSH_KNOBS.includes(error.field) ? error.message : "");
  }
}
