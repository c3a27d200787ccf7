// The page: one feed of the engine's status, and everything that is painted from it.

import * as api from "/ui/api.js";
import { AddDialog, StopDialog, TokenDialog } from "/ui/dialogs.js";
import { byId, make, setAttribute, setText } from "/ui/dom.js";
import * as format from "/ui/format.js";
import { Market } from "/ui/market.js";
import { Counter } from "/ui/rates.js";
import { forgetColours } from "/ui/spark.js";
import { StreamTable } from "/ui/streams.js";

const LOG_LINES = 50;
const HIDDEN_PAUSE_MS = 30_000;
const QUIET_MS = 4000;
const LIGHT_WORDS = { green: "healthy", yellow: "degraded", red: "failing" };
const KNOBS = { db: "db_writes_enabled", redis: "redis_publishes_enabled" };

// --- actions and errors ---------------------------------------------------------------------------

function report(tone, text) {
  const log = byId("log");
  log.prepend(make("li", { data: { tone } }, make("time", {}, format.wallClock(new Date())), make("span", {}, text)));
  while (log.childElementCount > LOG_LINES) log.lastChild.remove();
  byId("log-empty").hidden = true;
}

byId("log-clear").addEventListener("click", () => { byId("log").replaceChildren(); byId("log-empty").hidden = false; });

// --- the parts ------------------------------------------------------------------------------------

const tokenDialog = new TokenDialog();
api.token.onNeeded((wasWrong) => tokenDialog.prompt(wasWrong));
byId("forget-token").hidden = !api.token.get();
byId("forget-token").addEventListener("click", () => { api.token.forget(); location.reload(); });

const market = new Market();
const addDialog = new AddDialog(report);
const stopDialog = new StopDialog(report, (stream) => table.focusRow(`${stream.venue}/${stream.symbol}/${stream.kind}/${stream.transport}`));

const table = new StreamTable({
  select: (row) => market.show(row),
  stop: (row) => stopDialog.open(row),
  setKnob: async (row, name, value) => {
    try {
      await api.patchKnobs(row, { [KNOBS[name]]: value });
      report("ok", `${row.symbol} ${row.kind}: ${name === "db" ? "database" : "Redis"} ${value ? "on" : "off"}`);
    } catch (error) {
      delete row.pending?.[name];
      report("error", `${row.symbol} ${row.kind}: ${error.message}`);
    }
  },
});

const totals = { received: new Counter(), stored: new Counter(), published: new Counter() };
const cpu = new Map();

// --- painting a status ----------------------------------------------------------------------------

let columns = [];
let engineAhead = 0; // the engine's clock minus ours: ages are reckoned by the engine's
let instance = "";

const engineNow = () => Date.now() + engineAhead;

function paintLights(lights) {
  const reasons = [];
  for (const item of byId("lights").children) {
    const light = lights[item.dataset.light] ?? { status: "unknown", reason: "nothing is known" };
    setAttribute(item, "data-status", light.status);
    setAttribute(item, "title", light.reason || light.status);
    setText(item.querySelector(".word"), LIGHT_WORDS[light.status] ?? light.status);
    if (light.status !== "green") reasons.push([item.querySelector(".name").textContent, light]);
  }
  const box = byId("reasons");
  box.hidden = reasons.length === 0;
  const text = reasons.map(([name, light]) => `${name}: ${light.reason || light.status}`).join("\n");
  // Written only when it changed: it is announced to screen readers.
  if (box.dataset.text !== text) {
    box.dataset.text = text;
    box.replaceChildren(...reasons.map(([name, light]) =>
      make("p", { data: { status: light.status } }, make("b", {}, `${name} `), light.reason || light.status)));
  }
}

function setTotal(name, value, tone = "") {
  const element = document.querySelector(`[data-total=${name}]`);
  setText(element, value);
  setAttribute(element.closest("div"), "data-tone", tone);
}

function paintTotals(status) {
  setTotal("uptime", format.span(status.uptime_s));
  const { writer } = status;
  if (!writer) return;
  for (const [name, counter] of Object.entries(totals)) {
    counter.update(writer[name], status.now_ms);
    setTotal(name, format.rate(counter.rate));
  }
  setTotal("backlog", format.short(writer.backlog_rows), writer.backlog_rows > 100_000 ? "warn" : "");
  setTotal("journal", format.bytes(writer.journal_bytes));
  setTotal("dropped", format.short(writer.dropped), writer.dropped ? "bad" : "");
  setTotal("quarantined", format.short(writer.quarantined), writer.quarantined ? "bad" : "");
  const stage = writer.latency_us.database;
  setTotal("latency", stage?.p99 === undefined ? "–" : (stage.p99 / 1000).toFixed(stage.p99 < 10_000 ? 1 : 0));
}

function paintLimiters(limiters) {
  byId("limiters-empty").hidden = limiters.length > 0;
  const list = byId("limiters");
  while (list.childElementCount > limiters.length) list.lastChild.remove();
  while (list.childElementCount < limiters.length) {
    list.append(make("li", {},
      make("span", { class: "name" }), make("span", { class: "meter", role: "meter" }, make("span", { class: "level" })),
      make("span", { class: "value" }), make("span", { class: "state" })));
  }
  limiters.forEach((limiter, index) => {
    const [name, meter, value, state] = list.children[index].children;
    const used = Math.max(limiter.used, limiter.venue_used ?? 0);
    const part = limiter.budget > 0 ? Math.min(1, used / limiter.budget) : 0;
    setText(name, `${format.venue(limiter.venue)} · ${limiter.pool.replaceAll("_", " ")}`);
    setText(value, `${format.short(Math.round(used))} / ${format.short(limiter.budget)} per ${format.period(limiter.window_s)}`);
    meter.firstChild.style.transform = `scaleX(${part})`;
    for (const [attribute, number] of [["aria-valuenow", Math.round(used)], ["aria-valuemin", 0], ["aria-valuemax", limiter.budget]]) setAttribute(meter, attribute, String(number));
    setAttribute(meter, "aria-label", name.textContent);
    setAttribute(list.children[index], "data-tone", limiter.blocked_s > 0 || part >= 0.95 ? "bad" : part >= 0.75 ? "warn" : "");
    const notes = [];
    if (limiter.blocked_s > 0) notes.push(`blocked ${format.span(limiter.blocked_s)}`);
    if (limiter.waiting_count > 0) notes.push(`${limiter.waiting_count} waiting`);
    setText(state, notes.join(", "));
  });
}

function cpuOf(name, seconds, nowMs) {
  if (!cpu.has(name)) cpu.set(name, new Counter());
  cpu.get(name).update(seconds, nowMs);
  const { rate } = cpu.get(name);
  return rate === null ? "–" : `${Math.round(rate * 100)} %`;
}

function paintProcesses(status) {
  const lines = status.shards.map((shard) => ["shard " + shard.shard, shard.state, cpuOf(`shard-${shard.shard}`, shard.cpu_s, status.now_ms),
    format.bytes(shard.rss_bytes), `${shard.loop_lag_ms.toFixed(1)} ms`, shard.connections, shard.reconnects, shard.malformed]);
  const { writer } = status;
  if (writer) lines.push(["writer", writer.state, cpuOf("writer", writer.cpu_s, status.now_ms), format.bytes(writer.rss_bytes), "", "", "", ""]);
  const body = byId("processes").tBodies[0];
  while (body.rows.length > lines.length) body.lastChild.remove();
  while (body.rows.length < lines.length) {
    body.append(make("tr", {}, make("th", { scope: "row" }), make("td"), ...Array.from({ length: 6 }, () => make("td", { class: "num" }))));
  }
  lines.forEach((line, index) => line.forEach((value, each) => setText(body.rows[index].cells[each], String(value))));
}

let heardMs = 0;

function onStatus(status) {
  heardMs = Date.now();
  engineAhead = status.now_ms - heardMs;
  if (instance && status.instance && instance !== status.instance) market.resume();
  instance = status.instance || instance;
  setText(byId("instance"), status.phase === "running" ? status.instance : `${status.instance} ${status.phase}`);
  paintLights(status.lights);
  paintTotals(status);
  paintLimiters(status.limiters);
  paintProcesses(status);
  const streams = status.streams.map((values) => Object.fromEntries(values.map((value, index) => [columns[index], value])));
  table.loaded = true;
  table.update(streams, status.now_ms);
  table.paintEmpty(table.shown.length);
}

// --- the link to the engine -----------------------------------------------------------------------

let feed = null;
let linkError = "";

function setLink(state, text) {
  setAttribute(byId("link"), "data-link", state);
  setText(byId("link").querySelector(".word"), text);
  document.body.classList.toggle("disconnected", state === "lost");
}

function connect() {
  feed = api.follow("/ui/events", (name, body) => {
    if (name === "hello") columns = body.stream_columns;
    else if (name === "status") onStatus(body);
  }, (state, reason) => {
    setLink(state, state === "live" ? "live" : "reconnecting");
    if (state === "lost" && reason !== linkError) report("error", `Connection: ${reason}`);
    if (state === "live" && linkError) report("ok", "Connection: live again");
    linkError = state === "live" ? "" : reason;
  });
}

// Six connections a browser has for one engine, and a page nobody sees needs none of them.
let hiddenTimer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) {
    hiddenTimer = setTimeout(() => { feed?.close(); feed = null; market.pause(); setLink("connecting", "paused"); }, HIDDEN_PAUSE_MS);
  } else {
    if (!feed) connect();
    market.resume();
  }
});

setInterval(() => {
  table.tick(engineNow());
  if (feed && heardMs && Date.now() - heardMs > QUIET_MS && byId("link").dataset.link === "live") setLink("quiet", "no news");
  else if (byId("link").dataset.link === "quiet" && Date.now() - heardMs < QUIET_MS) setLink("live", "live");
}, 500);

// --- theme ----------------------------------------------------------------------------------------

const THEMES = { auto: "automatic", light: "light", dark: "dark" };

function paintTheme() {
  const chosen = document.documentElement.dataset.theme ?? "auto";
  setText(byId("theme"), chosen.charAt(0).toUpperCase() + chosen.slice(1));
  setAttribute(byId("theme"), "aria-label", `Colour theme: ${THEMES[chosen]}`);
  forgetColours();
  table.redraw();
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try { localStorage.setItem("fts-theme", next); } catch { /* the choice lasts as long as the page */ }
  paintTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintTheme);

// --- keys -----------------------------------------------------------------------------------------

const filter = byId("filter");
filter.addEventListener("input", () => table.setFilter(filter.value));
filter.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { filter.value = ""; table.setFilter(""); event.preventDefault(); }
  else if (event.key === "ArrowDown" || event.key === "Enter") { table.focusRow(table.currentKey); event.preventDefault(); }
});

for (const button of [byId("add-open"), byId("streams-empty").querySelector("button")]) {
  button.addEventListener("click", () => addDialog.open(market.row ?? {}));
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, select, textarea") || document.querySelector("dialog[open]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { filter.focus(); filter.select(); event.preventDefault(); }
  else if (event.key.toLowerCase() === "n") { addDialog.open(market.row ?? {}); event.preventDefault(); }
});

paintTheme();
connect();
