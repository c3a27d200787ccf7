"""A ring: one producer, many readers, one numpy dtype, absolute sequence numbers.

Layout of the file (little endian). Each word that different processes write has a cache line of
its own, and is written with one aligned 8-byte store.

    offset  size  what
         0     8  magic  b"FTSRING1"
         8     8  layout version
        16    16  fingerprint of the record (`Kind.fingerprint`)
        32     8  capacity, records, a power of two
        40     8  item size, bytes
        48     8  epoch: nanoseconds at creation; with the sequence it names a record for ever
       128     8  head: sequence of the next record (producer)
       192     8  released: records below it may be overwritten (writer)
       256     8  dropped: records refused because the ring was full (producer)
       320     8  reserved (once a heartbeat)
       384     8  waiting: 1 while the writer sleeps and wants the doorbell (writer)
      4096     -  records

The producer writes records, then the head; a reader never sees a record at or above the head. The
order of the two stores is kept by x86-64 (total store order); on ARM this module needs a fence and
refuses to run until it has been proven there.
The producer never waits: without room it drops the newest record and counts it.
"""

import platform
from collections.abc import Sequence
from struct import Struct
from typing import Final

import numpy as np

from engine.base.errors import RingLayoutError, SegmentError
from engine.data.kind import Kind, RecordArray

MAGIC: Final = b"FTSRING1"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
_FIXED: Final = Struct("=8sQ16sQQQ")

HEAD: Final = 128 // 8
RELEASED: Final = 192 // 8
DROPPED: Final = 256 // 8
WAITING: Final = 384 // 8

_ORDERED_STORES: Final = frozenset({"x86_64", "AMD64"})


def ring_bytes(spec: Kind, capacity: int) -> int:
    """Size of the file of a ring with room for `capacity` records."""
    return HEADER_BYTES + capacity * spec.dtype.itemsize


def format_ring(memory: memoryview, spec: Kind, capacity: int, epoch: int) -> None:
    """Write the header of a new ring into zeroed memory."""
    if capacity < 2 or capacity & (capacity - 1):
        raise RingLayoutError(f"ring capacity {capacity} is not a power of two")
    itemsize = spec.dtype.itemsize
    fixed = (VERSION, spec.fingerprint, capacity, itemsize, epoch)
    _FIXED.pack_into(memory, 0, b"\0" * 8, *fixed)
    # The magic goes last: a ring whose creator died half-way is not a ring.
    memory[:8] = MAGIC


class RingView:
    """The parts of a ring that producer and readers share. `memory` may be any writable buffer."""

    def __init__(self, memory: memoryview, spec: Kind) -> None:
        if platform.machine() not in _ORDERED_STORES:
            raise SegmentError(f"rings are proven on x86-64 only, this is {platform.machine()}")
        self.spec = spec
        self.capacity, self.epoch = _check_header(memory, spec)
        # Plain 8-byte loads and stores: struct's "<Q" would go byte by byte.
        self.words = memory[:HEADER_BYTES].cast("Q")
        self._memory = memory
        self._records: RecordArray = np.frombuffer(
            memory, dtype=spec.dtype, count=self.capacity, offset=HEADER_BYTES
        )

    @property
    def head(self) -> int:
        """Sequence number the next record will get."""
        return self.words[HEAD]

    @property
    def released(self) -> int:
        """Records below this may have been overwritten."""
        return self.words[RELEASED]

    @property
    def dropped_count(self) -> int:
        """Records the producer had to refuse since the ring was made."""
        return self.words[DROPPED]

    def slice(self, start_seq: int, stop_seq: int) -> RecordArray:
        """Return records [start_seq, stop_seq) up to the wrap, without copying. May be shorter."""
        first = start_seq & (self.capacity - 1)
        count = min(stop_seq - start_seq, self.capacity - first)
        return self._records[first : first + count]

    def close(self) -> None:
        """Drop the views, so that the memory below can be unmapped."""
        self._records = np.empty(0, self.spec.dtype)
        self.words.release()
        self._memory.release()


def _check_header(memory: memoryview, spec: Kind) -> tuple[int, int]:
    if len(memory) < HEADER_BYTES:
        raise RingLayoutError(f"{len(memory)} bytes are too few for a ring")
    magic, version, fingerprint, capacity, itemsize, epoch = _FIXED.unpack_from(memory, 0)
    if magic != MAGIC:
        raise RingLayoutError("not a ring (wrong magic, or its creator died half-way)")
    if version != VERSION:
        raise RingLayoutError(f"ring layout version {version}, this code reads {VERSION}")
    if fingerprint != spec.fingerprint or itemsize != spec.dtype.itemsize:
        raise RingLayoutError(f"the ring holds other records than today's {spec.name}")
    if capacity < 2 or capacity & (capacity - 1) or len(memory) < ring_bytes(spec, capacity):
        raise RingLayoutError(f"capacity {capacity} does not fit a file of {len(memory)} bytes")
    return capacity, epoch


class RingProducer(RingView):
    """The one writing end.

    The caller reserves, packs straight into `buffer` (or into `views`), and publishes. Nothing is
    visible to readers before `publish`.
    """

    def __init__(self, memory: memoryview, spec: Kind) -> None:
        super().__init__(memory, spec)
        self.buffer = memory
        self.mask = self.capacity - 1
        self.itemsize = spec.dtype.itemsize
        self.next_seq = self.head
        """Sequence of the next record, counting those not yet published."""
        self.limit_seq = self.released + self.capacity
        """Records below it may be written; `refresh_limit` looks whether more have been freed."""

    def reserve(self, count: int = 1) -> int:
        """Return the sequence of the first of the next `count` records, or -1 (all counted as
        dropped) when there is no room for all: an event is stored whole or not at all.
        """
        seq = self.next_seq
        if seq + count > self.limit_seq and not self.refresh_limit(seq + count - 1):
            self.words[DROPPED] += count
            return -1
        self.next_seq = seq + count
        return seq

    def offset_of(self, seq: int) -> int:
        """Byte offset in `buffer` of a reserved record."""
        return HEADER_BYTES + (seq & self.mask) * self.itemsize

    def views(self, seq: int, count: int) -> Sequence[RecordArray]:
        """Return the memory of `count` reserved records: one array, or two where they wrap."""
        first = seq & self.mask
        head = self._records[first : first + count]
        if len(head) == count:
            return (head,)
        return (head, self._records[: count - len(head)])

    def publish(self) -> bool:
        """Make everything reserved so far visible to readers. Returns whether the writer sleeps
        and must be woken.
        """
        self.words[HEAD] = self.next_seq
        return self.words[WAITING] != 0

    @property
    def is_dirty(self) -> bool:
        """Whether records wait to be published."""
        return self.next_seq != self.words[HEAD]

    def has_room(self, count: int = 1) -> bool:
        """Whether the next `count` records would be taken (nothing is counted)."""
        last_seq = self.next_seq + count - 1
        return last_seq < self.limit_seq or self.refresh_limit(last_seq)

    def refresh_limit(self, last_seq: int) -> bool:
        """See what the writer has released; whether record `last_seq` may be written now."""
        self.limit_seq = self.words[RELEASED] + self.capacity
        return last_seq < self.limit_seq


class RingReader(RingView):
    """The writer's end: the one reader the producer waits for (it gates, it does not block)."""

    def poll(self, from_seq: int) -> RecordArray:
        """Return the published records from `from_seq` on, up to the wrap. May be empty."""
        return self.slice(from_seq, self.words[HEAD])

    def release(self, seq: int) -> None:
        """Allow the producer to overwrite everything below `seq`."""
        self.words[RELEASED] = seq

    def ask_for_doorbell(self, wanted: bool) -> None:
        """Tell the producer whether to ring. After asking, look at the head once more."""
        self.words[WAITING] = 1 if wanted else 0


class RingTap(RingView):
    """A read-only observer with its own cursor. It never slows the producer and may be lapped."""

    def __init__(self, memory: memoryview, spec: Kind, *, from_seq: int | None = None) -> None:
        super().__init__(memory, spec)
        self.cursor = self.head if from_seq is None else from_seq
        self.lapped_count = 0

    def poll(self, max_count: int) -> RecordArray:
        """Return a copy of up to `max_count` records; what was overwritten is counted as lapped.

        The producer may be writing unpublished records over the oldest ones, so the check is
        made again after the copy, with room for one unpublished block of a quarter ring.
        """
        head = self.head
        self._skip_overwritten(head)
        batch = self.slice(self.cursor, min(head, self.cursor + max_count)).copy()
        first = self.cursor
        self._skip_overwritten(self.head)
        lost = self.cursor - first
        self.cursor = max(self.cursor, first + len(batch))
        return batch[lost:]

    def _skip_overwritten(self, head: int) -> None:
        oldest = head - self.capacity + self.capacity // 4
        if self.cursor < oldest:
            self.lapped_count += oldest - self.cursor
            self.cursor = oldest
