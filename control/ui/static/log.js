// What was done and what went wrong, newest first.

import { byId, make } from "./dom.js";
import { timeOf } from "./times.js";

const LOG_LINES = 50;

export function report(tone, text) {
  const log = byId("log");
  log.prepend(make("li", { data: { tone } },
    timeOf(Date.now(), "second"), make("span", {}, text)));
  while (log.childElementCount > LOG_LINES) log.lastChild.remove();
  byId("log-empty").hidden = true;
}

byId("log-clear").addEventListener("click", () => {
  byId("log").replaceChildren();
  byId("log-empty").hidden = false;
});
