"""A shard's rings: one a record kind, published together, and the doorbell of the writer."""

import os
from collections.abc import Mapping

from engine.data.kinds import COVERAGE, KINDS
from engine.data.layout import Layout, ring_name
from engine.data.ring import RingProducer
from engine.data.segment import Segment, attach_segment


class ShardRings:
    """Producer ends of a shard's rings. Raises RingBusyError when another shard holds them."""

    def __init__(self, producers: Mapping[str, RingProducer]) -> None:
        self._all = dict(producers)
        self._used: tuple[RingProducer, ...] = ()
        self._doorbell_fd = -1
        self._segments: list[Segment] = []

    @classmethod
    def attach(cls, layout: Layout, shard: str, doorbell_fd: int) -> "ShardRings":
        """Attach the rings that are made for a shard of this name, as their only producer."""
        producers = {}
        segments = []
        for kind, spec in KINDS.items():
            segment = attach_segment(layout.ring_path(ring_name(shard, kind)), writable=True)
            segment.lock()
            segments.append(segment)
            producers[kind] = RingProducer(memoryview(segment.memory), spec)
        rings = cls(producers)
        rings._segments = segments
        rings._doorbell_fd = doorbell_fd
        return rings

    def __getitem__(self, kind: str) -> RingProducer:
        """The ring of a kind, for somebody who will write to it."""
        ring = self._all[kind]
        if ring not in self._used:
            # Coverage is shown last: what it claims to be there must be there.
            last = self._all.get(COVERAGE.name)
            self._used = tuple(sorted((*self._used, ring), key=lambda used: used is last))
        return ring

    def publish(self) -> None:
        """Show readers what was written, and wake the writer if it sleeps. Called once a read of a
        socket, so it looks only at rings that somebody writes to.
        """
        asleep = False
        for ring in self._used:
            if ring.is_dirty and ring.publish():
                asleep = True
        if asleep and self._doorbell_fd >= 0:
            try:
                os.eventfd_write(self._doorbell_fd, 1)
            except BlockingIOError:
                return  # the counter is full of rings nobody answered: the writer is not there

    @property
    def dropped_count(self) -> int:
        """Rows refused since the rings were made."""
        return sum(ring.dropped_count for ring in self._all.values())

    def close(self) -> None:
        """Publish and let go."""
        self.publish()
        for ring in self._all.values():
            ring.close()
        for segment in self._segments:
            segment.close()
