// The public REST API and the two event feeds, with the token on every request.
// fetch instead of EventSource, because an EventSource cannot send a header.

// This file is <root>/ui/api.js, wherever a proxy has put the root.
const ROOT = new URL("../", import.meta.url);
const TOKEN = "fts-token";
let askForToken = async () => false;
let asking = null;

export class ApiError extends Error {
  constructor(status, kind, message, body = {}) {
    super(message);
    this.status = status;
    this.kind = kind;
    this.field = typeof body?.field === "string" ? body.field : "";
    this.near = Array.isArray(body?.near) ? body.near.map(String) : [];
    this.offered = Array.isArray(body?.offered) ? body.offered.map(String) : [];
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
  // `prompt(wasWrong)` resolves when there is a new token; all requests wait for one prompt.
  onNeeded: (prompt) => { askForToken = prompt; },
};

function headersOf(body) {
  const headers = { accept: "application/json, text/event-stream" };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  return headers;
}

async function authorized(path, options) {
  for (;;) {
    const used = token.get();
    const response = await fetch(new URL(path, ROOT), { ...options, headers: headersOf(options.body), cache: "no-store" });
    if (response.status !== 401) return response;
    if (token.get() !== used) continue; // another request has asked in the meantime
    asking ??= askForToken(used !== "").finally(() => { asking = null; });
    await asking;
  }
}

// What stands between us and the engine answers for it, in numbers.
const OF_OTHERS = {
  403: "a proxy in between does not let this through",
  404: "there is no engine at this address (or one of another version)",
  413: "this is too large for a proxy in between",
  429: "a proxy in between says that this is too often",
  502: "a proxy in between does not reach the engine",
  503: "a proxy in between says that the engine is not there now",
  504: "a proxy in between has waited in vain for the engine",
};

async function errorOf(response) {
  let body = null;
  try { body = await response.json(); } catch { /* not ours: a proxy's page, or cut off */ }
  const message = body?.error ?? `${OF_OTHERS[response.status] ?? "the answer is not the engine's"} (${response.status})`;
  return new ApiError(response.status, body?.kind ?? "", String(message), body);
}

async function call(method, path, body) {
  let response;
  try {
    response = await authorized(path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "unreachable", "the engine does not answer");
  }
  if (!response.ok) throw await errorOf(response);
  try { return await response.json(); } catch { return null; }
}

export const streamPath = (stream) =>
  "streams/" + [stream.venue, stream.symbol, stream.kind, stream.transport].map(encodeURIComponent).join("/");

const streamBody = (stream) => ({
  exchange: stream.venue, symbol: stream.symbol, kind: stream.kind, transport: stream.transport,
});

export const addStream = (stream) => call("POST", "streams", streamBody(stream));
export const addByFilter = (wanted) => call("POST", "streams", wanted);
export const stopStream = (stream) => call("DELETE", "streams", streamBody(stream));
export const stopStreams = (streams) => call("DELETE", "streams", streams.map(streamBody));
export const patchKnobs = (stream, knobs) => call("PATCH", `${streamPath(stream)}/knobs`, knobs);
export const takeSnapshot = (book) => call("POST", `${streamPath(book)}/snapshot`);
export const capabilities = () => call("GET", "streams/capabilities");

export const history = (span, afterMs) => call("GET", `history?${new URLSearchParams({ span, after_ms: afterMs })}`);

export const refreshInstruments = (exchange) => call("POST", `instruments/refresh?${new URLSearchParams({ exchange })}`);

export const prices = ({ venue, symbol }) => call("GET", `ui/prices?${new URLSearchParams({ exchange: venue, symbol })}`);

// Conditions that are empty are none.
export function instruments(conditions) {
  const given = Object.entries(conditions).filter(([, value]) => value !== "" && value !== null);
  return call("GET", `instruments?${new URLSearchParams(given)}`);
}

// --- server-sent events -----------------------------------------------------------------------

const SILENCE_MS = 15_000; // the engine says something at least every 10 s
const BACKOFF_MS = [250, 500, 1000, 2000, 5000];

function parseEvent(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? { name, body: JSON.parse(data.join("\n")) } : null;
}

async function readEvents(response, signal, alive, onEvent) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  signal.addEventListener("abort", () => { reader.cancel().catch(() => {}); }, { once: true });
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done || signal.aborted) return;
    alive();
    pending += value;
    const blocks = pending.split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event) onEvent(event.name, event.body);
    }
  }
}

// Follows a feed until `close()`; reconnects by itself. `onLink(state, reason)` hears how it goes.
export function follow(path, onEvent, onLink = () => {}) {
  const stopped = new AbortController();
  let failures = 0;

  async function once() {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    stopped.signal.addEventListener("abort", abort, { once: true });
    let watchdog = setTimeout(abort, SILENCE_MS);
    const alive = () => { clearTimeout(watchdog); watchdog = setTimeout(abort, SILENCE_MS); failures = 0; };
    try {
      const response = await authorized(path, { method: "GET", signal: attempt.signal });
      if (!response.ok) throw await errorOf(response);
      onLink("live", "");
      await readEvents(response, attempt.signal, alive, onEvent);
      throw new ApiError(0, "ended", "the connection ended");
    } finally {
      clearTimeout(watchdog);
      stopped.signal.removeEventListener("abort", abort);
      attempt.abort();
    }
  }

  (async () => {
    while (!stopped.signal.aborted) {
      try {
        await once();
      } catch (error) {
        if (stopped.signal.aborted) return;
        onLink("lost", error instanceof ApiError ? error.message : "the engine does not answer", error);
      }
      const wait = BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)];
      failures += 1;
      await new Promise((resolve) => setTimeout(resolve, wait * (0.8 + 0.4 * Math.random())));
    }
  })();
  return { close: () => stopped.abort() };
}
