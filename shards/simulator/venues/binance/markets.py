"""Binance COIN-M futures and Binance spot as the simulator serves them: what differs from USD-M.

COIN-M counts contracts, knows the pair of a symbol beside it, and answers with lists. Spot has one
category of sockets, writes all numbers with eight decimals, chains its depth events by ids without
a hole, and says no time of quotes and snapshots.
"""

from collections.abc import Mapping, Sequence

from shards.simulator.core.contracts import Contract, Liquidation
from shards.simulator.core.encoder import (
    Answer,
    AskedFor,
    BookMessage,
    Query,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import decimal_text
from shards.simulator.core.limits import WEIGHT, VenueLimit, Window, now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.venue import SimVenue
from shards.simulator.venues.binance import rest
from shards.simulator.venues.binance.linear import (
    FUTURES_WEIGHT,
    Binance,
    TradeStyle,
    socket_limits,
)
from shards.simulator.venues.listed import inverse_instruments, spot_instruments

__all__ = ["BinanceInverse", "BinanceSpot"]

_PLACES = 8
"""Decimals of the numbers of spot."""
_PLAIN_PATHS = [(path, names) for path in ("ws", "stream") for names in ("", "/{streams:.+}")]
"""Of sockets without a category. COIN-M has them as well: nobody knows for how long."""
_SPOT_DEPTH_MAX = 5000
_SPOT_DEPTH_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (_SPOT_DEPTH_MAX, 250))
"""By the most levels that weigh so much."""
_SPOT_STREAMS = {"aggTrade": "trade", "bookTicker": "quote", "depth": "book", "depth@100ms": "book"}


class BinanceInverse(Binance):
    """COIN-M futures."""

    name = "binance_inverse"
    trade_style = TradeStyle(has_plain_sizes=False, served_end="", pushed_end=',"st":2')
    end = ',"st":2'
    limits: Sequence[VenueLimit] = (*socket_limits(10), FUTURES_WEIGHT)
    a_stream = "btcusd_perp@aggTrade"
    sockets: Sequence[SocketPath] = (
        *Binance.sockets,
        *(SocketPath(f"{path}{names}", "any", path == "stream") for path, names in _PLAIN_PATHS),
    )

    def __init__(self) -> None:
        super().__init__()
        self.rest: Mapping[str, ServedCall] = _INVERSE_REST

    def grids(self, count: int) -> Sequence[Grid]:
        return inverse_instruments(count)

    def wants(self, name: str, group: str) -> AskedFor | None:
        groups = ("public", "market") if group == "any" else (group,)
        found = (Binance.wants(self, name, each) for each in groups)
        return next(filter(None, found), None)

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        mark, index, settle = (
            decimal_text(price, contract.mark_decimals)
            for price in (contract.mark, contract.index_price, contract.settle)
        )
        return (
            f'{{"e":"markPriceUpdate","E":{contract.ts_ms},"s":"{contract.instrument.symbol}",'
            f'"p":"{mark}","P":"{settle}","i":"{index}","r":"{rest.rate_text(contract)}",'
            f'"T":{contract.next_funding_ms}{self.end}}}'
        ).encode()

    def liquidation(self, contract: Contract, order: Liquidation) -> bytes:
        pair = self.pair(contract.instrument.symbol)
        return (
            f'{{"e":"forceOrder","E":{order.ts_ms + 5},'
            f'"o":{{{self.order(contract, order)},"ps":"{pair}"}}{self.end}}}'
        ).encode()


class BinanceSpot(Binance):
    """Spot."""

    name = "binance_spot"
    trade_style = TradeStyle(has_plain_sizes=False, served_end=',"M":true', pushed_end="")
    spoiled: Mapping[str, Sequence[str]] = {"trade": ("p",), "book": ("b", "a"), "quote": ("A",)}
    sockets: Sequence[SocketPath] = tuple(
        SocketPath(f"{path}{names}", "any", path == "stream") for path, names in _PLAIN_PATHS
    )
    ping_s = 20.0
    limits: Sequence[VenueLimit] = (
        *socket_limits(5),
        VenueLimit(WEIGHT, 6000, 60.0, window=Window.TURNS),
    )
    statuses: Sequence[str] = ("TRADING", "BREAK", "HALT", "END_OF_DAY", "CANCEL_ONLY")
    changeable = frozenset({"status", "tick_size", "step_size"})

    def __init__(self) -> None:
        super().__init__()
        self.rest: Mapping[str, ServedCall] = _SPOT_REST

    def grids(self, count: int) -> Sequence[Grid]:
        return spot_instruments(count)

    def describe(self, venue: SimVenue, index: int) -> Mapping[str, object]:
        told = dict(super().describe(venue, index))
        del told["funding_interval_hours"]
        return told

    def price_text(self, grid: Grid, tick: int) -> str:
        return rest.padded(super().price_text(grid, tick), _PLACES)

    def qty_text(self, grid: Grid, qty: int) -> str:
        return rest.padded(super().qty_text(grid, qty), _PLACES)

    def topic(self, kind: str, symbol: str) -> str | None:
        return None if kind == "liquidation" else super().topic(kind, symbol)

    def due(self, stream: str, steps: int | None) -> bool:
        if stream == "depth@100ms":
            return steps is not None
        return steps is not None and steps % 10 == 0

    def wants(self, name: str, group: str) -> AskedFor | None:
        symbol, _, kind = name.partition("@")
        if symbol != symbol.lower() or kind not in _SPOT_STREAMS:
            return None
        row = _SPOT_STREAMS[kind]
        return AskedFor(symbol.upper(), row, kind if row == "book" else "")

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        bids, asks = (rest.levels_text(state, side) for side in (event.bids, event.asks))
        return (
            f'{{"e":"depthUpdate","E":{event.ts_ms},"s":"{state.grid.symbol}",'
            f'"U":{event.previous + 1},"u":{event.last},"b":[{bids}],"a":[{asks}]}}'
        ).encode()

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        (bid, bid_qty), (ask, ask_qty) = state.side_texts(quote)
        return (
            f'{{"u":{state.last_update},"s":"{state.grid.symbol}",'
            f'"b":"{bid}","B":"{bid_qty}","a":"{ask}","A":"{ask_qty}"}}'
        ).encode()


def _contract(grid: Grid, status: str) -> rest.Row:
    row = rest.listed_contract(grid, status, "USD", "")
    del row["status"]
    row["contractStatus"] = status
    row["contractSize"] = 100 if row["baseAsset"] == "BTC" else 10
    return row


def _pair(grid: Grid, status: str) -> rest.Row:
    return {
        "symbol": grid.symbol, "status": status, "baseAsset": grid.symbol.removesuffix("USDT"),
        "baseAssetPrecision": _PLACES, "quoteAsset": "USDT", "quoteAssetPrecision": _PLACES,
        "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False, "filters": rest.size_filters(grid, _PLACES),
        "permissions": [], "permissionSets": [["SPOT"]],
    }  # fmt: skip


def _spot_depth(venue: SimVenue, query: Query) -> Answer:
    state, limit = venue.state(query.get("symbol")), rest.integer(query, "limit", 100)
    if state is None or limit is None or not 1 <= limit <= _SPOT_DEPTH_MAX:
        return rest.NO_SYMBOL if state is None else rest.BAD_LIMIT
    last, bids, asks = venue.serve_book(state, limit, now_ms())
    sides = (rest.levels_text(state, side) for side in (bids, asks))
    return Answer('{{"lastUpdateId":{},"bids":[{}],"asks":[{}]}}'.format(last, *sides).encode())


def _spot_depth_weight(query: Query) -> int:
    limit = rest.integer(query, "limit", 100) or 0
    return next((weight for most, weight in _SPOT_DEPTH_WEIGHTS if limit <= most), 1)


def _inverse_premiums(venue: SimVenue, query: Query) -> Answer:
    """Give a list also of one symbol."""
    indexes = [index for index in venue.trading if _is_asked(venue.grids[index].symbol, query)]
    contracts = [venue.contract_at(index) for index in indexes]
    return rest.json_answer([
        {"pair": _pair_of(each.instrument.symbol), **rest.premium(venue, each)}
        for each in contracts
    ])  # fmt: skip


def _is_asked(symbol: str, query: Query) -> bool:
    pair = query.get("pair", _pair_of(symbol))
    return symbol == query.get("symbol", symbol) and symbol.startswith(f"{pair}_")


def _pair_of(symbol: object) -> str:
    return str(symbol).partition("_")[0]


def _inverse_open_interest(venue: SimVenue, contract: Contract, query: Query) -> Answer:
    symbol = contract.instrument.symbol
    kind = _contract(contract.instrument, "")["contractType"]
    return rest.open_interest(venue, contract, query, pair=_pair_of(symbol), contractType=kind)


def _inverse_quote(row: rest.Row) -> rest.Row:
    return {**row, "pair": _pair_of(row["symbol"])}


def _spot_quote(row: rest.Row) -> rest.Row:
    return {name: value for name, value in row.items() if name not in ("time", "lastUpdateId")}


_INVERSE_REST = rest.calls_of(
    "dapi/v1",
    {
        "exchangeInfo": (lambda venue, _: rest.exchange_info(venue, _contract), rest.fixed(1)),
        "depth": (
            rest.futures_depth(lambda symbol: f'"symbol":"{symbol}","pair":"{_pair_of(symbol)}",'),
            rest.depth_weight,
        ),
        "aggTrades": (rest.agg_trades, rest.fixed(20)),
        "premiumIndex": (_inverse_premiums, rest.fixed(10)),
        "openInterest": (rest.of_contract(_inverse_open_interest), rest.fixed(1)),
        "fundingRate": (rest.of_contract(rest.funding_rate), rest.fixed(1)),
        "fundingInfo": (rest.funding_info, rest.fixed(1)),
        "ticker/bookTicker": (rest.quotes(_inverse_quote, as_list=True), rest.by_symbol(2, 5)),
    },
)
_SPOT_REST = rest.calls_of(
    "api/v3",
    {
        "exchangeInfo": (lambda venue, _: rest.exchange_info(venue, _pair), rest.fixed(20)),
        "depth": (_spot_depth, _spot_depth_weight),
        "aggTrades": (rest.agg_trades, rest.fixed(4)),
        "ticker/bookTicker": (rest.quotes(_spot_quote), rest.by_symbol(2, 4)),
    },
)
