"""Bybit v5 as the simulator serves it: a venue a category, linear, inverse and spot.

Served: `publicTrade`, `orderbook.1`, `orderbook.1000` and of contracts `tickers` and
`allLiquidation`. Any other topic, as that of a symbol that is not listed, has its whole request
refused. A book's ids grow by one a message, and begin at the snapshot that a subscription brings; a
ticker begins with one too, and says then only what has changed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from shards.simulator.core.contracts import Contract, Liquidation, Terms
from shards.simulator.core.encoder import (
    AskedFor,
    BookMessage,
    Encoder,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import Integers, compact, decimal_text
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.venue import SimVenue, now_ms
from shards.simulator.venues.bybit.rest import levels_text, rest_of, ticker_fields
from shards.simulator.venues.bybit.trades import (
    FIRST_SEQ,
    BybitTradeRows,
    spot_ids,
    uuid_halves,
    uuid_text,
)
from shards.simulator.venues.listed import binance_instruments

__all__ = ["BybitInverse", "BybitLinear", "BybitSpot"]

_BOOK: Final = "orderbook.1000"
_BOOK_STEPS: Final = 2
"""That book is said every 200 ms."""
_KINDS: Final = {
    "publicTrade": "trade", "orderbook.1": "quote", _BOOK: "book", "tickers": "funding",
    "allLiquidation": "liquidation",
}  # fmt: skip
_TOPICS: Final = {kind: word for word, kind in _KINDS.items()}
_OF_CONTRACTS: Final = ("funding", "liquidation")
_ARGS_CHARS: Final = 21_000


class BybitLinear(Encoder):
    """Perpetuals in USDT."""

    name = "bybit_linear"
    category = "linear"
    args_max: int | None = None
    """How many topics a request may name."""
    terms = Terms(
        rate_decimals=8, usual_rate=10_000, rate_limit=375_000, interval_ms=8 * 3_600_000,
        mark_decimals=None, says_next=True, with_interest=True, with_fills=False,
    )  # fmt: skip
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("p",), "book": ("b", "a"), "quote": ("b",), "funding": ("openInterest",),
        "liquidation": ("p",),
    }  # fmt: skip
    spoiled_among = 3
    numbered_books = True
    counted_books = True
    weight_limit = 2400

    def __init__(self) -> None:
        self.sockets: Sequence[SocketPath] = (
            SocketPath(f"v5/public/{self.category}", self.category),
        )
        self.rest: Mapping[str, ServedCall] = rest_of(self.category)
        self.statuses = ("Trading", "Closed", "PreLaunch", "Delivering")
        self.malformed = {
            "wrong_types": _one_trade(p="81234.5", T='"x"'),
            "missing_fields": b'{"topic":"publicTrade.BTCUSDT","data":[{"s":"BTCUSDT"}]}',
            "nan_price": _one_trade(p='"NaN"'),
            "infinite_price": _one_trade(p='"Infinity"'),
            "huge_number": _one_trade(T="9" * 400),
        }
        self._said_next_ms: dict[int, int] = {}
        """When funding is paid next, as deltas have said of each contract."""

    @property
    def is_spot(self) -> bool:
        """Whether there are no contracts."""
        return self.category == "spot"

    def grids(self, count: int) -> Sequence[Grid]:
        return binance_instruments(count)

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        return uuid_halves(index, serial, count)

    def price_text(self, grid: Grid, tick: int) -> str:
        return decimal_text(tick * grid.tick, grid.price_decimals)

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> BybitTradeRows:
        return BybitTradeRows(state, price_text, spot=self.is_spot)

    def topic(self, kind: str, symbol: str) -> str | None:
        is_none = self.is_spot and kind in _OF_CONTRACTS
        return None if is_none else f"{_TOPICS[kind]}.{symbol}"

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{stream}.{symbol}"

    def funding_topics(self, contract: Contract) -> Sequence[str]:
        return (f"tickers.{contract.instrument.symbol}",)

    def due(self, stream: str, steps: int | None) -> bool:
        return steps is not None and steps % _BOOK_STEPS == 0

    def wants(self, name: str, group: str) -> AskedFor | None:
        word = next((word for word in _KINDS if name.startswith(f"{word}.")), "")
        kind = _KINDS.get(word)
        if kind is None or (self.is_spot and kind in _OF_CONTRACTS):
            return None
        return AskedFor(name[len(word) + 1 :], kind, word if kind == "book" else "")

    def hear(self, venue: SimVenue, session: Session, text: str | bytes) -> None:
        request = _read(text)
        word, topics = request.get("op"), request.get("args", [])
        said = {"conn_id": f"simulated-{id(session):x}", "req_id": request.get("req_id", "")}
        if word == "ping":
            session.send_text(compact({"success": True, "ret_msg": "pong", **said, "op": "ping"}))
            return
        why = self._why_not(venue, session, request)
        session.send_text(compact({"success": not why, "ret_msg": why, **said, "op": word}))
        if why:
            return
        if word == "unsubscribe":
            venue.unsubscribe(session, topics)
        else:
            venue.subscribe(session, topics)
            for topic in topics:
                self._begin(venue, session, topic)

    def _why_not(self, venue: SimVenue, session: Session, request: Mapping[str, Any]) -> str:
        """Say what is wrong with a request; nothing where it is taken."""
        topics = request.get("args")
        if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
            return "error:args is no list of topics"
        if request.get("op") == "unsubscribe":
            return ""
        if request.get("op") != "subscribe":
            return f"error:unknown op {request.get('op')!r}"
        if self.args_max is not None and len(topics) > self.args_max:
            return f"error:args size >{self.args_max}"
        if sum(map(len, [*session.names, *topics])) > _ARGS_CHARS:
            return f"error:args length >{_ARGS_CHARS}"
        for topic in topics:
            wanted = self.wants(topic, session.group)
            if wanted is None or venue.index_of(wanted.symbol) is None:
                return f"error:handler not found,topic:{topic}"
            if topic in session.names:
                return f"error:already subscribed,topic:{topic}"
        return ""

    def _begin(self, venue: SimVenue, session: Session, topic: str) -> None:
        """Send what a topic begins with."""
        wanted = self.wants(topic, session.group)
        assert wanted is not None
        if wanted.kind == "book":
            state = venue.state(wanted.symbol)
            assert state is not None
            link = state.chain(_BOOK)
            event = BookMessage(_BOOK, now_ms(), 0, link.last, 0, *link.whole())
            if session.send_text(_book_text(state, event, "snapshot")):
                venue.record_book(state, event, whole=True)
        elif wanted.kind == "funding":
            contract = venue.contract(wanted.symbol)
            assert contract is not None
            whole = ticker_fields(venue, contract)
            venue.greet(session, contract, _ticker_text(contract, whole, "snapshot"))

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        return _book_text(state, event, "delta")

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bids, asks = ([side] if side else [] for side in quote)
        event = BookMessage("orderbook.1", now_ms, 0, state.last_update, 0, bids, asks)
        return _book_text(state, event, "snapshot")

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        """Write what changes from second to second, and seldom what changes seldom."""
        fields = dict(ticker_fields(venue, contract))
        for name in ("fundingIntervalHour", "fundingCap"):
            fields.pop(name, None)
        next_ms = contract.next_funding_ms
        if self._said_next_ms.get(contract.number) == next_ms:
            del fields["nextFundingTime"]
        self._said_next_ms[contract.number] = next_ms
        return _ticker_text(contract, fields, "delta")

    def liquidation(self, contract: Contract, order: Liquidation) -> bytes:
        grid = contract.instrument
        row = {
            "T": order.ts_ms, "s": grid.symbol, "S": "Buy" if order.sold else "Sell",
            "v": decimal_text(order.qty, grid.qty_decimals),
            "p": self.price_text(grid, order.price),
        }  # fmt: skip
        topic = f"allLiquidation.{grid.symbol}"
        return compact({"topic": topic, "type": "snapshot", "ts": now_ms(), "data": [row]})


class BybitInverse(BybitLinear):
    """Perpetuals of 1 USD a contract, settled in their coin."""

    name = "bybit_inverse"
    category = "inverse"

    def grids(self, count: int) -> Sequence[Grid]:
        return [
            replace(
                grid, symbol=f"{grid.symbol.removesuffix('USDT')}USD", qty_decimals=0,
                median_qty=400.0,
            )
            for grid in binance_instruments(count)
        ]  # fmt: skip


class BybitSpot(BybitLinear):
    """Coins. Ids of trades are numbers; there are no tickers of contracts."""

    name = "bybit_spot"
    category = "spot"
    args_max: int | None = 10
    spoiled: Mapping[str, Sequence[str]] = {"trade": ("p",), "book": ("b", "a"), "quote": ("b",)}

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        return spot_ids(index, serial, count)


def _read(text: str | bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(text)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _book_text(state: SymbolState, event: BookMessage, form: str) -> bytes:
    symbol, at_ms = state.grid.symbol, event.ts_ms
    bids, asks = (levels_text(state, side) for side in (event.bids, event.asks))
    return (
        f'{{"topic":"{event.stream}.{symbol}","type":"{form}","ts":{at_ms + 2},'
        f'"data":{{"s":"{symbol}","b":[{bids}],"a":[{asks}],"u":{event.last},'
        f'"seq":{FIRST_SEQ + event.last}}},"cts":{at_ms}}}'
    ).encode()


def _ticker_text(contract: Contract, fields: Mapping[str, str], form: str) -> bytes:
    symbol = contract.instrument.symbol
    return compact(
        {
            "topic": f"tickers.{symbol}", "type": form, "data": {"symbol": symbol, **fields},
            "cs": FIRST_SEQ + contract.ticks, "ts": contract.ts_ms,
        }
    )  # fmt: skip


def _one_trade(**changes: str) -> bytes:
    fields = {
        "T": "1795000000324", "s": '"BTCUSDT"', "S": '"Buy"', "v": '"0.010"', "p": '"81234.50"',
        "i": f'"{uuid_text(-1 << 62)}"', "BT": "false", "RPI": "false", "seq": "530400001240",
        **changes,
    }  # fmt: skip
    row = ",".join(f'"{key}":{value}' for key, value in fields.items())
    return f'{{"topic":"publicTrade.BTCUSDT","type":"snapshot","data":[{{{row}}}]}}'.encode()
