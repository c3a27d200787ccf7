"""HTTP and WebSocket routes of the simulated Binance USD-M venue."""

import json
from asyncio import WriteTransport
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from aiohttp import WSMsgType, web

from engine.clock import wall_ns
from shards.simulator.binance import BinanceVenue, compact
from shards.simulator.http_faults import RestGate
from shards.simulator.instruments import Instrument, decimal_text
from shards.simulator.sessions import Hub, Session

__all__ = ["BinanceStreams", "add_binance_rest", "add_binance_streams"]

_DEPTH_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
_ONBOARD_MS = 1_569_398_400_000
_PERPETUAL_MS = 4_133_404_800_000
_PREFIX = "/binance_linear"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BinanceStreams(Protocol):
    """What the WebSocket routes need: a market, or a recorded session."""

    hub: Hub

    def subscribe(self, session: Session, names: list[str]) -> None:
        """Deliver these streams."""

    def unsubscribe(self, session: Session, names: list[str]) -> None:
        """Stop delivering these streams."""


def add_binance_streams(app: web.Application, streams: BinanceStreams, ping_s: float) -> None:
    """Serve both categories, each raw and combined, with names in the URL or by message."""

    def serve(group: str, *, combined: bool) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            listed = request.query.get("streams") or request.match_info.get("streams", "")
            names = [name for name in listed.split("/") if name]
            return await _serve_socket(
                request, streams, group, names, combined=combined, ping_s=ping_s
            )

        return handle

    for group in ("public", "market"):
        for path, combined in (("ws", False), ("stream", True)):
            handler = serve(group, combined=combined)
            app.router.add_get(f"{_PREFIX}/{group}/{path}", handler)
            app.router.add_get(f"{_PREFIX}/{group}/{path}/{{streams:.+}}", handler)


async def _serve_socket(
    request: web.Request,
    streams: BinanceStreams,
    group: str,
    names: list[str],
    *,
    combined: bool,
    ping_s: float,
) -> web.StreamResponse:
    socket = web.WebSocketResponse(heartbeat=ping_s, compress=False)
    await socket.prepare(request)
    transport = cast("WriteTransport", request.transport)
    session = Session(transport, group, combined=combined)
    streams.hub.sessions.add(session)
    try:
        streams.subscribe(session, names)
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                session.send_text(_answer(streams, session, message.data))
    finally:
        streams.hub.detach(session)
    return socket


def _answer(streams: BinanceStreams, session: Session, text: str | bytes) -> bytes:
    """Carry out one control message. An acknowledgement never proves that data will flow."""
    try:
        request = json.loads(text)
    except ValueError as error:
        return _refusal(3, f"Invalid JSON: {error}", None)
    if not isinstance(request, dict):
        return _refusal(2, "Invalid request: not an object", None)
    number = request.get("id")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        return _refusal(2, "Invalid request: request ID must be an unsigned integer", None)
    method, params = request.get("method"), request.get("params", [])
    if method == "LIST_SUBSCRIPTIONS":
        return compact({"result": list(session.names), "id": number})
    if method == "SET_PROPERTY":
        return _refusal(0, "Unknown property", number)
    if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
        return _refusal(2, f"Invalid request: unknown method {method!r}", number)
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        return _refusal(1, "Invalid value type: expected array of stream names", number)
    # No data can overtake the acknowledgement: nothing else runs until it is written.
    (streams.subscribe if method == "SUBSCRIBE" else streams.unsubscribe)(session, params)
    return compact({"result": None, "id": number})


def _refusal(code: int, message: str, number: object) -> bytes:
    error = {"code": code, "msg": message}
    return compact({"error": error, "id": number} if number is not None else error)


def add_binance_rest(app: web.Application, venue: BinanceVenue, gate: RestGate) -> None:
    """Serve the REST calls a market-data client makes."""
    rest = _Rest(venue, gate)
    for name, handler in (
        ("ping", rest.ping),
        ("time", rest.time),
        ("exchangeInfo", rest.exchange_info),
        ("depth", rest.depth),
        ("aggTrades", rest.agg_trades),
    ):
        app.router.add_get(f"{_PREFIX}/fapi/v1/{name}", _gated(gate, handler))


def _gated(gate: RestGate, handler: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        refusal = gate.refusal()
        return refusal if refusal is not None else await handler(request)

    return handle


class _Rest:
    def __init__(self, venue: BinanceVenue, gate: RestGate) -> None:
        self._venue = venue
        self._gate = gate

    def _json(self, body: bytes, weight: int, status: int = 200) -> web.Response:
        return web.Response(
            body=body,
            status=status,
            content_type="application/json",
            headers=self._gate.headers(weight),
        )

    def _bad(self, code: int, message: str) -> web.Response:
        return self._json(compact({"code": code, "msg": message}), 1, 400)

    async def ping(self, _: web.Request) -> web.Response:
        return self._json(b"{}", 1)

    async def time(self, _: web.Request) -> web.Response:
        return self._json(compact({"serverTime": wall_ns() // 1_000_000}), 1)

    async def exchange_info(self, _: web.Request) -> web.Response:
        symbols = [_symbol(instrument) for instrument in self._venue.instruments]
        limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE"}
        body = {
            "timezone": "UTC",
            "serverTime": wall_ns() // 1_000_000,
            "futuresType": "U_MARGINED",
            "rateLimits": [{**limit, "intervalNum": 1, "limit": 2400}],
            "exchangeFilters": [],
            "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
            "symbols": symbols,
        }
        return self._json(compact(body), 1)

    async def depth(self, request: web.Request) -> web.Response:
        listing = self._venue.listing(request.query.get("symbol", ""))
        if listing is None:
            return self._bad(-1121, "Invalid symbol.")
        limit = _integer(request, "limit", 500)
        if limit not in _DEPTH_WEIGHTS:
            return self._bad(-1130, "Data sent for parameter 'limit' is not valid.")
        now_ms = wall_ns() // 1_000_000
        body = self._venue.depth(listing, limit, now_ms, stale=self._gate.take_stale())
        return self._json(body, _DEPTH_WEIGHTS[limit])

    async def agg_trades(self, request: web.Request) -> web.Response:
        listing = self._venue.listing(request.query.get("symbol", ""))
        if listing is None:
            return self._bad(-1121, "Invalid symbol.")
        limit = _integer(request, "limit", 500)
        from_id = _integer(request, "fromId", None)
        if limit is None or not 1 <= limit <= 1000 or from_id == -1:
            return self._bad(-1130, "Data sent for a parameter is not valid.")
        rows = listing.recent_trades(from_id, limit)
        return self._json(compact(cast("list[object]", rows)), 20)


def _integer(request: web.Request, name: str, default: int | None) -> int | None:
    """Read a whole number; -1, never legal here, when it is not one."""
    text = request.query.get(name)
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() else -1


def _symbol(instrument: Instrument) -> dict[str, Any]:
    symbol = instrument.symbol
    base = symbol.removesuffix("USDT")
    decimals, tick = instrument.price_decimals, instrument.tick
    lot = {"stepSize": instrument.step_text, "maxQty": "10000000", "minQty": instrument.step_text}
    return {
        "symbol": symbol,
        "pair": symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _PERPETUAL_MS,
        "onboardDate": _ONBOARD_MS,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "pricePrecision": decimals,
        "quantityPrecision": instrument.qty_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012000",
        "marketTakeBound": "0.05",
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": instrument.tick_text,
                "maxPrice": decimal_text(4 * instrument.high_ticks * tick, decimals),
                "tickSize": instrument.tick_text,
            },
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "MARKET_LOT_SIZE", **lot},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": "1.0500",
                "multiplierDown": "0.9500",
                "multiplierDecimal": "4",
            },
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }
