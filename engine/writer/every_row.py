"""For a sink that gets every row, exactly once: from ring and journal, with what is lost declared.

What the sink has not taken stays in ring and journal. Where rows are gone, or a knob withholds
them, the batch that passes them says so.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.data.kind import RecordArray
from engine.data.kinds import GAP, KINDS
from engine.data.layout import SourceKey
from engine.writer.consumer import Consumer
from engine.writer.coverage_gate import CoverageGate
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.routing import Share
from engine.writer.rows.slice import Batch, Loss, Part, Slice
from engine.writer.rows.withheld import Withheld
from engine.writer.sinks.sink import Sink, Taken
from engine.writer.sources import lost_rows
from engine.writer.sources.source import Source
from engine.writer.sources.sources import Sources

_log = logging.getLogger(__name__)

_DURABLE_EVERY_S = 2.0


class EveryRow(Consumer):
    """One batch a flush: contiguous pieces of all sources."""

    def __init__(
        self,
        sources: Sources,
        sink: Sink,
        knobs: KnobTable,
        on_loss: Callable[[RecordArray], None] | None = None,
        backoff: Backoff | None = None,
        share: Share | None = None,
    ) -> None:
        """`share`: which rows are the sink's; None: all of them."""
        super().__init__(sources, sink, knobs, backoff)
        self._share = share
        self._withheld = Withheld(knobs, sink.name)
        self._gate = CoverageGate(sink.name, share)
        self._on_loss = on_loss
        self._durable_at_s = 0.0
        self._undurable = False
        self._waiting: set[SourceKey] = set()
        """Sources whose rows do not go into the present flush, whatever there is of them."""

    @property
    def backlog_rows(self) -> int:
        """Rows the sink does not have yet."""
        return sum(source.backlog(self.sink.name) for source in self._row_sources)

    @property
    def _row_sources(self) -> list[Source]:
        return [source for source in self._sources if not source.is_coverage]

    @property
    def _ready_rows(self) -> int:
        """The backlog without what waits for something else than the next flush."""
        name, waiting = self.sink.name, self._waiting
        return sum(s.backlog(name) for s in self._row_sources if s.key not in waiting)

    def rows_arrived(self) -> None:
        """A full batch is not kept waiting for the flush interval."""
        if self._ready_rows >= self._knobs.flush_rows:
            self.arrived.ring()

    async def finish(self) -> None:
        """Wait until every row is stored for good."""
        while not all(source.has_delivered(self.sink.name) for source in self._sources):
            self._durable_at_s = 0.0
            self._undurable = True
            self.arrived.ring()
            await asyncio.sleep(0.01)

    async def _open(self) -> None:
        self._sources.recall(await self.sink.open(self._sources.drained))
        sources = list(self._sources)
        # A sink without this cursor has had no row of the ring, not even those of which another one
        # had taken care.
        share = self._share
        starts = {source.key: share.start(source.key) if share else 0 for source in sources}
        cursors = await self.sink.cursors(starts)
        for source in sources:
            cursor = cursors[source.key]
            source.advance(self.sink.name, cursor.seq or 0, durable=False)
            source.progress(self.sink.name).last_recv_ns = cursor.last_recv_ns

    async def _next(self) -> tuple[Batch, bool]:
        await self._wait_for_rows()
        durable = self._undurable and monotonic_s() - self._durable_at_s >= _DURABLE_EVERY_S
        parts = self._parts()
        return Batch(parts, list(self._withheld.spans)), durable

    async def _wait_for_rows(self) -> None:
        """Return when a full batch is there, or the flush interval is over."""
        knobs, started_s = self._knobs, monotonic_s()
        while self._ready_rows < knobs.flush_rows:
            if not await self.arrived.wait(started_s + knobs.flush_interval_s - monotonic_s()):
                return

    def _parts(self) -> list[Part]:
        """What goes into the next batch: contiguous pieces of each source, oldest first."""
        room = self._knobs.max_rows_per_copy
        parts: list[Part] = []
        self._withheld.begin()
        self._waiting.clear()
        name, waits = self.sink.name, self.sink.waits
        waits.begin({s.key: s.spec.name for s in self._sources if s.backlog(name)})
        self._gate.look(self._sources)
        reached: dict[Source, int] = {}
        for source in self._row_sources:
            key, kind, seq = source.key, source.spec.name, source.progress(name).seq
            while room > 0 and seq < source.head_seq:
                if waits.holds(key, kind):
                    self._waiting.add(key)
                    break
                first_seq, records = source.read(seq, room)
                own = self._own(source, first_seq, records)
                if waits.holds(key, kind, own.records, lost=first_seq > seq):
                    self._waiting.add(key)
                    break
                if first_seq > seq:
                    parts.append(self._loss(source, seq, first_seq))
                elif not len(records):
                    break
                if len(records):
                    parts.append(self._slice(own))
                seq = first_seq + len(records)
                room -= len(records)
            reached[source] = seq
        return [*parts, *self._gate.open(reached)]

    def _own(self, source: Source, first_seq: int, records: RecordArray) -> Slice:
        """What was read, without the rows that another database is to have."""
        whole = Slice.whole(source.key, source.spec, first_seq, records)
        if self._share is None:
            return whole
        return whole.sharing(self._share.chosen(source.key, first_seq, records))

    def _loss(self, source: Source, from_seq: int, to_seq: int) -> Part:
        """What is lost before the next rows. Where none of it can have been this sink's, it is not
        this sink's loss.
        """
        share, key = self._share, source.key
        if share is not None:
            streams = np.array(source.streams_since(from_seq), np.uint32)
            if not share.of_slots(key, from_seq, to_seq, streams).any():
                return Slice.foreign(key, source.spec, from_seq, to_seq)
        recv_ns = source.progress(self.sink.name).last_recv_ns
        gaps = lost_rows.declare(source, from_seq, to_seq, wall_ns(), recv_ns)
        if share is not None:
            gaps = gaps[share.of_slots(key, from_seq, to_seq, gaps["stream"])]
        self._withheld.lost(source.spec.name, gaps["stream"].tolist())
        return Loss(source.key, source.spec.name, from_seq, to_seq, gaps)

    def _slice(self, own: Slice) -> Slice:
        """The rows that knobs let through. Gaps always: the ledger stays whole."""
        spec = own.spec
        records = self.sink.waits.put_right(own.records)
        chosen = None if spec is GAP else self._knobs.chosen(self.sink.name, records)
        if chosen is not None:
            self._withheld.note(spec.name, records[~chosen], wall_ns())
        kept = replace(own, records=records).keeping(chosen)
        return replace(kept, records=self._withheld.mark(spec.name, kept.records))

    def _taken(self, batch: Batch, taken: Taken, *, durable: bool) -> None:
        self._withheld.committed()
        now_ns = wall_ns()
        ends: dict[SourceKey, int] = {}
        recv_ns: dict[SourceKey, int] = {}
        for part in batch.parts:
            ends[part.source] = part.end_seq
            if isinstance(part, Loss):
                self._report_loss(part)
                continue
            recv_ns[part.source] = part.last_recv_ns or recv_ns.get(part.source, 0)
            if part.spec.columns:
                self.withheld_rows[part.spec.name] += part.withheld_count
                self.elsewhere_rows[part.spec.name] += part.elsewhere_count
                self.latency.add(part.records, now_ns)
        for source in self._sources:
            progress = source.progress(self.sink.name)
            progress.last_recv_ns = recv_ns.get(source.key) or progress.last_recv_ns
            progress.seq = ends.get(source.key, progress.seq)
            source.advance(self.sink.name, progress.seq, durable=durable)
        self.rows.update(taken.rows)
        self.inexact_rows += taken.inexact_rows
        self._note_refused(taken)
        self._undurable = not durable
        if durable:
            self._durable_at_s = monotonic_s()
            self._sources.remove_delivered()

    def _note_refused(self, taken: Taken) -> None:
        """Count what was refused, tell of its gaps, have what follows flagged."""
        self.refused_rows.update(taken.refused)
        if taken.gaps is not None and self._on_loss:
            self._on_loss(taken.gaps)
        for kind, slot in taken.interrupted:
            self._withheld.lost(kind, [slot])

    def _report_loss(self, loss: Loss) -> None:
        """Rows that neither ring nor journal holds any more: damage, or a sink set back."""
        if self._on_loss and len(loss.records):
            self._on_loss(loss.records)
        if not KINDS[loss.kind].columns:
            return
        self.missed_rows[loss.kind] += loss.count
        _log.error(
            "%s/%d: rows %d to %d are neither in the %s nor in the journal: declared as gaps",
            *loss.source, loss.start_seq, loss.end_seq - 1, self.sink.name,
        )  # fmt: skip
