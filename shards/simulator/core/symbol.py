"""One symbol of a simulated venue: market, ids, recent trades, book chains, what was said last.

Update ids are one sequence per symbol: every change of the book takes ids from it, depth events
say which they cover, and a best bid and offer says as of which it holds. Each stream that says
changes is a chain of its own over that sequence: an event names the last id that the one before
it covered.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from engine.base.clock import monotonic_ns, wall_ns
from shards.simulator.core.frames import Integers, Trade, TradeRows, Trades, decimal_text
from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, BOOK, TRADE, Rows
from shards.simulator.core.market import Grid, Market, Step

__all__ = ["ALL_LEVELS", "Chain", "Levels", "Quote", "Style", "SymbolState"]

ALL_LEVELS = 1 << 20
"""More than any book has."""

_FIRST_RAW_ID = 8_100_000_000
_FIRST_UPDATE_ID = 9_700_000_000_000
ID_STRIDE = 1_000_003
"""Between the first ids of two symbols."""

_TEXT_CACHE = 8192
_WAITING_TRADES, _WAITING_ROWS = 64, 4096
"""What waits to be put into a history at most."""

_FEW_ROWS = 5
"""So many rows are made faster one by one than field by field."""

_SIDES = b"SB"
"""What the taker did, by whether it bought."""

_HISTORY = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("raw", "<i8"),
        ("tick", "<i4"),
        ("size", "<u2"),
        ("more", "u1"),
        ("buy", "?"),
        ("sent", "?"),
    ]
)

Levels: TypeAlias = list[tuple[int, int]]

Quote: TypeAlias = tuple[tuple[int, int] | None, tuple[int, int] | None]
"""Best bid and best ask as (price, quantity); None where that side is empty."""


class Style(Protocol):
    """What of a symbol is its venue's way."""

    null_sides: bool = False
    """A side without orders is null, and a symbol that does not trade has none on either."""
    timed_books: bool = False
    """Changes of books have no ids: what counts them is their time in microseconds."""
    first_books: tuple[str, ...] = ()
    """Book streams whose chains begin with the symbol, not with the first subscription."""

    fills: bool = False
    """A trade stands for several raw ones, which have ids of their own."""
    dense_ids: bool = False
    """Update ids have no holes: each is of a level that changed."""

    def topic(self, kind: str, symbol: str) -> str | None:
        """Name the stream of trades, quotes or liquidations; None for what is not pushed."""

    def book_topic(self, symbol: str, stream: str) -> str:
        """Name one of a symbol's book streams."""

    def top(self, stream: str) -> int:
        """Levels a side of a book stream that always says the top; 0: it says changes."""
        return 0

    counted_books: bool = False
    """Each message of a book stream that says changes has the number after that of the one before,
    whatever happened in between, and says nothing of levels that came and went in between."""

    def activity(self, index: int) -> int:
        """Say how many levels near the touch change in a step."""
        return max(5, 22 // (1 + index // 3))

    def moves(self, state: "SymbolState") -> bool:
        """Tell whether the book of a symbol changes in this step."""
        return True

    def opened(self, state: "SymbolState") -> None:
        """Draw what is the venue's own of a new symbol, from `state.rng`."""
        return

    first_trade_id: int = 0
    trade_id_stride: int = ID_STRIDE
    """Between the first ids of two symbols."""

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        """Give the ids of `count` trades from position `serial` of a symbol's tape."""
        first = self.first_trade_id + self.trade_id_stride * index + serial
        return np.arange(first, first + count)

    def price_text(self, grid: Grid, tick: int) -> str:
        """Print a price."""
        return decimal_text(tick * grid.tick, grid.price_decimals)

    def qty_text(self, grid: Grid, qty: int) -> str:
        """Print a quantity, given in lots."""
        return decimal_text(qty, grid.qty_decimals)

    def trade_rows(self, state: "SymbolState", price_text: Callable[[int], str]) -> TradeRows:
        """Give the writer of this symbol's trades on its present grid."""


@dataclass(slots=True)
class Chain:
    """A stream of changes: what changed since its last event."""

    topic: str
    top: int
    """Levels a side, if it always says the top; 0: what changed."""
    last: int
    """Last update id of the last event, or its number where events are counted."""
    shown: tuple[dict[int, int], dict[int, int]] | None = None
    """Bids and asks as of the last event, where events are counted."""
    first: int = 0
    """First update id of the next event; 0 while nothing changed."""
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)

    def absorb(self, first: int, change: Step) -> None:
        """Take a change into the next event."""
        self.first = self.first or first
        self.bids.update(change.bids)
        self.asks.update(change.asks)

    def changes(self) -> tuple[Levels, Levels]:
        """Give what the next event says, best first."""
        bids, asks = self.bids, self.asks
        if self.shown is not None:
            bids, asks = (_different(*each) for each in zip((bids, asks), self.shown, strict=True))
        return sorted(bids.items(), reverse=True), sorted(asks.items())

    def whole(self) -> tuple[Levels, Levels]:
        """Give the book as of the last event, best first."""
        assert self.shown is not None
        bids, asks = self.shown
        return sorted(bids.items(), reverse=True), sorted(asks.items())

    def restart(self, last_update: int) -> None:
        """Begin the next event behind this update."""
        self.last, self.first = self.next_id(last_update), 0
        if self.shown is not None:
            for side, changes in zip(self.shown, (self.bids, self.asks), strict=True):
                side.update(changes)
                for tick in [tick for tick, qty in changes.items() if not qty]:
                    del side[tick]
        self.bids, self.asks = {}, {}

    def next_id(self, last_update: int) -> int:
        """Give the id of the event that ends with this update."""
        return last_update if self.shown is None else self.last + 1


def _different(changes: dict[int, int], shown: dict[int, int]) -> dict[int, int]:
    return {tick: qty for tick, qty in changes.items() if shown.get(tick, 0) != qty}


class SymbolState:
    """One symbol. Its book lives from the first time anyone asks for it."""

    def __init__(
        self, place: tuple[int, int, int], grid: Grid, seeds: tuple[int, int], style: Style,
        history_rows: int,
    ) -> None:  # fmt: skip
        """`place`: the venue's number, the symbol's at the venue, the symbol's in the ledger.

        `seeds` are the simulator's and the symbol's; `history_rows` trades are remembered.
        """
        self.venue, self.index, self.number = place
        self.rng = np.random.default_rng(np.random.SeedSequence((*seeds, 1)))
        self.halted = False
        self.serial = 0
        """How many trades there were, and with it the place of the next."""
        self.next_raw = _FIRST_RAW_ID + ID_STRIDE * self.index
        self.last_update = _FIRST_UPDATE_ID + ID_STRIDE * self.index
        if style.timed_books:
            self.last_update = wall_ns() // 1000
        self.chains: dict[str, Chain] = {}
        """Streams of changes somebody has asked for, by name."""
        self.said_ms: dict[str, int] = {}
        """When each stream of whole books on a clock of its own had its last event."""
        self.steps = 0
        self.quoted: Quote | None = None
        """The best bid and offer said last."""
        self.quote_seq = 0
        self.served_update = 0
        """As of which update id REST gave out the best bid and offer last."""
        self.had_listener = False
        self.empty_until_ns = {"bid": 0, "ask": 0}
        """Until when a side shows no order (fault `empty_side`)."""
        self._style, self._seeds = style, seeds
        self._history_rows = history_rows
        self._history: Rows = np.empty(1024, _HISTORY)
        self._waiting: list[Trades] = []
        """The newest trades, not in the history yet."""
        self._waiting_rows = 0
        self.change_grid(grid)
        self.quote_topic = style.topic("quote", grid.symbol)
        for name in style.first_books:
            self.chain(name)
        style.opened(self)
        self._begin = self._oldest = self.serial

    def change_grid(self, grid: Grid) -> None:
        """Trade on this grid from now on: a book, sizes and texts of its own."""
        self.grid = grid
        self.market = Market(grid, *self._seeds, self._style.activity(self.index))
        self._oldest = self.serial
        self._price_texts: dict[int, str] = {}
        self.trade_rows = self._style.trade_rows(
            self, lambda tick: self._style.price_text(grid, tick)
        )

    def chain(self, name: str) -> Chain:
        """Give the chain of a book stream, opened now if nobody asked before."""
        if name not in self.chains:
            topic = self._style.book_topic(self.grid.symbol, name)
            link = self.chains[name] = Chain(topic, self._style.top(name), self.last_update)
            if self._style.counted_books:
                link.shown = dict(self.market.bids), dict(self.market.asks)
        return self.chains[name]

    def advance(self, change: Step, now_ms: int) -> None:
        """Give a change its update ids, or its time, and put it into all chains."""
        first, count = self.last_update + 1, len(change.bids) + len(change.asks)
        if self._style.timed_books:
            first, count = max(first, now_ms * 1000), 1
        elif not self._style.dense_ids:
            first += 1 + (self.last_update * 7) % 41  # some go to unseen orders
            count = max(1, count)
        self.last_update = first + count - 1
        for chain in self.chains.values():
            chain.absorb(first, change)

    def shows(self, side: str) -> bool:
        """Tell whether a side of the book has orders, where it may have none."""
        return not self.halted and monotonic_ns() >= self.empty_until_ns[side]

    def top(self, count: int) -> tuple[Levels, Levels]:
        """Give the best `count` levels of each side, best first."""
        bids, asks = self.market.top(count)
        if not self._style.null_sides:
            return bids, asks
        return bids if self.shows("bid") else [], asks if self.shows("ask") else []

    def quote(self) -> Quote:
        """Give best bid and offer."""
        bid, bid_qty, ask, ask_qty = self.market.touch()
        if not self._style.null_sides:
            return (bid, bid_qty), (ask, ask_qty)
        return (
            (bid, bid_qty) if self.shows("bid") else None,
            (ask, ask_qty) if self.shows("ask") else None,
        )

    def price_text(self, tick: int) -> str:
        """Print a price."""
        text = self._price_texts.get(tick)
        if text is None:
            if len(self._price_texts) > _TEXT_CACHE:
                self._price_texts.clear()
            text = self._price_texts[tick] = self._style.price_text(self.grid, tick)
        return text

    def qty_text(self, qty: int) -> str:
        """Print a quantity, given in lots."""
        return self._style.qty_text(self.grid, qty)

    def level_texts(self, levels: Levels) -> list[tuple[str, str]]:
        """Print price and quantity of levels."""
        price, qty_text, grid = self.price_text, self._style.qty_text, self.grid
        return [(price(tick), qty_text(grid, qty)) for tick, qty in levels]

    def side_texts(self, quote: Quote) -> tuple[tuple[str, str], tuple[str, str]]:
        """Print best bid and best ask; one that is not there is 0."""
        bid, ask = self.level_texts([side or (0, 0) for side in quote])
        return bid, ask

    def trade(self, count: int, now_ms: int) -> Trades:
        """Let `count` trades happen now. Their ids are used up, sent or not."""
        if len(self._waiting) >= _WAITING_TRADES or self._waiting_rows >= _WAITING_ROWS:
            self._remember()
        tape = self.market.take(count)
        ids = self._style.trade_ids(self.index, self.serial, count)
        first_raw = last_raw = ids
        if self._style.fills:
            next_raw = tape.fills.cumsum() + self.next_raw
            first_raw, last_raw = next_raw - tape.fills, next_raw - 1
            self.next_raw = int(next_raw[-1])
        trades = Trades(
            now_ms, self.serial, ids, self.market.prices(tape), tape.size, tape.buy,
            first_raw, last_raw,
        )  # fmt: skip
        self._waiting.append(trades)
        self._waiting_rows += count
        self.serial += count
        return trades

    def first_past(self, at_ms: int, span_ms: int, count: int) -> list[Trades]:
        """Let so many trades happen, dated back over a span, before the first listener ever: it
        finds a market that has been trading before it came.
        """
        if self.had_listener:
            return []
        self.had_listener = True
        return [self.trade(1, at_ms - age) for age in range(span_ms, 0, -span_ms // count)]

    def _remember(self) -> None:
        """Put into the history what waits for it: one by one it would cost more than the trades."""
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        counts = [len(trades.ids) for trades in waiting]
        fields = {
            "ts_ms": np.repeat([trades.ts_ms for trades in waiting], counts),
            "sent": np.repeat([trades.sent for trades in waiting], counts),
            "tick": np.concatenate([trades.ticks for trades in waiting]),
            "size": np.concatenate([trades.size for trades in waiting]),
            "buy": np.concatenate([trades.buy for trades in waiting]),
        }
        if self._style.fills:
            fields["raw"] = np.concatenate([trades.first_raw for trades in waiting])
            last = np.concatenate([trades.last_raw for trades in waiting])
            fields["more"] = last - fields["raw"]
        used, count = self.serial - self._begin, sum(counts)
        capacity = len(self._history)
        while capacity < self._history_rows and used > capacity:
            self._history = np.concatenate([self._history, np.empty(capacity, _HISTORY)])
            capacity *= 2
        first = used - min(count, capacity)
        split = used - used % capacity
        for start, stop in ((first, split), (max(first, split), used)):
            if start < stop:
                rows = self._history[start % capacity :][: stop - start]
                for name, values in fields.items():
                    rows[name] = values[start - used + count : stop - used + count]

    def _places(self, first: int, count: int) -> Integers:
        return (np.arange(first, first + count) - self._begin) % len(self._history)

    def unsent(self, trades: Trades) -> None:
        """Remember that these have reached nobody."""
        trades.sent = False
        if trades not in self._waiting:
            self._history["sent"][self._places(trades.serial, len(trades.ids))] = False

    def recent(self, first: int | None, limit: int) -> list[Trade]:
        """Give what is remembered of `limit` trades from position `first`, or of the newest."""
        if self._waiting:
            self._remember()
        start = self.serial - limit if first is None else first
        start = min(max(self._oldest, self.serial - len(self._history), start), self.serial)
        count = min(limit, self.serial - start)
        rows = self._history[self._places(start, count)].tolist()
        ids = self._style.trade_ids(self.index, start, count).tolist()
        return [
            Trade(ts_ms, start + n, ids[n], tick, size, buy, raw, raw + more, sent)
            for n, (ts_ms, raw, tick, size, more, buy, sent) in enumerate(rows)
        ]

    def newest_sent(self, limit: int) -> list[Trade]:
        """Give the newest trades that somebody got, oldest first."""
        return [trade for trade in self.recent(None, 1024) if trade.sent][-limit:]

    def ledger_trades(self, trades: Trades) -> Rows:
        """Make ledger rows of trades."""
        count, grid, sizes = len(trades.ids), self.grid, self.market.sizes
        if count <= _FEW_ROWS:
            return np.array(
                [
                    (self.venue, self.number, one.ts_ms * 1_000_000, one.id,
                     _SIDES[one.buy], one.tick * grid.tick, grid.price_decimals,
                     sizes[one.size], grid.qty_decimals)
                    for one in trades.each()
                ],
                TRADE,
            )  # fmt: skip
        rows = np.empty(count, TRADE)
        rows["venue"] = self.venue
        rows["symbol"] = self.number
        rows["ts_event"] = trades.ts_ms * 1_000_000
        rows["trade_id"] = trades.ids
        rows["side"] = np.frombuffer(_SIDES, "u1").take(trades.buy)
        rows["price_mantissa"] = trades.ticks * grid.tick
        rows["price_decimals"] = grid.price_decimals
        rows["qty_mantissa"] = sizes.take(trades.size)
        rows["qty_decimals"] = grid.qty_decimals
        return rows

    def ledger_book(
        self, at_ns: int, chain: tuple[int, int], sides: tuple[Levels, Levels], *, whole: bool
    ) -> Rows:
        """Make ledger rows of a book event; one marker row if it has no level."""
        bids, asks = sides
        levels: Integers = np.array([*bids, *asks] or [(0, 0)], np.int64)
        rows = np.empty(len(levels), BOOK)
        rows["venue"] = self.venue
        rows["symbol"] = self.number
        rows["ts_event"] = at_ns
        rows["seq"], rows["prev_seq"] = chain
        rows["side"] = ord("a") if bids or asks else ord("-")
        rows["side"][: len(bids)] = ord("b")
        rows["price_mantissa"] = levels[:, 0] * self.grid.tick
        rows["price_decimals"] = self.grid.price_decimals
        rows["qty_mantissa"] = levels[:, 1]
        rows["qty_decimals"] = self.grid.qty_decimals
        rows["snapshot"] = int(whole)
        return rows

    def ledger_quote(self, now_ms: int, seq: int, quote: Quote, *, rest: int) -> tuple[int, ...]:
        """Make the ledger row of a best bid and offer."""
        (bid, bid_qty), (ask, ask_qty) = (side or (0, 0) for side in quote)
        at_us = seq if self._style.timed_books else now_ms * 1000
        return (
            self.venue, self.number, at_us * 1000, seq,
            bid * self.grid.tick, bid_qty, ask * self.grid.tick, ask_qty,
            self.grid.price_decimals, self.grid.qty_decimals,
            BID_PRESENT * (quote[0] is not None) + ASK_PRESENT * (quote[1] is not None), rest,
        )  # fmt: skip
