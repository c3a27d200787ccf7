"""One stream's rows, read from its shard's ring without disturbing anybody.

A ring is shared by all streams of a shard; the follower copies what is new and keeps its own rows.
It has no say in the ring's life: the file may be missing, and may be replaced at any time.
"""

from collections.abc import Iterator
from typing import Final

from engine.base.errors import RingLayoutError, SegmentError
from engine.data.kind import Kind, RecordArray
from engine.data.layout import Layout, ring_name
from engine.data.ring import RingTap
from engine.data.segment import Segment, attach_segment

_ROWS_A_POLL: Final = 32_768
"""A poll copies 1.8 MB at most, about a millisecond: the event loop has others to serve."""


class RingFollower:
    """A tap on the ring of one shard and kind, attached when the ring is there."""

    def __init__(self, layout: Layout, kind: Kind) -> None:
        self._layout = layout
        self._kind = kind
        self._segment: Segment | None = None
        self._tap: RingTap | None = None
        self.problem = "not attached"
        """Why there is no ring; "" while attached."""

    @property
    def is_attached(self) -> bool:
        """Whether a ring is being read."""
        return self._tap is not None

    @property
    def epoch(self) -> int:
        """Which ring is being read; 0 for none."""
        return self._tap.epoch if self._tap else 0

    def attach(self, shard: str, history_rows: int) -> bool:
        """Attach the ring of a shard's process, `history_rows` back (half of the ring at most: the
        older half may be overwritten while it is being read). Returns whether there is one.
        """
        self.detach("not attached")
        path = self._layout.ring_path(ring_name(shard, self._kind.name))
        try:
            segment = attach_segment(path, writable=False)
        except SegmentError:
            self.problem = f"{shard} has no {self._kind.name} ring yet"
            return False
        memory = memoryview(segment.memory)
        try:
            tap = RingTap(memory, self._kind)
        except (RingLayoutError, SegmentError) as error:
            memory.release()
            segment.close()
            self.problem = str(error)
            return False
        tap.cursor = max(0, tap.head - min(history_rows, tap.capacity // 2))
        self._segment, self._tap, self.problem = segment, tap, ""
        return True

    def detach(self, problem: str) -> None:
        """Let go of the ring, if there is one."""
        self.problem = problem
        if self._tap is not None:
            self._tap.close()
            self._tap = None
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    @property
    def is_replaced(self) -> bool:
        """Whether the attached file is no longer the ring of that name (a new engine made one)."""
        return self._segment is not None and self._segment.is_removed

    @property
    def lapped_count(self) -> int:
        """Rows of the whole ring that were overwritten before they were read."""
        return self._tap.lapped_count if self._tap else 0

    @property
    def is_behind(self) -> bool:
        """Whether more than one portion waits to be read."""
        return self._tap is not None and self._tap.head - self._tap.cursor > _ROWS_A_POLL

    def poll(self, slot: int, polls: int) -> Iterator[RecordArray]:
        """The new rows of `slot`, in at most `polls` portions; the rest waits for the next call."""
        for rows in self.poll_all(polls):
            yield rows[rows["stream"] == slot]

    def poll_all(self, polls: int) -> Iterator[RecordArray]:
        """The same of all streams of the ring."""
        for _ in range(polls):
            # Looked up each time: the caller may have let go of the ring between two portions.
            tap = self._tap
            if tap is None or tap.cursor == tap.head:
                return
            yield tap.poll(_ROWS_A_POLL)
