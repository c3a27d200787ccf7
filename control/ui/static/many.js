// Switches of many streams at once: the API knows one, so they are asked for one after the other, a few
// at a time.

import { patchKnobs } from "./api.js";
import * as format from "./format.js";
import { report } from "./log.js";
import { nameOf } from "./stream_row.js";

const AT_A_TIME = 4;
const NAMED = 5;

// What is switched, by the word of its button. `asks`: what follows is not stored, so one is asked.
export const SWITCHES = {
  pause: { title: "Pause", done: "Paused", asks: true, knobs: { db_writes_enabled: false, redis_publishes_enabled: false } },
  resume: { title: "Resume", done: "Resumed", knobs: { db_writes_enabled: true, redis_publishes_enabled: true } },
  "db-off": { title: "Stop storing", done: "Not stored any more:", asks: true, knobs: { db_writes_enabled: false } },
  "db-on": { title: "Store", done: "Stored again:", knobs: { db_writes_enabled: true } },
};

export async function switchMany(streams, name) {
  const { done, title, knobs } = SWITCHES[name];
  const waiting = [...streams], refused = [];
  const work = async () => {
    for (let stream = waiting.pop(); stream; stream = waiting.pop()) {
      try { await patchKnobs(stream, knobs); } catch (error) { refused.push([stream, error]); }
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
  for (const [stream, error] of refused.slice(0, NAMED)) report("error", `${title} ${nameOf(stream)}: ${error.message}`);
  const count = streams.length - refused.length;
  const what = streams.length === 1 ? nameOf(streams[0]) : `${format.count(count)} streams`;
  if (count) report("ok", `${done} ${what}`);
  if (refused.length) report("error", `${title}: ${format.count(refused.length)} of ${format.count(streams.length)} were refused`);
}
