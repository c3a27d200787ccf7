"""Saying what is listened to: when each stream is heard, up to when, and why that ended.

Listening begins when data proves the subscription, not when it is sent: with the first row a stream
accepts (a book: with the snapshot that fits), and for liquidations, of which there may be none for
hours, 5 s after the subscription. It ends where the next gap would begin. Times are the venue's.

A row costs nothing: a stream says when it begins and when it ends, and a socket or poller (the
carrier) about once a second up to when all of its streams have been heard.
"""

from collections import deque
from typing import Final

from engine.base.clock import wall_ns
from engine.data.flags import CoverageEnd, CoverageMark
from engine.data.kinds import COVERAGE
from engine.data.ring import RingProducer

LATE_NS: Final = 2_000_000_000
"""A row is pushed up to a second after it happened and takes its time to get here; the two clocks
differ as well: of what happened that long before a connection was heard last nothing is known.
"""
BEGINS_AFTER_NS: Final = 1_000_000
"""Rows of the very millisecond of the first one may have come before it."""

_PACK: Final = COVERAGE.packer()
_WAITING_MAX: Final = 100_000


class CoverageLedger:
    """Writes coverage records; one that finds the ring full waits for the next `flush`."""

    def __init__(self, ring: RingProducer | None = None) -> None:
        self._ring = ring
        self._waiting: deque[tuple[int, ...]] = deque(maxlen=_WAITING_MAX)

    def began(self, slot: int, carrier: int, at: int, since: int) -> None:
        """Stream `slot` is heard from `at` on; when it was heard before, up to `since`."""
        self._say(slot, CoverageMark.BEGAN, 0, carrier, at, since)

    def ended(self, slot: int, carrier: int, at: int, end: CoverageEnd) -> None:
        """Stream `slot` was heard up to `at`."""
        self._say(slot, CoverageMark.ENDED, end, carrier, at, 0)

    def alive(self, slot: int, carrier: int, at: int) -> None:
        """All that began on `carrier` is heard up to `at`; `slot` is one of its streams. Said again
        in a second, so it is left out where it would have to wait.
        """
        if not self._waiting and self._ring is not None and self._ring.has_room():
            self._say(slot, CoverageMark.ALIVE, 0, carrier, at, 0)

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        while self._ring is not None and self._waiting and self._ring.has_room():
            offset = self._ring.offset_of(self._ring.reserve())
            _PACK(self._ring.buffer, offset, *self._waiting.popleft())

    def _say(self, slot: int, mark: CoverageMark, end: int, carrier: int, *times: int) -> None:
        if self._ring is not None:
            now_ns = wall_ns()
            self._waiting.append((slot, 0, mark, end, now_ns, now_ns, carrier, *times))
            self.flush()


class Carriers:
    """Names sockets and pollers: by when they were opened, each once."""

    _newest = 0

    @classmethod
    def name_new(cls) -> int:
        """A name that no other has had."""
        cls._newest = max(wall_ns(), cls._newest + 1)
        return cls._newest
