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
from math import inf
from typing import Final

from shards.feeds.book_rows import BookEvent, Level


class Link(enum.Enum):
    """What an event is to the one before."""

    FOLLOWS = "follows"
    """Nothing is missing between them."""
    REPEATS = "repeats"
    """What it says is stored, or newer things are."""
    BROKEN = "broken"
    """Something is missing; where a snapshot is the event, it may be."""
    RESTARTS = "restarts"
    """The venue counts anew. A delta follows all the same; what is between the last event and a
    snapshot, nobody can say."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """How a venue sums up a book. Of the levels that are summed few change with a message, so the
    word of each is kept. One that a single venue computes is in its decoder, which hands what was
    said to `PushedBook.on_event`.
    """

    words: Callable[[int, int], Callable[[float, float], str]]
    """(decimals of prices, of quantities) to what makes the word of a level, of its price and
    quantity; an empty one where they have more digits than a double can tell. It gets no texts:
    whether those end in zeros, it has to know.
    """
    of: Callable[[Sequence[str], Sequence[str]], int]
    """(words of bids, of asks, both best first) to the sum."""


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


_FOLLOWS, _REPEATS, _BROKEN = Link.FOLLOWS, Link.REPEATS, Link.BROKEN
"""By names of their own: looking up a member of an enum takes longer than the rest of a rule."""


def by_one(last_seq: int, event: BookEvent) -> Link:
    """Ids grow by one a delta; a snapshot with the first id comes after the venue has restarted."""
    seq = event.seq
    if event.is_snapshot:
        return Link.RESTARTS if seq <= 1 and last_seq > 0 else _replaces(last_seq, seq)
    if seq == last_seq + 1:
        return _FOLLOWS
    return _REPEATS if seq <= last_seq else _BROKEN


def by_previous(last_seq: int, event: BookEvent) -> Link:
    """Each delta names the one before; ids may jump, and never go back."""
    if event.is_snapshot:
        return _replaces(last_seq, event.seq)
    if event.prev_seq == last_seq or event.prev_seq < last_seq < event.seq:
        return _FOLLOWS
    return _REPEATS if event.seq <= last_seq else _BROKEN


def by_previous_or_reset(last_seq: int, event: BookEvent) -> Link:
    """The same, with two exceptions: a delta without change has its own id as the one before
    (a sign of life), and one that follows may have a smaller id: counting begins anew.
    """
    if not event.is_snapshot and event.prev_seq == last_seq:
        return Link.RESTARTS if event.seq < last_seq else _FOLLOWS
    return by_previous(last_seq, event)


def by_time(last_seq: int, event: BookEvent) -> Link:
    """There are no ids, and `seq` is a time: only a checksum tells what is missing."""
    if event.is_snapshot:
        return _replaces(last_seq, event.seq)
    return _REPEATS if event.seq < last_seq else _FOLLOWS


def _replaces(last_seq: int, seq: int) -> Link:
    """Of a snapshot, whose id is that of the last delta in it: it may hold more than is stored."""
    return _REPEATS if seq <= last_seq else _BROKEN


_MANTISSA_MAX: Final = 10**15
"""Of more than 15 digits a double does not tell the last."""


def _digits(price_decimals: int, qty_decimals: int) -> Callable[[float, float], str]:
    """Of price and quantity, without point and leading zeros."""
    price_scale, qty_scale = 10.0**price_decimals, 10.0**qty_decimals

    def word(price: float, qty: float) -> str:
        price_mantissa, qty_mantissa = int(price * price_scale + 0.5), int(qty * qty_scale + 0.5)
        if price_mantissa >= _MANTISSA_MAX or qty_mantissa >= _MANTISSA_MAX:
            return ""
        return f"{price_mantissa}{qty_mantissa}"

    return word


def _crc(bids: Sequence[str], asks: Sequence[str]) -> int:
    return zlib.crc32(("".join(asks) + "".join(bids)).encode())


CRC_OF_MANTISSAS: Final = Checksum(_digits, _crc)
"""CRC32 over the digits of asks, then of bids."""


class KeptBook:
    """A book in Python, for rules that check sums. A level costs a search, and a move in a list of
    at most `depth` prices where it comes or goes.
    """

    def __init__(self, rule: BookRule, price_decimals: int, qty_decimals: int) -> None:
        assert rule.checksum is not None
        self._sum_of = rule.checksum.of
        word = rule.checksum.words(price_decimals, qty_decimals)
        self._bids, self._asks = (_KeptSide(sign, rule, word) for sign in (-1.0, 1.0))

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
        bids, asks = self._bids, self._asks
        is_told = bids.is_told and asks.is_told
        return self._sum_of(bids.words, asks.words) if is_told else None

    def has(self, event: BookEvent) -> bool:
        """Whether it is so already what an event says."""
        return self._bids.has(event.bids) and self._asks.has(event.asks)


class _KeptSide:
    """Levels of one side, best first: by price, or by its negative (`sign`)."""

    def __init__(self, sign: float, rule: BookRule, word: Callable[[float, float], str]) -> None:
        self._sign, self._depth, self._summed = sign, rule.depth, rule.summed
        self._word = word
        self._keys: list[float] = []
        self._qty: dict[float, float] = {}
        self._word_of: dict[float, str] = {}
        """By key, of levels that are or were among the best and have not changed since."""
        self._edge = inf
        """The last key of the best."""
        self.words: list[str] = []
        """Of the levels that are summed up."""
        self.is_told = True
        """Whether a double tells the digits of all of them."""

    def put(self, levels: Iterable[Level]) -> None:
        """Set or remove levels, then forget those beyond the depth."""
        keys, qtys, sign, edge = self._keys, self._qty, self._sign, self._edge
        word, word_of, is_summed = self._word, self._word_of, False
        for price, qty in levels:
            key = sign * price
            if key > edge:
                word_of.pop(key, None)
            else:
                word_of[key] = word(price, qty)
                is_summed = True
            if qty:
                if key not in qtys:
                    insort(keys, key)
                qtys[key] = qty
            elif qtys.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]
        if self._depth and len(keys) > self._depth:
            for key in keys[self._depth :]:
                del qtys[key]
                word_of.pop(key, None)
            del keys[self._depth :]
        if is_summed:
            self._sum_up()

    def _sum_up(self) -> None:
        """The words of the best levels, most of which are known."""
        best, known = self._keys[: self._summed], self._word_of
        if not all(map(known.get, best)):
            for key in best:
                if key not in known:
                    known[key] = self._word(self._sign * key, self._qty[key])
        self.words = [known[key] for key in best]
        self.is_told = "" not in self.words
        self._edge = best[-1] if len(best) == self._summed else inf

    def best(self, count: int | None) -> list[Level]:
        """The best `count` levels; None: all."""
        return [(self._sign * key, self._qty[key]) for key in self._keys[:count]]

    def has(self, levels: Iterable[Level]) -> bool:
        """Whether all levels are like this already."""
        return all(self._qty.get(self._sign * price, 0.0) == qty for price, qty in levels)
