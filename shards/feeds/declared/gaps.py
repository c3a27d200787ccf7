"""Declaring what is missing: gap records, and the bookkeeping of rows a full ring refused."""

from collections import deque
from typing import NamedTuple

from engine.data.flags import GapReason, GapState
from engine.data.kinds import GAP
from engine.data.ring import RingProducer

_PACK_GAP = GAP.packer()


class Edges(NamedTuple):
    """What is missing: ids [from_seq, to_seq] between two venue times (ns). `missing` counts
    rows, -1 where the venue gives no way to know.
    """

    from_seq: int
    to_seq: int
    from_ts: int
    to_ts: int
    missing: int


class GapLedger:
    """Writes gap records; one that finds the ring full waits for the next `flush`."""

    def __init__(self, ring: RingProducer) -> None:
        self._ring = ring
        self._waiting: deque[tuple[int, ...]] = deque()

    def declare(
        self, slot: int, reason: GapReason, state: GapState, edges: Edges, now_ns: int
    ) -> None:
        """Declare a gap of stream `slot`, detected at `now_ns`."""
        self._waiting.append((slot, 0, reason, state, now_ns, now_ns, *edges))
        self.flush()

    @property
    def is_waiting(self) -> bool:
        """Whether something is not on record yet."""
        return bool(self._waiting)

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        while self._waiting and self._ring.has_room():
            offset = self._ring.offset_of(self._ring.reserve())
            _PACK_GAP(self._ring.buffer, offset, *self._waiting.popleft())


class DropSpan:
    """Rows of one stream refused by a full ring, until the gap that names them is declared."""

    __slots__ = ("count", "first_seq", "first_ts", "last_seq", "last_ts")

    def __init__(self) -> None:
        self.count = 0
        self.first_seq = self.last_seq = 0
        self.first_ts = self.last_ts = 0

    def add(self, first_seq: int, last_seq: int, ts_event: int, count: int) -> None:
        """Count refused rows with ids [first_seq, last_seq]."""
        if not self.count:
            self.first_seq, self.first_ts = first_seq, ts_event
        self.count += count
        self.last_seq, self.last_ts = last_seq, ts_event

    def take(self) -> Edges:
        """Return what was lost and start afresh."""
        edges = Edges(self.first_seq, self.last_seq, self.first_ts, self.last_ts, self.count)
        self.count = 0
        return edges
