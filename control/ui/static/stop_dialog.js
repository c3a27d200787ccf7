// Stopping streams, with a second thought: one question, however many there are.

import * as api from "./api.js";
import { byId, make, onClose, setText } from "./dom.js";
import * as format from "./format.js";
import { report } from "./log.js";
import { nameOf } from "./stream_row.js";

const NAMES = 8;

export class StopDialog {
  // `onClosed(streams)`: when the question is answered either way.
  constructor(onClosed) {
    this.dialog = byId("stop-dialog");
    this.streams = [];
    onClose(this.dialog);
    byId("stop-confirm").addEventListener("click", () => this.confirm());
    this.dialog.addEventListener("close", () => onClosed(this.streams));
  }

  open(streams) {
    if (!streams.length) return;
    this.streams = streams;
    const isOne = streams.length === 1;
    const more = streams.length - NAMES;
    setText(byId("stop-title"), isOne ? "Stop this stream?" : `Stop ${format.count(streams.length)} streams?`);
    setText(byId("stop-confirm"), isOne ? "Stop stream" : `Stop ${format.count(streams.length)} streams`);
    setText(byId("stop-cancel"), isOne ? "Keep it" : "Keep them");
    byId("stop-names").replaceChildren(
      ...streams.slice(0, NAMES).map((stream) => make("li", {}, nameOf(stream))),
      ...(more > 0 ? [make("li", { class: "muted" }, `and ${format.count(more)} more`)] : []));
    this.dialog.showModal();
    byId("stop-cancel").focus();
  }

  async confirm() {
    const { streams } = this;
    this.dialog.close();
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
