"""What a venue sent for a stream and no row can be made of, until the gap that names it."""

from typing import Final, NamedTuple

from shards.feeds.declared.gaps import Edges

UNKNOWN: Final = -1
"""Rows, where it is not even known whether the stream was meant."""


class Unreadable(NamedTuple):
    """One element of a message, received at `ts_recv` (ns). `rows` would have been made of it, or
    UNKNOWN. `seq`, `prev_seq` and `ts_event` (ns) are what it says of itself, where that could be
    read. By its `mark`, the hash of its bytes, it is known when two sockets bring it.
    """

    ts_recv: int
    rows: int = 1
    seq: int | None = None
    prev_seq: int | None = None
    ts_event: int | None = None
    mark: int = 0


class UnreadableSpan:
    """Elements of one stream between two of its rows."""

    __slots__ = ("_first", "_from_ts", "_last_seq", "_to_ts", "elements", "is_open", "rows")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.is_open = False
        self.elements = self.rows = 0
        self._from_ts = self._to_ts = 0
        self._first: Unreadable | None = None
        self._last_seq: int | None = None

    @property
    def first_seq(self) -> int | None:
        """The id of the first one, if it could be read."""
        return self._first.seq if self._first else None

    def add(self, item: Unreadable, last_ts: int) -> None:
        """Count one that follows a row of `last_ts` (0: none yet)."""
        at = item.ts_event or item.ts_recv
        since = min(last_ts, at) if last_ts else at
        self._from_ts = min(self._from_ts, since) if self.is_open else since
        self._to_ts = max(self._to_ts, last_ts, at)
        self.is_open = True
        if item.rows > 0:
            self.rows += item.rows
            self.elements += 1
            self._first = self._first or item
            self._last_seq = item.seq

    def links(self, last_seq: int, next_seq: int) -> bool:
        """Whether what is missing between a row of `last_seq` and one that follows `next_seq` may
        be just this: what could be read of it does not say otherwise.
        """
        if self._first is None:
            return False
        begins = self._first.prev_seq in (None, last_seq)
        return begins and self._last_seq in (None, next_seq)

    def take(self, next_ts: int) -> Edges:
        """Return what could not be read, before a row of `next_ts`, and start afresh. One has its
        own id as edges; several have none, as other rows' ids may lie between.
        """
        seq = (self.first_seq or 0) if self.elements == 1 else 0
        to_ts = max(self._to_ts, next_ts)
        edges = Edges(seq, seq, self._from_ts, to_ts, self.rows or UNKNOWN)
        self._clear()
        return edges
