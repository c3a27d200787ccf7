"""Bybit v5 as the simulator serves it: a venue a category, linear, inverse and spot.

Served: `publicTrade`, `orderbook.1`, `orderbook.1000` and of contracts `tickers` and
`allLiquidation`. Any other topic, as that of a symbol that is not listed, has its whole request
refused. A book's ids grow by one a message, and begin at the snapshot that a subscription brings; a
ticker begins with one too, and says then only what has changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from shards.simulator.core.contracts import Contract, Liquidation, Terms
from shards.simulator.core.encoder import (
    Asked,
    BookMessage,
    Encoder,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import Integers, compact
from shards.simulator.core.limits import (
    CONNECTS,
    NAME_CHARS,
    SOCKETS,
    TOPICS,
    WEIGHT,
    Per,
    VenueLimit,
)
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.usual import bad_trades, read_object, send_whole
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
_OF_CONTRACTS: Final = ("funding", "liquidation")
_LIMITS: Final = (
    VenueLimit(CONNECTS, 500, 300.0, shared="bybit"),
    VenueLimit(SOCKETS, 1000),
    VenueLimit(NAME_CHARS, 21_000, per=Per.SOCKET, is_rule=True),
    VenueLimit(WEIGHT, 600, 5.0, shared="bybit"),
)
_TRADE: Final = {
    "T": "1795000000324", "s": '"BTCUSDT"', "S": '"Buy"', "v": '"0.010"', "p": '"81234.50"',
    "i": f'"{uuid_text(-1 << 62)}"', "BT": "false", "RPI": "false", "seq": "530400001240",
}  # fmt: skip
_BAD: Final = {
    "wrong_types": {"p": "81234.5", "T": '"x"'},
    "nan_price": {"p": '"NaN"'},
    "infinite_price": {"p": '"Infinity"'},
    "huge_number": {"T": "9" * 400},
}


class BybitLinear(Encoder):
    """Perpetuals in USDT."""

    name = "bybit_linear"
    category = "linear"
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
    channels: Mapping[str, str] = _KINDS
    separator = "."
    limits: Sequence[VenueLimit] = _LIMITS
    busy = (403, b"access too frequent")

    def __init__(self) -> None:
        self.sockets: Sequence[SocketPath] = (
            SocketPath(f"v5/public/{self.category}", self.category),
        )
        self.rest: Mapping[str, ServedCall] = rest_of(self.category)
        self.statuses = ("Trading", "Closed", "PreLaunch", "Delivering")
        self.malformed = {
            **bad_trades(
                '{"topic":"publicTrade.BTCUSDT","type":"snapshot","data":[%s]}', _TRADE, _BAD
            ),
            "missing_fields": b'{"topic":"publicTrade.BTCUSDT","data":[{"s":"BTCUSDT"}]}',
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

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> BybitTradeRows:
        return BybitTradeRows(state, price_text, spot=self.is_spot)

    def due(self, stream: str, steps: int | None) -> bool:
        return steps is not None and steps % _BOOK_STEPS == 0

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        request = read_object(text)
        word, topics = request.get("op"), request.get("args", [])
        if word == "ping":
            session.send_text(_reply(session, request, {"success": True, "ret_msg": "pong"}))
        elif not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
            session.send_text(_refusal(session, request, "error:args is no list of topics"))
        elif word not in ("subscribe", "unsubscribe"):
            session.send_text(_refusal(session, request, f"error:unknown op {word!r}"))
        else:
            return Asked(topics, word == "subscribe", said=request)
        return None

    def over(self, session: Session, limit: VenueLimit, request: Asked | None) -> bytes:
        what = "size" if limit.what == TOPICS else "length"
        said = request.said if request else {}
        return _refusal(session, said, f"error:args {what} >{limit.most}")

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        why = self._why_not(venue, session, request.topics) if request.begins else ""
        said = {"success": not why, "ret_msg": why}
        session.send_text(_reply(session, request.said, said))
        return () if why else request.topics

    def _why_not(self, venue: SimVenue, session: Session, topics: Sequence[str]) -> str:
        """Say what is wrong with topics; nothing where they are taken."""
        for topic in topics:
            wanted = self.wants(topic, session.group)
            if wanted is None or venue.index_of(wanted.symbol) is None:
                return f"error:handler not found,topic:{topic}"
            if topic in session.names:
                return f"error:already subscribed,topic:{topic}"
        return ""

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        wanted = self.wants(topic, session.group)
        assert wanted is not None
        if wanted.kind == "book":
            state = venue.state(wanted.symbol)
            assert state is not None
            link = state.chain(_BOOK)
            event = BookMessage(_BOOK, now_ms(), 0, link.last, 0, *link.whole())
            send_whole(venue, session, state, event)
        elif wanted.kind == "funding":
            contract = venue.contract(wanted.symbol)
            assert contract is not None
            whole = ticker_fields(venue, contract)
            venue.greet(session, contract, _ticker_text(contract, whole, "snapshot"))

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        return _book_text(state, event, "delta")

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        return _book_text(state, event, "snapshot")

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
            "v": self.qty_text(grid, order.qty),
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
    channels: Mapping[str, str] = {
        word: kind for word, kind in _KINDS.items() if kind not in _OF_CONTRACTS
    }
    limits: Sequence[VenueLimit] = (*_LIMITS, VenueLimit(TOPICS, 10, per=Per.REQUEST, is_rule=True))
    spoiled: Mapping[str, Sequence[str]] = {"trade": ("p",), "book": ("b", "a"), "quote": ("b",)}

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        return spot_ids(index, serial, count)


def _reply(session: Session, request: Mapping[str, object], said: Mapping[str, object]) -> bytes:
    names = {"conn_id": f"simulated-{id(session):x}", "req_id": request.get("req_id", "")}
    return compact({**said, **names, "op": request.get("op")})


def _refusal(session: Session, request: Mapping[str, object], why: str) -> bytes:
    return _reply(session, request, {"success": False, "ret_msg": why})


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
