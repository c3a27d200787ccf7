"""What knobs keep from a sink of every row is declared: one gap a stream, which grows meanwhile.

That nobody wanted the rows does not help whoever reads the table later. The gap begins and grows in
the transaction whose cursor passes the rows, so its count is exact whatever dies; after a restart
of the writer a new one goes on where the last one ends. It names no ids (not every venue's have an
order) but the times of the first and the last row, and how many there were.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.data.flags import Flag
from engine.data.kind import RecordArray
from engine.data.kinds import KINDS, NOT_MARKET_DATA
from engine.writer.rows.knob_table import KnobTable

_AFTER_GAP = int(Flag.AFTER_GAP)
_TICK_KINDS = tuple(kind for kind in KINDS if kind not in NOT_MARKET_DATA)


@dataclass(slots=True)
class WithheldSpan:
    """Rows of one stream, held back between two cursors; `detected_ns` names their gap."""

    slot: int
    detected_ns: int
    from_ts: int
    to_ts: int
    count: int


class Withheld:
    """Collects what a flush holds back, remembers the gaps that still grow, and flags the rows that
    follow one.
    """

    def __init__(self, knobs: KnobTable, sink: str) -> None:
        self._knobs = knobs
        self._sink = sink
        self._growing: dict[int, int] = {}
        """Slot to `detected_ns` of its gap."""
        self._seen: set[tuple[str, int]] = set()
        """Whose rows are missing from the growing gaps on."""
        self._resumed: set[tuple[str, int]] = set()
        """Streams whose next row shall say that it follows a gap."""
        self._spans: dict[int, WithheldSpan] = {}
        self._noted: set[tuple[str, int]] = set()
        self._inherited = set(knobs.withheld(sink))
        """Held back when this writer began: an earlier one may have declared the gap."""
        self._marked: set[tuple[str, int]] = set()

    def begin(self) -> None:
        """A flush begins; one that failed is forgotten with what it noted."""
        self._spans, self._noted, self._marked = {}, set(), set()
        for slot in [slot for slot in self._growing if self._knobs.wants(self._sink, slot)]:
            del self._growing[slot]
            mine = {each for each in self._seen if each[1] == slot}
            self._seen -= mine
            self._resumed |= mine
        for slot in [slot for slot in self._inherited if self._knobs.wants(self._sink, slot)]:
            self._inherited.remove(slot)
            self._resumed.update((kind, slot) for kind in _TICK_KINDS)

    def note(self, kind: str, rows: RecordArray, now_ns: int) -> None:
        """These rows are held back by the present flush."""
        for slot in np.unique(rows["stream"]).tolist():
            times = rows["ts_event"][rows["stream"] == slot]
            first_ts, last_ts = int(times.min()), int(times.max())
            span = self._spans.get(slot)
            if span is None:
                detected_ns = self._growing.get(slot, now_ns)
                span = self._spans[slot] = WithheldSpan(slot, detected_ns, first_ts, last_ts, 0)
            span.from_ts, span.to_ts = min(span.from_ts, first_ts), max(span.to_ts, last_ts)
            span.count += len(times)
            self._noted.add((kind, slot))

    def mark(self, kind: str, rows: RecordArray) -> RecordArray:
        """The rows to store; the first of a stream after such a gap is flagged AFTER_GAP."""
        due = [slot for of, slot in self._resumed - self._marked if of == kind]
        if not due:
            return rows
        # Some wait for ever, their stream being gone: the usual case must stay one look at a mask.
        is_due = np.zeros(max(due) + 2, np.bool_)
        is_due[due] = True
        hits = np.flatnonzero(is_due[np.minimum(rows["stream"], len(is_due) - 1)])
        if not len(hits):
            return rows
        rows = rows.copy()
        slots, firsts = np.unique(rows["stream"][hits], return_index=True)
        rows["flags"][hits[firsts]] |= _AFTER_GAP
        self._marked.update((kind, slot) for slot in slots.tolist())
        return rows

    def lost(self, kind: str, slots: Iterable[int]) -> None:
        """Rows of these streams may be lost before those of the present flush."""
        if kind not in NOT_MARKET_DATA:
            self._resumed.update((kind, slot) for slot in slots)

    @property
    def spans(self) -> Iterable[WithheldSpan]:
        """What the present flush holds back, a stream each."""
        return self._spans.values()

    def committed(self) -> None:
        """The sink has the present flush."""
        for span in self._spans.values():
            self._growing[span.slot] = span.detected_ns
        self._seen |= self._noted
        self._resumed -= self._marked
