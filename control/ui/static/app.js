// The page: one feed of the engine's status, and everything that is painted from it.

import { AddDialog } from "./add_dialog.js";
import * as address from "./address.js";
import { Alerts } from "./alerts.js";
import * as api from "./api.js";
import { BulkDialog } from "./bulk_dialog.js";
import { forgetColours } from "./canvas.js";
import { byId, onClose, setAttribute, setText } from "./dom.js";
import { Gaps } from "./gaps.js";
import { History } from "./history.js";
import { InstrumentsView } from "./instruments_view.js";
import { KnobsDialog } from "./knobs_dialog.js";
import { report } from "./log.js";
import { SWITCHES as MANY, switchMany } from "./many.js";
import { Market } from "./market.js";
import { paintStorage } from "./storage.js";
import { StopDialog } from "./stop_dialog.js";
import { keyOf, nameOf } from "./stream_row.js";
import { StreamTable } from "./streams.js";
import { followDay } from "./times.js";
import { TokenDialog } from "./token_dialog.js";
import { VenuesView } from "./venues_view.js";
import { Views } from "./views.js";
import { paintLimiters, paintProcesses, paintTotals } from "./vitals.js";

const HIDDEN_PAUSE_MS = 30_000;
const QUIET_MS = 4000;
const SWITCHES = { db: ["db_writes_enabled", "database"], redis: ["redis_publishes_enabled", "Redis"] };

// --- the parts ------------------------------------------------------------------------------------

const tokenDialog = new TokenDialog();
api.token.onNeeded((wasWrong) => tokenDialog.prompt(wasWrong));

let mayCommand = true;
const alerts = new Alerts();
const market = new Market(() => mayCommand);
const gaps = new Gaps();
const past = new History({
  chosen: (span) => address.write({ span }),
  changed: (lengthMs) => { gaps.spanMs = lengthMs; table.redraw(); paintGaps(); },
});
const addDialog = new AddDialog();
const bulkDialog = new BulkDialog((stream) => table.rows.has(keyOf(stream)));
const backToRow = (stream) => table.focusRow(stream ? keyOf(stream) : table.currentKey);
const knobsDialog = new KnobsDialog(backToRow);
const stopDialog = new StopDialog((streams) => backToRow(streams.length === 1 ? streams[0] : null));

const table = new StreamTable({
  select: (row) => { wanted = ""; market.show(row); paintGaps(); address.write({ stream: row.key }); },
  arranged: (changes) => address.write(changes),
  stop: (rows) => { if (mayCommand) stopDialog.open(rows); },
  switchMany: (rows, name) => { if (MANY[name].asks) stopDialog.open(rows, name); else switchMany(rows, name); },
  tune: (row) => { if (mayCommand) knobsDialog.open(row); },
  setKnob: async (row, name, value) => {
    const [knob, title] = SWITCHES[name];
    try {
      await api.patchKnobs(row, { [knob]: value });
      report("ok", `${nameOf(row)}: ${title} ${value ? "on" : "off"}`);
    } catch (error) {
      delete row.pending?.[name];
      report("error", `${nameOf(row)}: ${error.message}`);
    }
  },
}, gaps);

const instruments = new InstrumentsView({
  collected: (venue) => table.kindsBySymbol(venue),
  add: (seed) => { if (mayCommand) addDialog.open(seed); },
});
const venues = new VenuesView();
const views = new Views({
  opened: (view) => {
    if (view === "instruments") instruments.open(market.row ?? {});
    else if (view === "venues") venues.open();
  },
  chosen: (view) => address.write({ view }),
});

// --- what the address says ------------------------------------------------------------------------

let wanted = ""; // the stream that the address names and that has not been seen yet

function showAddress({ q = "", state = "", sort = "", stream = "", span = "", view = "" }) {
  views.show(view);
  filter.value = q;
  table.setFilter(q);
  table.sort = sort;
  table.setState(state);
  past.span = span;
  wanted = stream;
  if (!stream) { table.markSelected(""); market.hide(); }
  else if (table.loaded) showWanted(true);
}

// Once there is a status; it may begin later, too.
function showWanted(isFirst) {
  const row = table.rows.get(wanted);
  if (row) {
    wanted = "";
    table.markSelected(row.key);
    market.show(row);
    paintGaps();
  } else if (isFirst) {
    table.markSelected("");
    market.hide();
    report("error", `The address names a stream that is not collected here: ${wanted}`);
  }
}

// --- painting a status ----------------------------------------------------------------------------

let columns = [];
let engineAhead = 0; // the engine's clock minus ours: ages are reckoned by the engine's
let instance = "";
let heardMs = 0;

const engineNow = () => Date.now() + engineAhead;

// A token that only reads cannot press what commands: those controls are not there then.
function onHello(hello) {
  columns = hello.stream_columns;
  mayCommand = hello.may_command;
  table.isReadOnly = !mayCommand;
  document.body.classList.toggle("read-only", !mayCommand);
  byId("read-only").hidden = mayCommand;
  knobsDialog.learn(hello.knob_ranges);
}

function onStatus(status) {
  heardMs = Date.now();
  engineAhead = status.now_ms - heardMs;
  if (instance && status.instance && instance !== status.instance) { market.resume(); past.restart(); }
  instance = status.instance || instance;
  setText(byId("instance"), status.phase === "running" ? status.instance : `${status.instance} ${status.phase}`);
  alerts.update({ engine: status.verdict, ...status.lights }, status.said);
  paintTotals(status);
  paintLimiters(status.limiters);
  paintProcesses(status);
  paintStorage(status.storage);
  const streams = status.streams.map((values) => Object.fromEntries(values.map((value, index) => [columns[index], value])));
  const isFirst = !table.loaded;
  table.loaded = true;
  table.update(streams, status.now_ms);
  if (wanted) showWanted(isFirst);
  table.paintEmpty(table.shown.length);
  market.update(table.rows);
  paintGaps();
  bulkDialog.recount();
  if (views.shown === "instruments") instruments.recount(table.rows.size);
}

function paintGaps() {
  if (market.row) gaps.paintPanel(market.row, engineNow());
}

// --- the link to the engine -----------------------------------------------------------------------

let feed = null;
let linkError = "";

function setLink(state, text) {
  setAttribute(byId("link"), "data-link", state);
  setText(byId("link").querySelector(".word"), text);
  document.body.classList.toggle("disconnected", state === "lost");
}

function onLink(state, reason) {
  setLink(state, state === "live" ? "live" : "offline");
  if (state === "lost") alerts.lost(reason); else alerts.found();
  if (state === "lost" && reason !== linkError) report("error", `Connection: ${reason}`);
  if (state === "live" && linkError) report("ok", "Connection: live again");
  linkError = state === "live" ? "" : reason;
}

function connect() {
  feed = api.follow("ui/events", (name, body) => {
    if (name === "hello") { gaps.clear(); onHello(body); }
    else if (name === "gaps") gaps.take(body);
    else if (name === "status") onStatus(body);
  }, onLink);
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
  const { link } = byId("link").dataset;
  followDay();
  table.tick(engineNow());
  market.figures.tick(engineNow());
  if (link === "live" && !document.hidden) past.tick(Date.now());
  const isQuiet = heardMs > 0 && Date.now() - heardMs > QUIET_MS;
  if (feed && isQuiet && link === "live") setLink("quiet", "no news");
  else if (link === "quiet" && !isQuiet) setLink("live", "live");
}, 500);

// --- theme ----------------------------------------------------------------------------------------

const THEMES = { auto: "automatic", light: "light", dark: "dark" };

function paintTheme() {
  const chosen = document.documentElement.dataset.theme ?? "auto";
  setText(byId("theme"), `Theme: ${chosen}`);
  setAttribute(byId("theme"), "aria-label", `Colour theme: ${THEMES[chosen]}`);
  forgetColours();
  table.redraw();
  past.paint();
  market.redraw();
  paintGaps();
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

// --- buttons and keys -----------------------------------------------------------------------------

const filter = byId("filter");
let isTyping = false; // a step back takes back all that was typed at once, and no more

function onFilter() {
  table.setFilter(filter.value);
  address.write({ q: filter.value.trim() }, !isTyping);
  isTyping = true;
}
filter.addEventListener("input", onFilter);
filter.addEventListener("blur", () => { isTyping = false; });
filter.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { filter.value = ""; onFilter(); event.preventDefault(); }
  else if (event.key === "ArrowDown" || event.key === "Enter") { table.focusRow(table.currentKey); event.preventDefault(); }
});

const keysDialog = byId("keys-dialog");
onClose(keysDialog);
const actions = {
  add: () => { if (mayCommand) addDialog.open(market.row ?? {}); },
  many: () => { if (mayCommand) bulkDialog.open(market.row ?? {}); },
  keys: () => keysDialog.showModal(),
  filter: () => {
    const field = views.shown === "instruments" ? byId("listed-text") : filter;
    field.focus();
    field.select();
  },
};
for (const button of document.querySelectorAll("[data-opens]")) {
  button.addEventListener("click", () => actions[button.dataset.opens]());
}

const KEYS = { "/": "filter", n: "add", m: "many", "?": "keys" };
// Who dictates, or whose keyboard misses, can switch single keys off.
const keysOn = byId("keys-on");
try { keysOn.checked = localStorage.getItem("fts-keys") !== "off"; } catch { /* on, then */ }
keysOn.addEventListener("change", () => {
  try { localStorage.setItem("fts-keys", keysOn.checked ? "on" : "off"); } catch { /* as long as the page */ }
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input:not([type=checkbox]), select, textarea") || document.querySelector("dialog[open]");
  const action = KEYS[event.key.toLowerCase()];
  if (isTyping || !action || !keysOn.checked || event.ctrlKey || event.metaKey || event.altKey) return;
  actions[action]();
  event.preventDefault();
});

paintTheme();
showAddress(address.read());
address.onMove(showAddress);
connect();
