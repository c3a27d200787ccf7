"""The price ladder of one stream, kept from rows of its book ring. Pure: no ring, no clock.

The rules are the ring's own (`shards.feeds.books`): rows apply in order, quantity 0 removes a
level, a SNAPSHOT event replaces the book, and after a row flagged AFTER_GAP the book is unknown
until the next SNAPSHOT. A ladder that joins late knows only the levels it has seen change; it says
`partial` until a snapshot comes by. What it shows then is true, and it is not all.
"""

import enum
import heapq
from operator import itemgetter
from typing import Final

import numpy as np

from engine.data.flags import Flag, Side
from engine.data.kind import RecordArray

Level = tuple[float, float]

LEVELS_MAX: Final = 20_000
"""A side. The farthest levels beyond it are forgotten: nobody looks there, and memory is finite."""

_AFTER_GAP: Final = int(Flag.AFTER_GAP)
_RESET: Final = int(Flag.SNAPSHOT | Flag.FIRST_IN_EVENT)
_LAST: Final = int(Flag.LAST_IN_EVENT)
_PRICE: Final = itemgetter(0)


class BookState(enum.StrEnum):
    """What the ladder can claim."""

    PARTIAL = "partial"
    KNOWN = "known"
    UNKNOWN = "unknown"


class Ladder:
    """Both sides of a book."""

    def __init__(self) -> None:
        self.state = BookState.PARTIAL
        self.is_settled = True
        """False in the middle of an event: what it would show never existed at the venue."""
        self.ts_event = 0
        self.seq = 0
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}

    def forget(self) -> None:
        """Rows were missed: start over with what comes next."""
        self._clear(BookState.PARTIAL)
        self.is_settled = True

    def apply(self, rows: RecordArray) -> None:
        """Take in rows of this one stream, in ring order."""
        if not len(rows):
            return
        self.is_settled = bool(rows["flags"][-1] & _LAST)
        self.ts_event, self.seq = int(rows["ts_event"][-1]), int(rows["seq"][-1])
        flags = rows["flags"]
        breaks = np.flatnonzero(((flags & _AFTER_GAP) != 0) | ((flags & _RESET) == _RESET))
        if len(breaks):
            # Only what follows the last break survives it.
            last = int(breaks[-1])
            is_reset = int(flags[last]) & _RESET == _RESET
            self._clear(BookState.KNOWN if is_reset else BookState.UNKNOWN)
            rows = rows[last:]
        if self.state is BookState.UNKNOWN:
            return
        self._set(self._bids, rows[rows["side"] == Side.BID], -1.0)
        self._set(self._asks, rows[rows["side"] == Side.ASK], 1.0)

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best `count` levels of each side, best first: (bids, asks)."""
        bids = heapq.nlargest(count, self._bids.items(), key=_PRICE)
        asks = heapq.nsmallest(count, self._asks.items(), key=_PRICE)
        return bids, asks

    def _clear(self, state: BookState) -> None:
        self._bids.clear()
        self._asks.clear()
        self.state = state

    def _set(self, side: dict[float, float], rows: RecordArray, away: float) -> None:
        if not len(rows):
            return
        # The last row of a price wins; `unique` keeps the first, so it looks from behind.
        prices, where = np.unique(rows["price"][::-1], return_index=True)
        quantities = rows["qty"][::-1][where]
        for price, qty in zip(prices.tolist(), quantities.tolist(), strict=True):
            if qty:
                side[price] = qty
            else:
                side.pop(price, None)
        if len(side) > LEVELS_MAX:
            nearest = heapq.nsmallest(LEVELS_MAX // 2, side, key=lambda price: price * away)
            keep = {price: side[price] for price in nearest}
            side.clear()
            side.update(keep)
            self.state = BookState.PARTIAL
