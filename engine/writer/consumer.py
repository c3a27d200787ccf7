"""The database's consumer of the sources: every row, exactly once.

It runs on its own cursor and its own connection, so it holds up no other sink. A failing database
is retried with a capped, jittered backoff, which starts over when rows were delivered; what it has
not taken stays in ring and journal. `trouble` is the one verdict that log, status and lights read.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import TableRefusesError
from engine.base.keep_trying import keep_trying
from engine.data.kinds import GAP, SPECS, RecordArray
from engine.data.layout import SourceKey
from engine.writer.rows.clock_doubt import ClockDoubt
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Batch, Loss, Part, Slice
from engine.writer.rows.withheld import Withheld
from engine.writer.sink_trouble import delivered, sink_trouble
from engine.writer.sinks.postgres.coverage import CoverageGate, is_coverage
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sinks.sink import Taken
from engine.writer.sources import lost_rows
from engine.writer.sources.latency import Latency
from engine.writer.sources.source import Source
from engine.writer.sources.sources import Sources
from engine.writer.table_waits import TableWaits

_log = logging.getLogger(__name__)

_DURABLE_EVERY_S = 2.0
_QUARANTINE_LOOK_S = 10.0
"""Rows that somebody takes out of quarantine are seen after so long."""


class DatabaseDelivery:
    """Sources to PostgreSQL. One transaction a flush: all cursors, one COPY a record kind."""

    def __init__(
        self,
        sources: Sources,
        sink: PostgresSink,
        knobs: KnobTable,
        on_loss: Callable[[RecordArray], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._sources = sources
        self._sink = sink
        self._knobs = knobs
        self._withheld = Withheld(knobs)
        self._gate = CoverageGate()
        self._on_loss = on_loss
        self._durable_at_s = 0.0
        self._undurable = False
        self._tables = TableWaits()
        self._clock = ClockDoubt(sink.venue)
        self._waiting: set[SourceKey] = set()
        """Sources whose rows do not go into the present flush, whatever there is of them."""
        self._quarantine_at_s = 0.0
        self.trouble = sink_trouble("database", "nothing is lost, trying again", backoff, _log)
        self.latency = Latency()
        self.stored_rows: Counter[str] = Counter()
        self.quarantined_rows: Counter[str] = Counter()
        self.in_quarantine: Counter[str] = Counter()
        """Rows that are in quarantine now, whoever put them there."""
        self.skipped_rows: Counter[str] = Counter()
        self.lost_by_kind: Counter[str] = Counter()
        self.inexact_rows = 0
        self.arrived = Alarm()

    async def run(self) -> None:
        """Deliver until cancelled."""
        await keep_trying(self._work, self.trouble)

    async def _work(self) -> None:
        await self._connect()
        await self._deliver()

    @property
    def verdict(self) -> tuple[str, str]:
        """State and error. A database that owes an answer is as good as away."""
        if self._sink.overdue:
            return "down", self._sink.overdue
        return self.trouble.state, self.trouble.text

    @property
    def backlog_rows(self) -> int:
        """Rows the database does not have yet."""
        return sum(source.backlog_rows for source in self._sources if not is_coverage(source))

    @property
    def lost_rows(self) -> int:
        """Rows that neither ring nor journal held any more."""
        return self.lost_by_kind.total()

    @property
    def waits_for(self) -> str:
        """Why rows of a working database wait: our clock, or a table. Empty while none do."""
        return self._clock.text or self._tables.text

    @property
    def _ready_rows(self) -> int:
        """The backlog without what waits for something else than the next flush."""
        return sum(
            source.backlog_rows
            for source in self._sources
            if source.key not in self._waiting and not is_coverage(source)
        )

    def rows_arrived(self) -> None:
        """Rows were pumped; a full batch is not kept waiting for the flush interval."""
        if self._ready_rows >= self._knobs.flush_rows:
            self.arrived.ring()

    async def _connect(self) -> None:
        await self._sink.connect()
        drained = self._sources.drained
        await self._sink.introduce(self._sources.instance, drained)
        self._sources.recall(await self._sink.lacking(drained))
        oldest: dict[str, int] = {}
        for key, epoch in drained:
            oldest[key] = min(epoch, oldest.get(key, epoch))
        for source in self._sources:
            # A database without this cursor has had no row of the ring, not even those of which
            # another one had taken care.
            stored = await self._sink.cursor(*source.key, 0)
            source.committed(stored, durable=False)
            source.stored_recv_ns = self._sink.last_recv_ns(*source.key)
            oldest[source.key.ring] = min(source.epoch, oldest.get(source.key.ring, source.epoch))
        await self._sink.forget_cursors_before(oldest)
        await self._sink.close_coverage(self._sources.instance, self._sources)
        await self._sink.adopt_quarantine()
        await self._count_quarantine()

    async def _deliver(self) -> None:
        while True:
            await self._wait_for_rows()
            durable = self._durable_is_due()
            parts = self._parts()
            if parts or durable:
                try:
                    await self._take(parts, durable=durable)
                except TableRefusesError as error:
                    self._tables.refused(error)
            delivered(self.trouble, _log)
            if self.in_quarantine and monotonic_s() >= self._quarantine_at_s:
                await self._count_quarantine()

    async def _count_quarantine(self) -> None:
        self.in_quarantine = Counter(await self._sink.quarantined())
        self._quarantine_at_s = monotonic_s() + _QUARANTINE_LOOK_S

    async def _wait_for_rows(self) -> None:
        """Return when a full batch is there, or the flush interval is over."""
        knobs, started_s = self._knobs, monotonic_s()
        while self._ready_rows < knobs.flush_rows:
            if not await self.arrived.wait(started_s + knobs.flush_interval_s - monotonic_s()):
                return

    def _durable_is_due(self) -> bool:
        return self._undurable and monotonic_s() - self._durable_at_s >= _DURABLE_EVERY_S

    def _parts(self) -> list[Part]:
        """What goes into the next transaction: contiguous pieces of each source, oldest first."""
        room = self._knobs.max_rows_per_copy
        parts: list[Part] = []
        self._withheld.begin()
        self._forget_waits()
        self._gate.look(self._sources)
        reached: dict[Source, int] = {}
        for source in self._sources:
            if is_coverage(source):
                continue
            seq = source.database_seq
            while room > 0 and seq < source.head_seq:
                if self._is_to_wait(source):
                    break
                first_seq, records = source.read(seq, room)
                if self._is_to_wait(source, records, lost=first_seq > seq):
                    break
                if first_seq > seq:
                    gaps = lost_rows.declare(source, seq, first_seq, wall_ns())
                    parts.append(Loss(source.key, source.spec.kind, seq, first_seq, gaps))
                    self._withheld.lost(source.spec.kind, gaps["stream"].tolist())
                elif not len(records):
                    break
                if len(records):
                    parts.append(self._slice(source, first_seq, records))
                seq = first_seq + len(records)
                room -= len(records)
            reached[source] = seq
        return [*parts, *self._gate.open(reached)]

    def _forget_waits(self) -> None:
        """What waited and is not there any more, because a knob or another writer took it."""
        self._waiting.clear()
        behind = [source for source in self._sources if source.backlog_rows]
        self._clock.only({source.key for source in behind})
        # Any row may come with gaps that are to be declared.
        self._tables.only(
            {source.spec.table for source in behind} | ({GAP.table} if behind else set())
        )

    def _is_to_wait(
        self, source: Source, records: RecordArray | None = None, *, lost: bool = False
    ) -> bool:
        """Whether nothing more of a source goes into the present flush; asked before its next rows
        are read, and again with them."""
        key, kind = source.key, source.spec.kind
        if records is None:
            waits = self._clock.waits(key) or self._tables.waits(kind.value)
        else:
            waits = self._clock.doubts(key, kind, records)
            waits = waits or (lost and self._tables.waits(GAP.kind.value))
        if waits:
            self._waiting.add(key)
        return waits

    def _slice(self, source: Source, first_seq: int, records: RecordArray) -> Slice:
        """The rows that knobs let through."""
        kind = source.spec.kind
        records = self._clock.put_right(records)
        chosen = self._knobs.to_store(records, kind)
        if chosen is not None:
            self._withheld.note(kind, records[~chosen], wall_ns())
        kept = Slice.whole(source.key, source.spec, first_seq, records).keeping(chosen)
        return replace(kept, records=self._withheld.mark(kind, kept.records))

    async def _take(self, parts: Sequence[Part], *, durable: bool) -> None:
        batch = Batch(parts, list(self._withheld.spans))
        taken = await self._sink.take(batch, durable=durable, impatient=self._tables.impatient)
        self._withheld.committed()
        self._tables.taken({part.spec.table for part in parts if len(part.records)})
        now_ns = wall_ns()
        by_key = {source.key: source for source in self._sources}
        for part in parts:
            source = by_key[part.source]
            source.database_seq = part.end_seq
            if isinstance(part, Loss):
                self._report_loss(part)
                continue
            source.stored_recv_ns = part.last_recv_ns or source.stored_recv_ns
            if part.spec.columns:
                self.skipped_rows[part.spec.kind.value] += part.withheld_count
                self.latency.add(part.records, now_ns)
        for source in self._sources:
            source.committed(source.database_seq, durable=durable)
        self.stored_rows.update(taken.rows)
        self.inexact_rows += taken.inexact_rows
        self._note_refused(taken)
        self._undurable = not durable
        if durable:
            self._durable_at_s = monotonic_s()
            self._sources.remove_delivered()

    def _note_refused(self, taken: Taken) -> None:
        """Count what was refused, tell Redis of its gaps, have what follows flagged."""
        self.quarantined_rows.update(taken.refused)
        self.in_quarantine.update(taken.refused)
        if taken.gaps is not None and self._on_loss:
            self._on_loss(taken.gaps)
        for kind, slot in taken.interrupted:
            self._withheld.lost(kind, [slot])

    def _report_loss(self, loss: Loss) -> None:
        """Rows that neither ring nor journal holds any more: damage, or a restored database."""
        if self._on_loss and len(loss.records):
            self._on_loss(loss.records)
        if not SPECS[loss.kind].columns:
            return
        self.lost_by_kind[loss.kind.value] += loss.count
        _log.error(
            "%s/%d: rows %d to %d are neither in the database nor in the journal: declared as gaps",
            *loss.source, loss.start_seq, loss.end_seq - 1,
        )  # fmt: skip

    async def finish(self) -> None:
        """Wait until every row is stored for good; cancel it to give up."""
        while not all(source.is_delivered for source in self._sources):
            self._durable_at_s = 0.0
            self._undurable = True
            self.arrived.ring()
            await asyncio.sleep(0.01)
