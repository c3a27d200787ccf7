"""Prices by the minute, from the rows of one stream of trades. Pure: no ring, no clock.

A candle is of the trades whose times at the venue lie in its minute, in whatever order they come.
One that may lack trades says so (`is_part`): that in which the rows begin, and those in which some
were missed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.data.flags import Side
from engine.data.kind import RecordArray

MINUTE_NS: Final = 60_000_000_000
CANDLES_MAX: Final = 1440
"""A day. Older ones are forgotten."""


@dataclass(slots=True)
class Candle:
    """One minute, which began at `minute` (minutes since 1970). Sums are floats: reading aids."""

    minute: int
    open: float
    high: float
    low: float
    close: float
    volume: float = 0.0
    buy_volume: float = 0.0
    """What takers bought."""
    first_ns: int = 0
    last_ns: int = 0
    is_part: bool = False


class Candles:
    """The minutes of one stream, and which of them have changed since they were told."""

    def __init__(self) -> None:
        self._by_minute: dict[int, Candle] = {}
        self._changed: set[int] = set()
        self._has_begun = self._is_broken = False

    def clear(self) -> None:
        """Begin anew: other rows follow."""
        self._by_minute.clear()
        self._changed.clear()
        self._has_begun = self._is_broken = False

    def miss(self) -> None:
        """Rows were missed: the minute before and the one that follows may lack some."""
        for minute in sorted(self._by_minute)[-1:]:
            self._by_minute[minute].is_part = True
            self._changed.add(minute)
        self._is_broken = True

    def apply(self, rows: RecordArray) -> None:
        """Take in trades, in ring order."""
        if not len(rows):
            return
        rows = rows[np.argsort(rows["ts_event"], kind="stable")]
        minutes = rows["ts_event"] // MINUTE_NS
        starts = np.flatnonzero(np.diff(minutes, prepend=minutes[0] - 1))
        for part in np.split(rows, starts[1:]):
            self._add(int(part["ts_event"][0]) // MINUTE_NS, part)
        for minute in sorted(self._by_minute)[:-CANDLES_MAX]:
            del self._by_minute[minute]
            self._changed.discard(minute)

    def changed(self) -> Iterator[Candle]:
        """Those that have changed since the last call, oldest first."""
        changed, self._changed = sorted(self._changed), set()
        return (self._by_minute[minute] for minute in changed)

    def _add(self, minute: int, rows: RecordArray) -> None:
        """Rows of one minute, in the order of their times."""
        prices, times = rows["price"], rows["ts_event"]
        first_ns, last_ns = int(times[0]), int(times[-1])
        begin, end = float(prices[0]), float(prices[-1])
        candle = self._by_minute.get(minute)
        if candle is None:
            candle = Candle(minute, begin, begin, begin, end, first_ns=first_ns, last_ns=last_ns)
            candle.is_part = not self._has_begun or self._is_broken
            self._has_begun, self._is_broken = True, False
            self._by_minute[minute] = candle
        if first_ns < candle.first_ns:
            candle.open, candle.first_ns = begin, first_ns
        if last_ns >= candle.last_ns:
            candle.close, candle.last_ns = end, last_ns
        candle.high = max(candle.high, float(prices.max()))
        candle.low = min(candle.low, float(prices.min()))
        candle.volume += float(rows["qty"].sum())
        candle.buy_volume += float(rows["qty"][rows["side"] == Side.BUY].sum())
        self._changed.add(minute)
