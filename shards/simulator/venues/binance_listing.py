"""One symbol of the simulated Binance venue: market, id counters, recent trades, book chains.

Update ids are one sequence per symbol: every change of the book takes ids from it, depth events
say which they cover (`U` to `u`), and a best bid and offer says as of which it holds. Each speed of
the depth stream is a chain of its own over that sequence: `pu` is the `u` it said last.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from shards.simulator.core.instruments import BINANCE_LINEAR, Grid, decimal_text
from shards.simulator.core.ledger import Rows
from shards.simulator.core.market import Market, Step
from shards.simulator.core.trade_frames import AggTradeRenderer, AggTrades

__all__ = ["DepthChain", "SymbolState"]

_FIRST_TRADE_ID = 4_100_000_000
_FIRST_RAW_ID = 8_100_000_000
_FIRST_UPDATE_ID = 9_700_000_000_000
_TEXT_CACHE = 8192

_HISTORY = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("first", "<i8"),
        ("tick", "<i4"),
        ("size", "<u2"),
        ("fills", "u1"),
        ("buy", "?"),
    ]
)


@dataclass(slots=True)
class DepthChain:
    """One speed of the depth stream: what changed since its last event."""

    last: int
    """`u` of the last event."""
    first: int = 0
    """`U` of the next event; 0 while nothing changed."""
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)

    def absorb(self, first: int, change: Step) -> None:
        """Take a change into the next event."""
        self.first = self.first or first
        self.bids.update(change.bids)
        self.asks.update(change.asks)

    def restart(self, last: int) -> None:
        """Begin the next event behind this id."""
        self.last, self.first = last, 0
        self.bids, self.asks = {}, {}


class SymbolState:
    """One symbol: its market, its id counters, its renderers and its recent trades."""

    def __init__(
        self, index: int, number: int, instrument: Grid, seed: int, history_rows: int
    ) -> None:
        """Open the book of symbol `index`, which the ledger knows under `number`."""
        self.index = index
        self.number = number
        self.instrument = instrument
        self.market = self._open_market(instrument, seed)
        self.next_id = _FIRST_TRADE_ID + 1_000_003 * index
        self.next_raw = _FIRST_RAW_ID + 1_000_003 * index
        self.last_update = _FIRST_UPDATE_ID + 1_000_003 * index
        self.chains = {"depth@100ms": DepthChain(self.last_update)}
        """Depth streams somebody has asked for, by their name behind the symbol."""
        self.steps = 0
        self.touch = self.market.touch()
        """The best bid and offer said last."""
        self.served_update = 0
        """As of which update id REST gave out the best bid and offer last."""
        self.halted = False
        self.first_id = self.next_id
        self._seed = seed
        self._oldest_id = self.first_id
        self._history_rows = history_rows
        self._history: Rows = np.empty(1024, _HISTORY)
        self._renderers: dict[bool, AggTradeRenderer] = {}
        self._price_texts: dict[int, str] = {}

    def _open_market(self, instrument: Grid, seed: int) -> Market:
        activity = max(5, 22 // (1 + self.index // 3))
        return Market(instrument, seed, 2 * self.index + BINANCE_LINEAR, activity)

    def change_grid(self, instrument: Grid) -> None:
        """Trade on another grid from now on: a book, sizes and texts of its own."""
        self.instrument = instrument
        self.market = self._open_market(instrument, self._seed)
        self._oldest_id = self.next_id
        self._renderers.clear()
        self._price_texts.clear()

    def chain(self, name: str) -> DepthChain:
        """Give the chain of a depth stream, opened now if nobody asked before."""
        if name not in self.chains:
            self.chains[name] = DepthChain(self.last_update)
        return self.chains[name]

    def next_update(self) -> int:
        """Give the first id of the next change: some ids go to orders nobody sees."""
        return self.last_update + 2 + (self.last_update * 7) % 41

    def advance(self, change: Step, first: int) -> None:
        """Give a change its update ids, `first` and following, and put it into all chains."""
        self.last_update = first + max(0, len(change.bids) + len(change.asks) - 1)
        for chain in self.chains.values():
            chain.absorb(first, change)

    def renderer(self, *, combined: bool) -> AggTradeRenderer:
        """Give the trade renderer for bare or wrapped frames."""
        if combined not in self._renderers:
            market = self.market
            self._renderers[combined] = AggTradeRenderer(
                self.instrument, market.sizes, market.plain_sizes, combined=combined
            )
        return self._renderers[combined]

    def trade(self, count: int, now_ms: int) -> AggTrades:
        """Let `count` trades happen now. Their ids are used up, sent or not."""
        tape = self.market.take(count)
        next_raw = tape.fills.cumsum() + self.next_raw
        trades = AggTrades(
            ts_ms=now_ms,
            first_id=self.next_id,
            ticks=self.market.prices(tape),
            size=tape.size,
            buy=tape.buy,
            first_raw=next_raw - tape.fills,
            last_raw=next_raw - 1,
        )
        self._remember(trades)
        self.next_id += count
        self.next_raw = int(next_raw[-1])
        return trades

    def _remember(self, trades: AggTrades) -> None:
        count = len(trades.ticks)
        used = self.next_id - self.first_id
        capacity = len(self._history)
        while capacity < self._history_rows and used + count > capacity:
            self._history = np.concatenate([self._history, np.empty(capacity, _HISTORY)])
            capacity *= 2
        at = used % capacity
        first_part = min(count, capacity - at)
        self._store(at, trades, slice(0, first_part))
        if first_part < count:
            self._store(0, trades, slice(first_part, count))

    def _store(self, at: int, trades: AggTrades, part: slice) -> None:
        rows = self._history[at : at + part.stop - part.start]
        rows["ts_ms"] = trades.ts_ms
        rows["tick"] = trades.ticks[part]
        rows["size"] = trades.size[part]
        rows["first"] = trades.first_raw[part]
        rows["fills"] = trades.last_raw[part] - trades.first_raw[part] + 1
        rows["buy"] = trades.buy[part]

    def recent_trades(self, from_id: int | None, limit: int) -> list[dict[str, object]]:
        """Answer `GET /aggTrades`: also trades that were withheld from the stream."""
        oldest = max(self._oldest_id, self.next_id - len(self._history))
        first = self.next_id - limit if from_id is None else from_id
        first = max(oldest, first)
        answer: list[dict[str, object]] = []
        qty_decimals = self.instrument.qty_decimals
        for trade_id in range(first, min(first + limit, self.next_id)):
            row = self._history[(trade_id - self.first_id) % len(self._history)]
            size = int(row["size"])
            answer.append(
                {
                    "a": trade_id,
                    "p": self.price_text(int(row["tick"])),
                    "q": decimal_text(int(self.market.sizes[size]), qty_decimals),
                    "nq": decimal_text(int(self.market.plain_sizes[size]), qty_decimals),
                    "f": int(row["first"]),
                    "l": int(row["first"]) + int(row["fills"]) - 1,
                    "T": int(row["ts_ms"]),
                    "m": not row["buy"],
                }
            )
        return answer

    def price_text(self, tick: int) -> str:
        """Print a price."""
        text = self._price_texts.get(tick)
        if text is None:
            if len(self._price_texts) > _TEXT_CACHE:
                self._price_texts.clear()
            text = decimal_text(tick * self.instrument.tick, self.instrument.price_decimals)
            self._price_texts[tick] = text
        return text

    def levels_text(self, levels: Iterable[tuple[int, int]]) -> str:
        """Print levels as the inside of a JSON array of [price, quantity]."""
        price, decimals = self.price_text, self.instrument.qty_decimals
        return ",".join(
            f'["{price(tick)}","{decimal_text(qty, decimals)}"]' for tick, qty in levels
        )
