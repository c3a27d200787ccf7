"""A source: the rows of one (ring, epoch), wherever they are right now, and how far each sink got.

Rows live in the ring, then also in the journal, then only in the journal. Sinks see one sequence:
`read(seq)` takes from the ring while the ring still holds them, else from the journal. So there is
no outage mode: a database that is away has a cursor that stands still.

    released <= rows still in the ring < head        (ring)
    journal.first_seq <= rows on disk < journal_seq  (journal)

What neither holds any more is lost: `read` goes on after it, and who reads declares the difference
(`engine.writer.sources.lost_rows`).
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import JournalError
from engine.base.keep_trying import Trouble
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import COVERAGE, KINDS, NOT_MARKET_DATA, OPEN_INTEREST
from engine.data.layout import SourceKey
from engine.data.positions import Positions
from engine.data.ring import RingReader
from engine.data.segment import Segment
from engine.writer.sources.carried import Carried
from engine.writer.sources.journal import Journal, JournalLimit
from engine.writer.sources.latency import Latency, sample
from engine.writer.sources.progress import Progress

_log = logging.getLogger(__name__)

_PUSHED: Final = frozenset(KINDS) - NOT_MARKET_DATA - {OPEN_INTEREST.name}
"""What a venue sends when it happens. A sample's time is when the venue computed it, and a gap's
when it began: how old they are says nothing of the way here."""
NOBODY: Final = "nobody"
_JOURNAL_RETRY_S: Final = 0.5
"""A full disk is not asked again for every batch."""


@dataclass(slots=True)
class LiveRing:
    """A ring with the segment that backs it."""

    reader: RingReader
    segment: Segment

    def close(self) -> None:
        """Unmap; the file stays."""
        self.reader.close()
        self.segment.close()


@dataclass(frozen=True, slots=True)
class Readers:
    """Names of the sinks, by what they are promised. Where nobody wants every row, rows are let go
    of in the name of `NOBODY`, which is told as often as a sink would be.
    """

    every_row: tuple[str, ...] = ()
    live: tuple[str, ...] = ()

    @property
    def keepers(self) -> tuple[str, ...]:
        """For whom the journal keeps rows."""
        return self.every_row or (NOBODY,)


@dataclass(slots=True)
class PumpLatencies:
    """Ages seen while pumping, over all sources."""

    receipt: Latency = field(default_factory=Latency)
    """From the venue's event to the shard."""
    journal: Latency = field(default_factory=Latency)
    """From the shard to the journal."""


class Source:
    """Rows of one ring and epoch, with one cursor for each sink (sequence numbers).

    `ring` is None for what an earlier run left in the journal: no sink of live rows reads it.
    """

    def __init__(
        self,
        instance: str,
        name: str,
        spec: Kind,
        journal: Journal,
        positions: Positions,
        latencies: PumpLatencies,
        ring: LiveRing | None,
        readers: Readers,
        limit: JournalLimit,
    ) -> None:
        self._key = SourceKey(f"{instance}/{name}", journal.epoch)
        self.name = name
        self.spec = spec
        self.journal = journal
        self._journal_trouble = Trouble(
            f"journal {name}",
            "rows stay in memory until the database has them",
            Backoff(_JOURNAL_RETRY_S, _JOURNAL_RETRY_S),
            _log,
        )
        self._journal_retry_at_s = 0.0
        self._limit = limit
        self._positions = positions
        self._latencies = latencies
        self._ring = ring
        self._carried = Carried(journal.directory, journal.epoch)
        released = ring.reader.released if ring else journal.next_seq
        self.journal_seq = max(journal.next_seq, released)
        # Positions come before the journal: what is in it is in them. To repeat what the ring still
        # holds would take a stream back that has newer rows in the ring of another shard.
        self.position_seq = self.journal_seq
        kept_seq = self.head_seq if self.is_drained else self.first_seq
        self._kept = {n: Progress(kept_seq, kept_seq, kept_seq) for n in readers.keepers}
        head = self.head_seq
        self._of_sink = self._kept | {n: Progress(head, head, head) for n in readers.live}
        self.born_seq = head

    @property
    def key(self) -> SourceKey:
        """Its name in cursors."""
        return self._key

    @property
    def journal_error(self) -> str:
        """Why rows are not journalled; empty while they are."""
        return self._journal_trouble.text

    @property
    def epoch(self) -> int:
        """Names this incarnation of the ring in cursors."""
        return self.journal.epoch

    @property
    def is_live(self) -> bool:
        """Whether a ring is behind this source."""
        return self._ring is not None

    @property
    def is_drained(self) -> bool:
        """Whether this is only the memory of a ring that the database had all of, for good."""
        return self._carried.is_drained

    @property
    def head_seq(self) -> int:
        """Sequence after the last row."""
        if self._ring:
            return self._ring.reader.head
        return max(self.journal.next_seq, self._carried.end_seq)

    @property
    def reader(self) -> RingReader | None:
        """Of the ring, as long as there is one: for who looks at its head all the time."""
        return self._ring.reader if self._ring else None

    def progress(self, sink: str) -> Progress:
        """How far a sink has got. Only `advance` lets go of rows."""
        return self._of_sink[sink]

    @property
    def account(self) -> Progress:
        """Of the sink by which rows are accounted for: the first that gets every one."""
        return next(iter(self._kept.values()))

    @property
    def is_coverage(self) -> bool:
        """Whether its records say what was listened to: no rows, and for sinks that keep all."""
        return self.spec.name == COVERAGE.name

    def backlog(self, sink: str) -> int:
        """Rows a sink does not have yet; it may have some that a damaged journal lost."""
        return max(self.head_seq - self._of_sink[sink].seq, 0)

    @property
    def backlog_rows(self) -> int:
        """Rows that some sink waits for which gets every one."""
        return max(self.backlog(sink) for sink in self._kept)

    @property
    def waiting_bytes(self) -> int:
        """Of rows that some sink does not have for good which gets every one."""
        return max(self.head_seq - self._durable_seq, 0) * self.spec.dtype.itemsize

    @property
    def ring_first_seq(self) -> int:
        """The oldest row that is still in memory."""
        return self._ring.reader.released if self._ring else self.head_seq

    @property
    def first_seq(self) -> int:
        """The oldest row that can still be read."""
        oldest = self._ring.reader.released if self._ring else self.journal.next_seq
        if self.journal.first_seq < self.journal.next_seq:
            oldest = min(oldest, self.journal.first_seq)
        return oldest

    @property
    def dropped_count(self) -> int:
        """Rows the producer could not place."""
        return self._ring.reader.dropped_count if self._ring else 0

    @property
    def capacity(self) -> int:
        """Records the ring holds; 0 without one."""
        return self._ring.reader.capacity if self._ring else 0

    def pump(self) -> int:
        """Take what the ring has into positions and journal; return the number of new rows.

        A journal that cannot be written stops holding rows back: they then stay in the ring until
        the database has them for good.
        """
        if self._ring is None:
            return 0
        reader = self._ring.reader
        head = reader.head
        if reader.released == head:  # positions and journal are never behind it
            return 0
        taken = 0
        while self.position_seq < head:
            batch = reader.slice(self.position_seq, head)
            self._positions.advance(batch)
            self._carried.advance(self.position_seq, batch)
            if self.spec.name in _PUSHED:
                self._latencies.receipt.add_receipt(batch)
            self.position_seq += len(batch)
            taken += len(batch)
        if self.journal_seq < head:
            self._append(reader, head)
        self._release(head)
        return taken

    def _append(self, reader: RingReader, head: int) -> None:
        if self._journal_trouble.text and monotonic_s() < self._journal_retry_at_s:
            return
        while self.journal_seq < head:
            batch = reader.slice(self.journal_seq, head)
            try:
                self._limit.check()
                self.journal.append(self.journal_seq, batch)
            except JournalError as error:
                self._journal_retry_at_s = monotonic_s() + self._journal_trouble.met(error)
                return
            self._journal_trouble.over()
            self.journal_seq += len(batch)
            if self.spec.columns:
                rows, weight = sample(batch)
                self._latencies.journal.add(rows, wall_ns(), weight)

    def read(self, from_seq: int, max_count: int) -> tuple[int, RecordArray]:
        """Return (sequence of the first row, rows) at or after `from_seq`.

        The sequence is higher than asked where rows are lost: by damage, or because they were
        removed for a database that had them and was set back since. No rows at the end, only.
        Rows of the ring are copied (10 ns a row): a slow database must not hold ring space, and
        the producer may overwrite what a sink is still working on.
        """
        if self._ring is None or from_seq < self._ring.reader.released:
            first_seq, rows = self.journal.read(from_seq, max_count)
            if self._ring is None:
                return (first_seq, rows) if len(rows) else (max(self.head_seq, from_seq), rows)
            if len(rows) and first_seq <= self._ring.reader.released:
                return first_seq, rows
            from_seq = self._ring.reader.released
        head = self._ring.reader.head
        return from_seq, self._ring.reader.slice(from_seq, min(head, from_seq + max_count)).copy()

    def streams_since(self, seq: int) -> list[int]:
        """Slots of the streams that may have rows at or after `seq`. Without a ring the machine may
        have been cut off before it wrote down the newest, and every stream of the ring may have.
        """
        return self._carried.since(seq if self._ring else 0)

    def advance(self, sink: str, seq: int, *, durable: bool) -> None:
        """Note what a sink has; durable means for good, so the journal may forget it."""
        self._of_sink[sink].advance(seq, durable=durable)
        if durable and sink in self._kept:
            self.journal.trim(self._durable_seq)

    @property
    def _durable_seq(self) -> int:
        return min(each.durable_seq for each in self._kept.values())

    @property
    def is_delivered(self) -> bool:
        """Whether every sink that gets every row has all of them for good."""
        return self._durable_seq >= self.head_seq

    @property
    def is_read(self) -> bool:
        """Whether every sink was given all of them, also those of live rows."""
        return all(each.seq >= self.head_seq for each in self._of_sink.values())

    def has_delivered(self, sink: str) -> bool:
        """Whether one of these has all of them for good."""
        return self._of_sink[sink].durable_seq >= self.head_seq

    def close(self) -> None:
        """Let go of ring and journal; both stay on disk."""
        self.journal.close()
        self._carried.close()
        if self._ring:
            self._ring.close()
            self._ring = None

    def remove(self) -> None:
        """Remove what is not needed any more: the ring when journal or database has all of it,
        the journal when the database has all of it for good. What was drained is remembered.
        """
        delivered = self.is_delivered
        if not delivered:
            self._sync_journal()
        ring_is_safe = delivered or self.journal_seq >= self.head_seq
        if self._ring:
            segment = self._ring.segment
            self._ring.close()
            self._ring = None
            if ring_is_safe:
                segment.unlink()
        if delivered:
            # First, because rows it knows of and the journal does not have would count as lost.
            self._carried.drain()
            self.journal.remove()

    def forget(self) -> None:
        """Close it, and remove the memory of a ring that was drained."""
        self._carried.close()
        self._carried.remove()
        self.journal.remove()

    def _sync_journal(self) -> None:
        """It is about to be the only place that has these rows."""
        unsynced = self.journal.take_unsynced()
        try:
            if unsynced is not None:
                unsynced.sync()
        except OSError as error:
            _log.error(f"journal {self.name}: fdatasync: {error.strerror}")

    def _release(self, head: int) -> None:
        """Free ring space: what is journaled (or durably stored), but keep the newest half for
        sinks that are still reading it from memory.
        """
        assert self._ring is not None
        safe = max(self.journal_seq, self._durable_seq)
        wanted = min(each.seq for each in self._of_sink.values())
        keep_from = max(wanted, head - self.capacity // 2)
        release = min(safe, keep_from)
        if release > self._ring.reader.released:
            self._ring.reader.release(release)
            self.journal_seq = max(self.journal_seq, release)


def journal_directory(root: Path, ring: str, epoch: int) -> Path:
    """Where the journal of (ring, epoch) lives."""
    return root / ring / str(epoch)
