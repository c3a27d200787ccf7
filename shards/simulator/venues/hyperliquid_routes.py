"""HTTP and WebSocket routes of the simulated Hyperliquid venue."""

import json
from asyncio import WriteTransport, get_running_loop
from collections.abc import Callable
from typing import Any, cast

from aiohttp import WSMsgType, web

from engine.base.clock import wall_ns
from shards.simulator.core.frames import compact
from shards.simulator.core.rest_gate import RestGate
from shards.simulator.core.sessions import Session
from shards.simulator.venues.hyperliquid import Coin, HyperliquidVenue

__all__ = ["add_hyperliquid"]

_PREFIX = "/hyperliquid_perp"
_DROP_DELAY_S = 0.1
_RECENT_TRADES = 10
_WEIGHT = 20
_LIGHT_WEIGHTS = {"l2Book": 2}
_ROWS_PER_WEIGHT = {"recentTrades": 20, "fundingHistory": 20}
"""Answers that cost one more for so many rows."""
_CONNECTS_PER_MINUTE = 30

_COIN_TYPES = frozenset({"trades", "l2Book", "bbo", "activeAssetCtx"})
_SIGNIFICANT_FIGURES = frozenset({None, 2, 3, 4, 5})
_MANTISSA_FIGURES = 5


def add_hyperliquid(app: web.Application, venue: HyperliquidVenue, gate: RestGate) -> None:
    """Serve the socket and `/info`. This venue sends no ping frames; clients ping it in JSON."""
    info = _Info(venue, gate)

    async def serve(request: web.Request) -> web.StreamResponse:
        over = venue.hub.connects.add() > _CONNECTS_PER_MINUTE
        if over and gate.enforced:
            return web.Response(status=429, text="Too many connections")
        return await _serve_socket(request, venue, info)

    app.router.add_get(f"{_PREFIX}/ws", serve)
    app.router.add_post(f"{_PREFIX}/info", info.handle)


async def _serve_socket(
    request: web.Request, venue: HyperliquidVenue, info: "_Info"
) -> web.StreamResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    session = Session(cast("WriteTransport", request.transport), "ws", combined=False)
    venue.hub.sessions.add(session)
    control = _Control(venue, info, session)
    try:
        async for message in socket:
            venue.hub.count_message(session)
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                control.handle(message.data)
    finally:
        venue.hub.detach(session)
    return socket


class _Control:
    """Control messages of one socket."""

    def __init__(self, venue: HyperliquidVenue, info: "_Info", session: Session) -> None:
        self._venue = venue
        self._info = info
        self._session = session
        self._actions: dict[str, Callable[[dict[str, Any]], None]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    def _send(self, channel: str, content: object) -> None:
        self._session.send_text(compact({"channel": channel, "data": content}))

    def handle(self, text: str | bytes) -> None:
        """Answer one message; nonsense gets an error and the socket stays open."""
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            self._malformed(text)
            return
        method, subscription = request.get("method"), request.get("subscription")
        if method == "ping":
            self._session.send_text(b'{"channel":"pong"}')
        elif method == "post":
            self._post(request)
        elif method in self._actions and isinstance(subscription, dict):
            self._actions[method](subscription)
        else:
            self._malformed(text)

    def _malformed(self, text: str | bytes) -> None:
        shown = text if isinstance(text, str) else text.decode(errors="replace")
        self._send("error", f"Error parsing JSON into valid websocket request: {shown[:500]}")

    def _post(self, request: dict[str, Any]) -> None:
        inner = request.get("request")
        payload = inner.get("payload") if isinstance(inner, dict) else None
        if not isinstance(payload, dict):
            self._malformed(json.dumps(request))
            return
        kind, body = payload.get("type"), self._info.answer(payload)
        found = None if body is None else json.loads(body)
        response = {"type": "info", "payload": {"type": kind, "data": found}}
        self._send("post", {"id": request.get("id"), "response": response})

    def _coin(self, subscription: dict[str, Any]) -> Coin | None:
        """Find the coin of a subscription that the venue can serve at all."""
        if subscription.get("type") not in _COIN_TYPES:
            return None
        figures, mantissa = subscription.get("nSigFigs"), subscription.get("mantissa")
        if figures not in _SIGNIFICANT_FIGURES or (mantissa and figures != _MANTISSA_FIGURES):
            return None
        return self._venue.coin(str(subscription.get("coin")))

    def _subscribe(self, subscription: dict[str, Any]) -> None:
        coin = self._coin(subscription)
        if coin is None:
            # No error: the venue just drops the connection with everything on it.
            get_running_loop().call_later(_DROP_DELAY_S, self._session.transport.abort)
            return
        name = _topic_name(subscription)
        if name in self._session.names:
            self._send("error", f"Already subscribed: {_printed(subscription)}")
            return
        self._session.names[name] = None
        self._acknowledge("subscribe", subscription)
        if subscription["type"] == "activeAssetCtx":
            self._venue.contexts.board.at(coin.index, wall_ns() // 1_000_000)
        elif subscription["type"] == "trades":
            self._venue.send_history(self._session, coin, wall_ns() // 1_000_000)
        self._venue.hub.subscribe(self._session, name)

    def _unsubscribe(self, subscription: dict[str, Any]) -> None:
        name = _topic_name(subscription)
        if name not in self._session.names:
            self._send("error", f"Already unsubscribed: {_printed(subscription)}")
            return
        del self._session.names[name]
        self._venue.hub.unsubscribe(self._session, name)
        self._acknowledge("unsubscribe", subscription)

    def _acknowledge(self, method: str, subscription: dict[str, Any]) -> None:
        echoed = subscription
        if subscription.get("type") == "l2Book":
            echoed = {"nSigFigs": None, "mantissa": None, "fast": False, **subscription}
        self._send("subscriptionResponse", {"method": method, "subscription": echoed})


def _topic_name(subscription: dict[str, Any]) -> str:
    """Name the topic; aggregated books get a name nothing is ever pushed to."""
    kind, coin = subscription.get("type"), subscription.get("coin")
    if kind != "l2Book":
        return f"{kind}:{coin}"
    if subscription.get("nSigFigs") is not None:
        return f"l2Book:{coin}:{subscription['nSigFigs']}:{subscription.get('mantissa')}"
    return f"l2Book:{coin}:{'fast' if subscription.get('fast') else 'slow'}"


def _printed(subscription: dict[str, Any]) -> str:
    return json.dumps(subscription, separators=(",", ":"))


class _Info:
    """`POST /info`, also reachable over the socket."""

    def __init__(self, venue: HyperliquidVenue, gate: RestGate) -> None:
        self._venue = venue
        self._gate = gate
        self._answers: dict[str, Callable[[dict[str, Any]], bytes | None]] = {
            "meta": lambda _: compact(self._meta()),
            "metaAndAssetCtxs": lambda _: compact(self._meta_and_contexts()),
            "l2Book": self._book,
            "recentTrades": self._recent_trades,
            "fundingHistory": self._funding_history,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            query = json.loads(await request.read())
        except ValueError:
            query = None
        kind = str(query.get("type")) if isinstance(query, dict) else ""
        refusal = self._gate.admit(_LIGHT_WEIGHTS.get(kind, _WEIGHT))
        if refusal is not None:
            return refusal
        body = self.answer(query) if isinstance(query, dict) else None
        if body is None:
            text = "Failed to deserialize the JSON body into the target type"
            return web.Response(status=422, text=text)
        if kind in _ROWS_PER_WEIGHT:
            self._gate.weight.add(body.count(b'"coin"') // _ROWS_PER_WEIGHT[kind])
        return web.Response(body=body, content_type="application/json")

    def answer(self, query: dict[str, Any]) -> bytes | None:
        """Answer a query; None for a type the simulator does not have."""
        answer: Callable[[dict[str, Any]], bytes | None] | None
        answer = self._answers.get(str(query.get("type")))
        return None if answer is None else answer(query)

    def _meta(self) -> dict[str, object]:
        universe = []
        for instrument, delisted in zip(self._venue.instruments, self._venue.delisted, strict=True):
            entry: dict[str, object] = {
                "szDecimals": instrument.qty_decimals,
                "name": instrument.symbol,
                "maxLeverage": 20,
                "marginTableId": 20,
            }
            universe.append(entry | {"isDelisted": True} if delisted else entry)
        return {"universe": universe, "marginTables": [], "collateralToken": 0}

    def _meta_and_contexts(self) -> list[object]:
        count, now_ms = len(self._venue.instruments), wall_ns() // 1_000_000
        return [self._meta(), self._venue.contexts.contexts(count, now_ms)]

    def _funding_history(self, query: dict[str, Any]) -> bytes | None:
        index = self._venue.coin_number(str(query.get("coin")))
        start_ms, end_ms = query.get("startTime"), query.get("endTime")
        if not isinstance(start_ms, int) or not isinstance(end_ms, int | None):
            return None
        if index is None:
            return b"null"
        contexts = self._venue.contexts
        contract = contexts.board.at(index, wall_ns() // 1_000_000)
        rows = contexts.funding_history(contract, start_ms, end_ms)
        return compact(cast("list[object]", rows))

    def _book(self, query: dict[str, Any]) -> bytes:
        coin = self._venue.coin(str(query.get("coin")))
        return b"null" if coin is None else self._venue.book(coin, wall_ns() // 1_000_000)

    def _recent_trades(self, query: dict[str, Any]) -> bytes:
        coin = self._venue.coin(str(query.get("coin")))
        if coin is None:
            return b"null"
        newest = [row for _, row in reversed(coin.history)][:_RECENT_TRADES]
        return b"[" + b",".join(newest) + b"]"
