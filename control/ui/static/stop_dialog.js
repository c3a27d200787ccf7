// Stopping streams, or what becomes of their rows, with a second thought: one question, however many.

import * as api from "./api.js";
import { byId, make, onClose, setText } from "./dom.js";
import * as format from "./format.js";
import { report } from "./log.js";
import { SWITCHES, switchMany } from "./many.js";
import { nameOf } from "./stream_row.js";

const NAMES = 8;
const STOP = { title: "Stop" };
const TEXTS = {
  stop: "What is stopped is unsubscribed and does not come back after a restart. What is stored stays.",
  pause: "Rows that come meanwhile are neither stored nor published, and are declared as a gap. The streams stay subscribed.",
  "db-off": "Rows that come meanwhile are published and not stored, and are declared as a gap.",
};

export class StopDialog {
  // `onClosed(streams)`: when the question is answered either way.
  constructor(onClosed) {
    this.dialog = byId("stop-dialog");
    this.streams = [];
    onClose(this.dialog);
    byId("stop-confirm").addEventListener("click", () => this.confirm());
    this.dialog.addEventListener("close", () => onClosed(this.streams));
  }

  // `name`: `stop`, or one of `SWITCHES` that asks.
  open(streams, name = "stop") {
    if (!streams.length) return;
    this.streams = streams;
    this.name = name;
    const isOne = streams.length === 1;
    const more = streams.length - NAMES;
    const { title } = SWITCHES[name] ?? STOP;
    const many = `${format.count(streams.length)} streams`;
    setText(byId("stop-title"), isOne ? `${title} this stream?` : `${title} ${many}?`);
    setText(byId("stop-confirm"), isOne ? `${title} stream` : `${title} ${many}`);
    setText(byId("stop-cancel"), isOne ? "Keep it" : "Keep them");
    setText(byId("stop-text"), TEXTS[name]);
    byId("stop-names").replaceChildren(
      ...streams.slice(0, NAMES).map((stream) => make("li", {}, nameOf(stream))),
      ...(more > 0 ? [make("li", { class: "muted" }, `and ${format.count(more)} more`)] : []));
    this.dialog.showModal();
    byId("stop-cancel").focus();
  }

  async confirm() {
    const { streams } = this;
    this.dialog.close();
    if (this.name !== "stop") { await switchMany(streams, this.name); return; }
    const what = streams.length === 1 ? nameOf(streams[0]) : `${streams.length} streams`;
    try {
      if (streams.length === 1) await api.stopStream(streams[0]);
      else this.readAnswer(await api.stopStreams(streams));
      report("ok", `Stopped ${what}`);
    } catch (error) {
      report("error", `Stop ${what}: ${error.message}`);
    }
  }

  readAnswer({ results, refused }) {
    for (const item of results.filter((each) => !each.ok)) {
      report("error", `Stop ${item.symbol} ${format.kind(item.kind)}: ${item.error || item.error_kind}`);
    }
    if (refused) throw new Error(`${refused} of ${results.length} were not stopped`);
  }
}
