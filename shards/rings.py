"""A shard's rings: one a record kind, published together, and the doorbell of the writer."""

import os

from engine.layout import Layout, ring_name
from engine.records import SPECS, RecordKind
from engine.ring import RingProducer
from engine.segment import Segment, attach_segment


class ShardRings:
    """Producer ends of a shard's rings. Raises RingBusyError when another shard holds them."""

    def __init__(self, trade: RingProducer, book: RingProducer, gap: RingProducer) -> None:
        self.trade = trade
        self.book = book
        self.gap = gap
        self._all = (trade, book, gap)
        self._doorbell_fd = -1
        self._segments: list[Segment] = []

    @classmethod
    def attach(cls, layout: Layout, shard: int, doorbell_fd: int) -> "ShardRings":
        """Attach the rings the writer has made for this shard, as their only producer."""
        producers = {}
        segments = []
        for kind, spec in SPECS.items():
            segment = attach_segment(layout.ring_path(ring_name(shard, kind)), writable=True)
            segment.lock()
            segments.append(segment)
            producers[kind] = RingProducer(memoryview(segment.memory), spec)
        order = (RecordKind.TRADE, RecordKind.BOOK, RecordKind.GAP)
        rings = cls(*(producers[kind] for kind in order))
        rings._segments = segments
        rings._doorbell_fd = doorbell_fd
        return rings

    def publish(self) -> None:
        """Show readers what was written, and wake the writer if it sleeps."""
        asleep = False
        for ring in self._all:
            if ring.is_dirty and ring.publish():
                asleep = True
        if asleep and self._doorbell_fd >= 0:
            try:
                os.eventfd_write(self._doorbell_fd, 1)
            except BlockingIOError:
                return  # the counter is full of rings nobody answered: the writer is not there

    def heartbeat(self) -> None:
        """Say that this producer lives."""
        for ring in self._all:
            ring.heartbeat()

    @property
    def dropped_count(self) -> int:
        """Rows refused since the rings were made."""
        return sum(ring.dropped_count for ring in self._all)

    def close(self) -> None:
        """Publish and let go."""
        self.publish()
        for ring in self._all:
            ring.close()
        for segment in self._segments:
            segment.close()
