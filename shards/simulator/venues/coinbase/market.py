"""What the two protocols of Coinbase have in common in the simulator: products, topics, requests.

A trade's side is the maker's; changes of books are known by their time alone, in microseconds. A
ticker is pushed when the best bid or offer has changed, not at each trade.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np

from engine.base.clock import wall_ns
from shards.simulator.core.contracts import Terms
from shards.simulator.core.encoder import (
    AskedFor,
    BookMessage,
    Encoder,
    Query,
    SocketPath,
)
from shards.simulator.core.frames import (
    Integers,
    Trade,
    compact,
    decimal_text,
)
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Levels, Quote, SymbolState
from shards.simulator.core.venue import SimVenue, now_ms

__all__ = [
    "SPOT",
    "SpotMarket",
    "level_texts",
    "maker_side",
    "now_text",
    "sides_of",
    "subscribed",
    "time_text",
]

# product, start price, price decimals printed, tick in units of the last decimal, quantity decimals
SPOT: tuple[tuple[str, float, int, int, int], ...] = (
    ("BTC-USD", 81234.5, 2, 1, 8), ("ETH-USD", 3123.45, 2, 1, 8), ("SOL-USD", 187.42, 2, 1, 8),
    ("XRP-USD", 2.3456, 4, 1, 6), ("DOGE-USD", 0.21345, 5, 1, 1), ("ADA-USD", 0.6543, 4, 1, 8),
    ("LINK-USD", 17.654, 3, 1, 2), ("AVAX-USD", 28.76, 2, 1, 8), ("LTC-USD", 98.76, 2, 1, 8),
)  # fmt: skip
_FIRST_TRADE_ID = 995_000_000
_TRADES_OF_A_PRODUCT = 100_000_000
_ALL_LEVELS = 1 << 20
_KINDS = {
    "market_trades": "trade", "level2": "book", "ticker": "quote",
    "matches": "trade", "level2_batch": "book", "heartbeat": "heartbeat",
}  # fmt: skip


@lru_cache(256)
def time_text(at_us: int) -> str:
    seconds, fraction = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:06d}Z"


def now_text() -> str:
    return time_text(wall_ns() // 1000)


def maker_side(trade: Trade) -> str:
    return "sell" if trade.buy else "buy"


class SpotMarket(Encoder):
    """What both protocols have in common."""

    terms = Terms(
        rate_decimals=6, usual_rate=12, rate_limit=20_000, interval_ms=3_600_000,
        mark_decimals=None, with_prices=False, with_interest=True,
    )  # fmt: skip
    numbered_books = True
    timed_books = True
    sockets: Sequence[SocketPath] = (SocketPath("", "ws"),)
    connects_per_minute: float = 480
    weight_limit = 600
    statuses: Sequence[str] = ("online", "delisted")
    channels: Mapping[str, str] = {}
    """Of each kind, what it is called."""
    _table = SPOT
    _beaten_ms = 0

    def grids(self, count: int) -> Sequence[Grid]:
        rows = [
            *self._table[:count],
            *((f"SIM{n:03d}-USD", 1.0 + n % 90, 4, 1, 2) for n in range(len(self._table), count)),
        ]
        return tuple(
            Grid.around(symbol, price, (decimals, tick, qty_decimals), rank)
            for rank, (symbol, price, decimals, tick, qty_decimals) in enumerate(rows)
        )

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        first = _FIRST_TRADE_ID + index * _TRADES_OF_A_PRODUCT + serial
        return np.arange(first, first + count)

    def price_text(self, grid: Grid, tick: int) -> str:
        return decimal_text(tick * grid.tick, grid.price_decimals)

    def topic(self, kind: str, symbol: str) -> str | None:
        return f"{self.channels[kind]}:{symbol}" if kind in self.channels else None

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{stream}:{symbol}"

    def wants(self, name: str, group: str) -> AskedFor | None:
        channel, _, symbol = name.partition(":")
        kind = _KINDS.get(channel)
        return AskedFor(symbol, kind, channel if kind == "book" else "") if kind else None

    def beat(self, venue: SimVenue, now_ms: int) -> None:
        if now_ms - self._beaten_ms >= 1000:
            self._beaten_ms = now_ms
            self.push_heartbeats(venue, now_ms)

    def push_heartbeats(self, venue: SimVenue, now_ms: int) -> None:
        """Push those of this second."""

    def hear(self, venue: SimVenue, session: Session, text: str | bytes) -> None:
        request = json.loads(text)
        word, products = request.get("type"), request.get("product_ids") or []
        names = self.names_of(request)
        strangers = [each for each in products if venue.index_of(each) is None]
        if word not in ("subscribe", "unsubscribe") or not names:
            self.refuse(session, "malformed request", "")
        elif strangers:
            self.refuse(session, "Failed to subscribe", f"{strangers[0]} is not a valid product")
        elif word == "unsubscribe":
            venue.unsubscribe(session, names)
            self.acknowledge(session)
        else:
            new = [name for name in names if name not in session.names]
            for name in new:
                session.names[name] = None  # what is told of next is all that is subscribed
            self.acknowledge(session)
            for name in new:
                del session.names[name]
                self._begin(venue, session, name)

    def _begin(self, venue: SimVenue, session: Session, name: str) -> None:
        wanted = self.wants(name, session.group)
        state = venue.state(wanted.symbol) if wanted else None
        if state is not None and wanted is not None and wanted.kind == "book":
            event = self.snapshot_of(state, wanted.book)
            if session.send_text(self.whole(state, event)):
                venue.record_book(state, event, whole=True)
        elif state is not None and wanted is not None and wanted.kind == "trade":
            for payload in self.recent(state):
                session.send_text(payload)
        venue.subscribe(session, [name])

    def names_of(self, request: Query) -> Sequence[str]:
        """Name the topics that a request is about; none for one that means nothing."""
        return ()

    def acknowledge(self, session: Session) -> None:
        """Say all that is subscribed."""

    def refuse(self, session: Session, message: str, reason: str) -> None:
        """Say why a request was not taken."""
        session.send_text(compact({"type": "error", "message": message, "reason": reason}))

    def snapshot_of(self, state: SymbolState, stream: str) -> BookMessage:
        """Take the whole book, with the number its snapshot has."""
        return BookMessage(stream, now_ms(), 0, state.last_update, 0, *state.top(_ALL_LEVELS))

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        """Write a snapshot."""
        return b""

    def recent(self, state: SymbolState) -> Iterable[bytes]:
        """Write messages of what traded before a subscription."""
        return ()


def level_texts(state: SymbolState, levels: Levels) -> list[tuple[str, str]]:
    decimals = state.grid.qty_decimals
    return [(state.price_text(tick), decimal_text(qty, decimals)) for tick, qty in levels]


def subscribed(session: Session) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in session.names:
        channel, _, symbol = name.partition(":")
        found.setdefault(channel, []).append(symbol or channel)
    return found


def sides_of(state: SymbolState, quote: Quote) -> tuple[tuple[str, str], tuple[str, str]]:
    bid, ask = (level_texts(state, [side or (0, 0)])[0] for side in quote)
    return bid, ask
