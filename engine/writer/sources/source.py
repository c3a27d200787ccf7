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
from engine.data.kinds import NOT_MARKET_DATA, SPECS, RecordArray, RecordKind, RecordSpec
from engine.data.layout import SourceKey
from engine.data.positions import Positions
from engine.data.ring import RingReader
from engine.data.segment import Segment
from engine.writer.sources.carried import Carried
from engine.writer.sources.journal import Journal
from engine.writer.sources.latency import Latency

_log = logging.getLogger(__name__)

_PUSHED: Final = frozenset(SPECS) - NOT_MARKET_DATA - {RecordKind.OPEN_INTEREST}
"""What a venue sends when it happens. A sample's time is when the venue computed it, and a gap's
when it began: how old they are says nothing of the way here."""
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


@dataclass(slots=True)
class PumpLatencies:
    """Ages seen while pumping, over all sources."""

    receipt: Latency = field(default_factory=Latency)
    """From the venue's event to the shard."""
    journal: Latency = field(default_factory=Latency)
    """From the shard to the journal."""


class Source:
    """Rows of one ring and epoch, with one cursor for each consumer (sequence numbers).

    `ring` is None for what an earlier run left in the journal; then only the database reads it.
    """

    def __init__(
        self,
        instance: str,
        name: str,
        spec: RecordSpec,
        journal: Journal,
        positions: Positions,
        latencies: PumpLatencies,
        ring: LiveRing | None,
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
        self._positions = positions
        self._latencies = latencies
        self._ring = ring
        self._carried = Carried(journal.directory, journal.epoch)
        self.stored_recv_ns = 0
        """`ts_recv` of the last row the database has; 0 while unknown."""
        released = ring.reader.released if ring else journal.next_seq
        self.journal_seq = max(journal.next_seq, released)
        # Positions come before the journal: what is in it is in them. To repeat what the ring still
        # holds would take a stream back that has newer rows in the ring of another shard.
        self.position_seq = self.journal_seq
        self.database_seq = self.head_seq if self.is_drained else self.first_seq
        self.durable_seq = self.database_seq
        self.redis_seq = self.head_seq
        self.redis_counted_seq = self.head_seq
        """Rows before it are counted: as published, overrun, or kept from Redis by a knob."""
        self.redis_is_known = False
        """Whether Redis has said how far it got."""
        self.born_seq = self.head_seq
        self.begun_seq: int | None = None
        """Where the cursor was when we found it first, less what the database has lost since."""
        self.found_rows = 0
        """Rows that had passed the cursor without our hearing of it."""

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
    def backlog_rows(self) -> int:
        """Rows the database does not have yet; it may have some that a damaged journal lost."""
        return max(self.head_seq - self.database_seq, 0)

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

    def ask_for_doorbell(self, wanted: bool) -> None:
        """Ask the producer to ring when it publishes."""
        if self._ring:
            self._ring.reader.ask_for_doorbell(wanted)

    def pump(self) -> int:
        """Take what the ring has into positions and journal; return the number of new rows.

        A journal that cannot be written stops holding rows back: they then stay in the ring until
        the database has them for good.
        """
        if self._ring is None:
            return 0
        reader = self._ring.reader
        head = reader.head
        taken = 0
        while self.position_seq < head:
            batch = reader.slice(self.position_seq, head)
            self._positions.advance(batch)
            self._carried.advance(self.position_seq, batch)
            if self.spec.kind in _PUSHED:
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
                self.journal.append(self.journal_seq, batch)
            except JournalError as error:
                self._journal_retry_at_s = monotonic_s() + self._journal_trouble.met(error)
                return
            self._journal_trouble.over()
            self.journal_seq += len(batch)
            if self.spec.columns:
                self._latencies.journal.add(batch, wall_ns())

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

    def committed(self, database_seq: int, *, durable: bool) -> None:
        """Note what the database has; durable means flushed there, so the journal may forget. A
        database that was set back has lost what was durable.
        """
        if self.begun_seq is None:
            self.begun_seq = database_seq
        else:
            self.begun_seq -= max(self.database_seq - database_seq, 0)
            self.found_rows += max(database_seq - self.database_seq, 0)
        self.database_seq = database_seq
        self.durable_seq = database_seq if durable else min(self.durable_seq, database_seq)
        if durable:
            self.journal.trim(database_seq)

    @property
    def is_delivered(self) -> bool:
        """Whether the database has every row for good."""
        return self.durable_seq >= self.head_seq

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
        safe = max(self.journal_seq, self.durable_seq)
        wanted = min(self.database_seq, self.redis_seq)
        keep_from = max(wanted, head - self.capacity // 2)
        release = min(safe, keep_from)
        if release > self._ring.reader.released:
            self._ring.reader.release(release)
            self.journal_seq = max(self.journal_seq, release)


def journal_directory(root: Path, ring: str, epoch: int) -> Path:
    """Where the journal of (ring, epoch) lives."""
    return root / ring / str(epoch)
