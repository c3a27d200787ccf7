"""REST of the simulated Binance USD-M venue: metadata, snapshots, history, polled values."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from engine.base.clock import wall_ns
from shards.simulator.core.contracts import Contract
from shards.simulator.core.frames import compact
from shards.simulator.core.instruments import Grid, decimal_text
from shards.simulator.core.rest_gate import RestGate
from shards.simulator.venues.binance import BinanceVenue

__all__ = ["add_binance_rest"]

_DEPTH_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
_ONBOARD_MS = 1_569_398_400_000
_PERPETUAL_MS = 4_133_404_800_000
_PREFIX = "/binance_linear"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Weigh = Callable[[web.Request], int] | None
"""None: without weight, but of the pool that funding calls share."""


def add_binance_rest(app: web.Application, venue: BinanceVenue, gate: RestGate) -> None:
    """Serve the REST calls a market-data client makes, each with its weight."""
    rest = _Rest(venue, gate)
    calls: tuple[tuple[str, Handler, Weigh], ...] = (
        ("ping", rest.ping, _fixed(1)),
        ("time", rest.time, _fixed(1)),
        ("exchangeInfo", rest.exchange_info, _fixed(1)),
        ("depth", rest.depth, _depth_weight),
        ("aggTrades", rest.agg_trades, _fixed(20)),
        ("premiumIndex", rest.premium_index, _by_symbol(1, 10)),
        ("openInterest", rest.open_interest, _fixed(1)),
        ("fundingRate", rest.funding_rate, None),
        ("fundingInfo", rest.funding_info, None),
        ("ticker/bookTicker", rest.book_ticker, _by_symbol(2, 5)),
    )
    for name, handler, weigh in calls:
        app.router.add_get(f"{_PREFIX}/fapi/v1/{name}", _gated(gate, handler, weigh))


def _fixed(weight: int) -> Weigh:
    return lambda _: weight


def _by_symbol(one: int, every: int) -> Weigh:
    return lambda request: one if "symbol" in request.query else every


def _depth_weight(request: web.Request) -> int:
    return _DEPTH_WEIGHTS.get(_integer(request, "limit", 500) or 0, 1)


def _gated(gate: RestGate, handler: Handler, weigh: Weigh) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        refusal = gate.admit(weigh(request)) if weigh else gate.admit_funding()
        return refusal if refusal is not None else await handler(request)

    return handle


class _Rest:
    def __init__(self, venue: BinanceVenue, gate: RestGate) -> None:
        self._venue = venue
        self._gate = gate

    def _json(self, body: bytes, status: int = 200) -> web.Response:
        return web.Response(
            body=body,
            status=status,
            content_type="application/json",
            headers=self._gate.headers(),
        )

    def _bad(self, code: int, message: str) -> web.Response:
        return self._json(compact({"code": code, "msg": message}), 400)

    async def ping(self, _: web.Request) -> web.Response:
        return self._json(b"{}")

    async def time(self, _: web.Request) -> web.Response:
        return self._json(compact({"serverTime": _now_ms()}))

    async def exchange_info(self, _: web.Request) -> web.Response:
        venue = self._venue
        symbols = [
            _symbol(instrument, status)
            for instrument, status in zip(venue.instruments, venue.statuses, strict=True)
        ]
        limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE"}
        body = {
            "timezone": "UTC",
            "serverTime": _now_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": [{**limit, "intervalNum": 1, "limit": self._gate.weight_limit}],
            "exchangeFilters": [],
            "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
            "symbols": symbols,
        }
        return self._json(compact(body))

    async def depth(self, request: web.Request) -> web.Response:
        listing = self._venue.listing(request.query.get("symbol", ""))
        if listing is None:
            return self._bad(-1121, "Invalid symbol.")
        limit = _integer(request, "limit", 500)
        if limit not in _DEPTH_WEIGHTS:
            return self._bad(-1130, "Data sent for parameter 'limit' is not valid.")
        stale = self._gate.take_stale()
        return self._json(self._venue.books.depth(listing, limit, _now_ms(), stale=stale))

    async def agg_trades(self, request: web.Request) -> web.Response:
        listing = self._venue.listing(request.query.get("symbol", ""))
        if listing is None:
            return self._bad(-1121, "Invalid symbol.")
        limit = _integer(request, "limit", 500)
        from_id = _integer(request, "fromId", None)
        if limit is None or not 1 <= limit <= 1000 or from_id == -1:
            return self._bad(-1130, "Data sent for a parameter is not valid.")
        rows = listing.recent_trades(from_id, limit)
        return self._json(compact(cast("list[object]", rows)))

    def _contract(self, request: web.Request) -> Contract | None:
        return self._venue.contract(request.query.get("symbol", ""), _now_ms())

    async def premium_index(self, request: web.Request) -> web.Response:
        contracts, now_ms = self._venue.contracts, _now_ms()
        if "symbol" not in request.query:
            every = [
                contracts.premium_index(contracts.board.at(index, now_ms))
                for index in range(len(self._venue.instruments))
                if not self._venue.halted(index)
            ]
            return self._json(compact(cast("list[object]", every)))
        contract = self._contract(request)
        if contract is None:
            return self._bad(-1121, "Invalid symbol.")
        return self._json(compact(contracts.premium_index(contract)))

    async def open_interest(self, request: web.Request) -> web.Response:
        contract = self._contract(request)
        if contract is None:
            return self._bad(-1121, "Invalid symbol.")
        return self._json(compact(self._venue.contracts.open_interest(contract)))

    async def funding_rate(self, request: web.Request) -> web.Response:
        contract = self._contract(request)
        if contract is None:
            return self._bad(-1121, "Invalid symbol.")
        limit = _integer(request, "limit", 100)
        span = _integer(request, "startTime", None), _integer(request, "endTime", None)
        if limit is None or not 1 <= limit <= 1000 or -1 in span:
            return self._bad(-1130, "Data sent for a parameter is not valid.")
        rows = self._venue.contracts.funding_history(contract, *span, limit)
        return self._json(compact(cast("list[object]", rows)))

    async def funding_info(self, _: web.Request) -> web.Response:
        rows = self._venue.contracts.funding_info(self._venue.instruments)
        return self._json(compact(cast("list[object]", rows)))

    async def book_ticker(self, request: web.Request) -> web.Response:
        venue, now_ms = self._venue, _now_ms()
        if "symbol" not in request.query:
            listings = [
                venue.listing_at(index)
                for index in range(len(venue.instruments))
                if not venue.halted(index)
            ]
            every = [venue.books.touch(listing, now_ms) for listing in listings]
            return self._json(compact(cast("list[object]", every)))
        listing = venue.listing(request.query["symbol"])
        if listing is None:
            return self._bad(-1121, "Invalid symbol.")
        return self._json(compact(venue.books.touch(listing, now_ms)))


def _now_ms() -> int:
    return wall_ns() // 1_000_000


def _integer(request: web.Request, name: str, default: int | None) -> int | None:
    """Read a whole number; -1, never legal here, when it is not one."""
    text = request.query.get(name)
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() else -1


def _symbol(instrument: Grid, status: str) -> dict[str, Any]:
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
        "status": status,
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
