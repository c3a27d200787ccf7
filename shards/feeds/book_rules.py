"""How venues chain the messages of a pushed book: pure functions, one a kind of chain.

A rule looks at the last sequence that is stored and at the next event, and says what the one is to
the other. Levels are absolute in all of them: a delta that reaches back over what is stored brings
the book to the same state as one that begins where it ends.

Decoders fill in `prev_seq` where the venue says it; where ids grow by one it is `seq - 1`, and
where there are no ids `seq` is the venue's time in its smallest unit and `prev_seq` 0. A first
delta on an empty book (`prev_seq` 0 where ids are large) is a snapshot.
"""

import enum
import zlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shards.feeds.book_rows import BookEvent, Level


class Link(enum.Enum):
    """What an event is to the one before."""

    FOLLOWS = "follows"
    """Nothing is missing between them."""
    REPEATS = "repeats"
    """What it says is stored, or newer things are."""
    BROKEN = "broken"
    """Something is missing; in front of a snapshot, it may be."""
    RESTARTS = "restarts"
    """The venue counts anew. A delta follows all the same; what is between the last event and a
    snapshot, nobody can say."""


Checksum = Callable[[Sequence[Level], Sequence[Level], int, int], int | None]
"""(bids, asks, both best first, decimals of prices, of quantities) to the venue's checksum; None
where numbers have more digits than a double can tell.
"""


@dataclass(frozen=True, slots=True)
class BookRule:
    """How a channel's book is proven whole: `step` judges (last seq, event).

    With a `checksum`, which is made of the best `summed` levels a side, the book is kept here too,
    `depth` levels a side (0: all), and what the venue says of it is compared after each event. A
    reader of the rows keeps no more levels than that either: a venue does not remove what falls out
    of its depth.
    """

    step: Callable[[int, BookEvent], Link]
    checksum: Checksum | None = None
    summed: int = 10
    depth: int = 0


def by_one(last_seq: int, event: BookEvent) -> Link:
    """Ids grow by one a message, snapshots included; a snapshot with the first id comes after the
    venue has restarted.
    """
    seq = event.seq
    if seq == last_seq + 1:
        return Link.FOLLOWS
    if event.is_snapshot and seq <= 1 and last_seq > 0:
        return Link.RESTARTS
    return Link.REPEATS if seq <= last_seq else Link.BROKEN


def by_previous(last_seq: int, event: BookEvent) -> Link:
    """Each delta names the one before; ids may jump, and never go back."""
    if event.is_snapshot:
        return _replaces(last_seq, event.seq)
    if event.prev_seq == last_seq or event.prev_seq < last_seq < event.seq:
        return Link.FOLLOWS
    return Link.REPEATS if event.seq <= last_seq else Link.BROKEN


def by_previous_or_reset(last_seq: int, event: BookEvent) -> Link:
    """The same, with two exceptions: a delta without change has its own id as the one before
    (a sign of life), and one that follows may have a smaller id: counting begins anew.
    """
    if not event.is_snapshot and event.prev_seq == last_seq:
        return Link.RESTARTS if event.seq < last_seq else Link.FOLLOWS
    return by_previous(last_seq, event)


def by_time(last_seq: int, event: BookEvent) -> Link:
    """There are no ids, and `seq` is a time: only a checksum tells what is missing."""
    if event.is_snapshot:
        return _replaces(last_seq, event.seq)
    return Link.REPEATS if event.seq < last_seq else Link.FOLLOWS


def by_arrival(last_seq: int, event: BookEvent) -> Link:
    """The venue chains nothing: `seq` is its time in microseconds, 0 of a snapshot that says none,
    and `prev_seq` that of the event before on the same socket, as the decoder remembers it. Two
    sockets are told apart by that; what is lost on the way, nothing tells (`UnchainedBook`).
    """
    if event.is_snapshot and not event.seq:
        return Link.BROKEN
    return by_previous(last_seq, event)


def _replaces(last_seq: int, seq: int) -> Link:
    """Of a snapshot that does not say what it follows."""
    return Link.REPEATS if seq <= last_seq else Link.BROKEN


_MANTISSA_MAX: Final = 10**15
"""Of more than 15 digits a double does not tell the last."""


def crc_of_mantissas(
    bids: Sequence[Level], asks: Sequence[Level], price_decimals: int, qty_decimals: int
) -> int | None:
    """CRC32 over asks, then bids: of each level the digits of price and quantity, without point and
    leading zeros.
    """
    words = [
        _digits(price, qty, price_decimals, qty_decimals)
        for side in (asks, bids)
        for price, qty in side
    ]
    return None if "" in words else zlib.crc32("".join(words).encode())


@lru_cache(1 << 14)
def _digits(price: float, qty: float, price_decimals: int, qty_decimals: int) -> str:
    """The digits of a level; nothing where a double does not tell them. Of the levels that are
    summed up after a message few have changed since the one before.
    """
    mantissas = round(price * 10.0**price_decimals), round(qty * 10.0**qty_decimals)
    return "" if max(mantissas) >= _MANTISSA_MAX else f"{mantissas[0]}{mantissas[1]}"


class KeptBook:
    """A book in Python, for rules that check sums. A level costs a search, and a move in a list of
    at most `depth` prices where it comes or goes.
    """

    def __init__(self, rule: BookRule, price_decimals: int, qty_decimals: int) -> None:
        assert rule.checksum is not None
        self._checksum, self._summed = rule.checksum, rule.summed
        self._decimals = price_decimals, qty_decimals
        self._bids, self._asks = _KeptSide(-1.0, rule.depth), _KeptSide(1.0, rule.depth)

    @property
    def levels(self) -> tuple[list[Level], list[Level]]:
        """All bids and asks, best first."""
        return self._bids.best(None), self._asks.best(None)

    def put(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Set or remove levels."""
        self._bids.put(bids)
        self._asks.put(asks)

    def apply(self, event: BookEvent) -> int | None:
        """Take an event on (a snapshot: into an empty book); returns the checksum after it, if it
        can be told.
        """
        self.put(event.bids, event.asks)
        bids, asks = (side.best(self._summed) for side in (self._bids, self._asks))
        return self._checksum(bids, asks, *self._decimals)

    def has(self, event: BookEvent) -> bool:
        """Whether it is so already what an event says."""
        return self._bids.has(event.bids) and self._asks.has(event.asks)


class _KeptSide:
    """Levels of one side, best first: by price, or by its negative (`sign`)."""

    def __init__(self, sign: float, depth: int) -> None:
        self._sign, self._depth = sign, depth
        self._keys: list[float] = []
        self._qty: dict[float, float] = {}

    def put(self, levels: Iterable[Level]) -> None:
        """Set or remove levels, then forget those beyond the depth."""
        keys, qtys, sign = self._keys, self._qty, self._sign
        for price, qty in levels:
            key = sign * price
            if qty:
                if key not in qtys:
                    insort(keys, key)
                qtys[key] = qty
            elif qtys.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]
        if self._depth:
            for key in keys[self._depth :]:
                del qtys[key]
            del keys[self._depth :]

    def best(self, count: int | None) -> list[Level]:
        """The best `count` levels; None: all."""
        return [(self._sign * key, self._qty[key]) for key in self._keys[:count]]

    def has(self, levels: Iterable[Level]) -> bool:
        """Whether all levels are like this already."""
        return all(self._qty.get(self._sign * price, 0.0) == qty for price, qty in levels)
