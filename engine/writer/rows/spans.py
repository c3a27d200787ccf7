"""Where streams have rows: spans of time that are claimed before rows fill them (table `row_span`).

The newest day's tables have no index on stream, for that costs a COPY a quarter. Spans cost next to
nothing, because most rows are in one that is claimed already. The first rows of a stream claim a
second. Where it goes on soon after, the next claim is longer, up to 64 s; where it pauses, a second
again. So a busy stream claims about once a minute, all of them at the same time, and of a rare one
the spans say where each row is.

Claims are of the venue's time, in ns since 1970, and begin and end with a microsecond, as the
database counts.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.data.flags import Flag
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK
from engine.writer.rows.slice import IntArray

SNAPSHOTS: Final = "book_snapshot"
"""Rows of a book that are a snapshot have spans of their own: books are read from one on."""
SPAN_MAX_NS: Final = 64_000_000_000

_SPAN_MIN_NS: Final = 1_000_000_000
_GROWTH: Final = 4
_NEAR: Final = 8
"""A stream that comes again within so many of its last claims is busy."""

StreamIdArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Claims:
    """New spans of one kind, in no order: from `from_ns` up to but not at `to_ns`."""

    stream_ids: IntArray
    from_ns: IntArray
    to_ns: IntArray
    step_ns: IntArray
    """How much the stream would have claimed, but that claims end together."""
    is_newest: npt.NDArray[np.bool_]
    """Whether later rows of the stream are to be compared with this one."""


class RowSpans:
    """The newest claim of each stream, by kind. Claims count once they are `kept`."""

    def __init__(self) -> None:
        self._newest: defaultdict[str, _Newest] = defaultdict(_Newest)

    def forget(self) -> None:
        """Claim everything anew."""
        self._newest.clear()

    def claims(
        self, kind: str, records: RecordArray, stream_ids: StreamIdArray
    ) -> Iterable[tuple[str, Claims]]:
        """What rows of a kind are in, and no claim yet. `stream_ids`: by slot, all resolved."""
        ids, times = stream_ids.take(records["stream"]), records["ts_event"]
        if (found := self._newest[kind].claims(ids, times)) is not None:
            yield kind, found
        if kind == BOOK.name:
            chosen = (records["flags"] & int(Flag.SNAPSHOT)) != 0
            if chosen.any():
                found = self._newest[SNAPSHOTS].claims(ids[chosen], times[chosen])
                if found is not None:
                    yield SNAPSHOTS, found

    def keep(self, claimed: Iterable[tuple[str, Claims]]) -> None:
        """They are stored."""
        for kind, claims in claimed:
            self._newest[kind].keep(claims)


class _Newest:
    """The newest claim of each stream, by its id."""

    def __init__(self) -> None:
        self._from_ns = np.zeros(0, np.int64)
        self._length_ns = np.zeros(0, np.uint64)
        self._step_ns = np.zeros(0, np.int64)

    def claims(self, ids: StreamIdArray, times: IntArray) -> Claims | None:
        """For the rows that are in no claim. Nearly always none, and then in five passes."""
        if int(ids.max()) >= len(self._from_ns):
            self._grow(2 * (int(ids.max()) + 1))
        after_ns = times - self._from_ns.take(ids)
        # One comparison for both ends: what is before the claim is negative, and as unsigned large.
        outside = after_ns.view(np.uint64) >= self._length_ns.take(ids)
        if not outside.any():
            return None
        return self._claim(ids[outside], times[outside])

    def keep(self, claims: Claims) -> None:
        """Compare later rows with these."""
        newest = claims.is_newest
        ids, from_ns = claims.stream_ids[newest], claims.from_ns[newest]
        self._from_ns[ids] = from_ns
        self._length_ns[ids] = claims.to_ns[newest] - from_ns
        self._step_ns[ids] = claims.step_ns[newest]

    def _claim(self, ids: StreamIdArray, times: IntArray) -> Claims:
        """A claim for the rows of a stream that are together, at most 64 s of them."""
        order = np.lexsort((times, ids))
        ids, times = ids[order], times[order]
        minutes = times // SPAN_MAX_NS
        begins = np.ones(len(ids), np.bool_)
        begins[1:] = (ids[1:] != ids[:-1]) | (minutes[1:] != minutes[:-1])
        ends = np.append(begins[1:], True)
        ids, first_ns, last_ns = ids[begins], times[begins] // 1000 * 1000, times[ends]
        old_ns, step_ns = self._from_ns[ids], self._step_ns[ids]
        pause_ns = first_ns - old_ns - self._length_ns[ids].astype(np.int64)
        is_later = first_ns > old_ns
        is_busy = is_later & (pause_ns < _NEAR * step_ns)
        step_ns = np.where(is_busy, np.minimum(_GROWTH * step_ns, SPAN_MAX_NS), _SPAN_MIN_NS)
        together_ns = (first_ns // step_ns + 1) * step_ns
        to_ns = np.maximum(
            np.where(is_busy, together_ns, first_ns + _SPAN_MIN_NS), (last_ns // 1000 + 1) * 1000
        )
        is_newest = is_later & np.append(ids[1:] != ids[:-1], True)
        return Claims(ids.astype(np.int64), first_ns, to_ns, step_ns, is_newest)

    def _grow(self, size: int) -> None:
        missing = size - len(self._from_ns)
        self._from_ns = np.append(self._from_ns, np.zeros(missing, np.int64))
        self._length_ns = np.append(self._length_ns, np.zeros(missing, np.uint64))
        self._step_ns = np.append(self._step_ns, np.zeros(missing, np.int64))
