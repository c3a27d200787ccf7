"""For a sink of live rows, best effort: from the rings, and at most a ring behind.

Every row of a ring is counted once, whatever is tried again:

    received = taken + missed + withheld + waiting
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from engine.base.backoff import Backoff
from engine.base.clock import wall_ns
from engine.base.errors import EngineError, FencedError
from engine.data.kind import RecordArray
from engine.data.kinds import GAP
from engine.messages.writer import SinkStatus
from engine.writer.consumer import Consumer
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.sink import Sink, Taken
from engine.writer.sources.progress import Progress
from engine.writer.sources.source import Source
from engine.writer.sources.sources import Sources

_GAPS_WAITING_MAX: Final = 64
"""Losses whose gaps wait for the sink; the oldest is missed by one more."""
_LOOK_EVERY_S: Final = 2.0
_LEAST_ROWS: Final = 256
"""In one flush to a sink that could not take more at once."""


class Live(Consumer):
    """Rows as they come; what the sink could not take in time is counted as missed."""

    def __init__(
        self, sources: Sources, sink: Sink, knobs: KnobTable, backoff: Backoff | None = None
    ) -> None:
        super().__init__(sources, sink, knobs, backoff)
        self._gaps: deque[RecordArray] = deque()
        self._in_flight = Batch()
        """What was sent, until it is known what became of it."""
        self._rows_at_once = knobs.flush_rows
        self._is_idle = False

    def hear_of(self, gaps: RecordArray) -> None:
        """Gaps that another sink has just been told go with the next rows."""
        chosen = self._knobs.chosen(self.sink.name, gaps)
        self._gaps.append(gaps if chosen is None else gaps[chosen])
        oldest = len(self._in_flight.gaps)
        if len(self._gaps) - oldest > _GAPS_WAITING_MAX:
            self.missed_rows[GAP.name] += len(self._gaps[oldest])
            del self._gaps[oldest]

    def rows_arrived(self) -> None:
        """Live data is delivered at once."""
        self.arrived.ring()

    @property
    def status(self) -> SinkStatus:
        """How it stands now."""
        self.note_missed()
        return super().status

    @property
    def is_idle(self) -> bool:
        """Whether the sink has everything."""
        return all(self._progress(source).seq >= source.head_seq for source in self._live)

    @property
    def backlog_rows(self) -> int:
        """Rows in the rings that the sink was not given yet."""
        return sum(max(s.head_seq - _counted(self._progress(s)), 0) for s in self._live)

    async def finish(self) -> None:
        """Wait until the sink has what is in the rings."""
        while not self.is_idle:
            await asyncio.sleep(0.01)

    def note_missed(self) -> None:
        """Count the rows that left the rings before the sink had them. What became of those that
        are under way is known when they are back.
        """
        under_way = {part.source for part in self._in_flight.parts}
        for source in self._live:
            progress, oldest = self._progress(source), source.ring_first_seq
            if source.key in under_way or progress.seq >= oldest:
                continue
            missed = oldest - _counted(progress)
            if missed > 0:
                self.missed_rows[source.spec.name] += missed
                progress.counted_seq = oldest
            progress.seq = oldest

    @property
    def _live(self) -> list[Source]:
        """The rings whose rows are for readers."""
        return [source for source in self._sources if source.is_live and not source.is_coverage]

    def _progress(self, source: Source) -> Progress:
        return source.progress(self.sink.name)

    async def _work(self) -> None:
        try:
            await super()._work()
        except FencedError:
            raise
        except EngineError:
            self._rows_at_once = max(self._rows_at_once // 2, _LEAST_ROWS)
            raise

    async def _open(self) -> None:
        await self.sink.open({})
        live = self._live
        cursors = await self.sink.cursors({s.key: self._progress(s).seq for s in live})
        for source in live:
            seq = cursors[source.key].seq
            if seq is not None:
                self._resume(source, min(seq, source.head_seq))
            self._progress(source).is_known = True
        self._in_flight = Batch()
        self._is_idle = False

    def _resume(self, source: Source, taken_seq: int) -> None:
        """Go on where the sink says: after rows whose answer was lost, or before those that it has
        lost since. In the first life of a writer that is where its predecessor was.
        """
        for part in self._in_flight.slices:
            if part.source == source.key and part.end_seq <= taken_seq:
                self._account([part], Taken())
                self._gaps_taken()
        progress = self._progress(source)
        counted = progress.counted_seq
        if taken_seq > counted:
            if progress.is_known:
                self.rows[source.spec.name] += taken_seq - counted
            progress.counted_seq = taken_seq
        elif not progress.is_known and counted == progress.seq:
            progress.counted_seq = min(counted, max(taken_seq, source.ring_first_seq))
        progress.seq = taken_seq

    async def _next(self) -> tuple[Batch, bool]:
        if self._is_idle:
            await self.arrived.wait(_LOOK_EVERY_S)
        slices = self._slices()
        # What is in the rings by now comes with the next look of the writer at them.
        self._is_idle = all(part.end_seq - part.start_seq < self._rows_at_once for part in slices)
        self._in_flight = Batch(slices, gaps=list(self._gaps)) if slices else Batch()
        return self._in_flight, False

    def _slices(self) -> list[Slice]:
        self.note_missed()
        slices: list[Slice] = []
        for source in self._live:
            seq = self._progress(source).seq
            if seq >= source.head_seq:
                continue
            seq, records = source.read(seq, self._rows_at_once)
            if len(records):
                whole = Slice.whole(source.key, source.spec, seq, records)
                slices.append(whole.keeping(self._knobs.chosen(self.sink.name, records)))
        return slices

    def _taken(self, batch: Batch, taken: Taken, *, durable: bool) -> None:
        del durable
        self._account(batch.slices, taken)
        self._gaps_taken()
        self._in_flight = Batch()
        ends = {part.source: part.end_seq for part in batch.parts}
        for source in self._live:
            progress = self._progress(source)
            progress.seq = ends.get(source.key, progress.seq)
        self._rows_at_once = min(self._rows_at_once * 2, self._knobs.flush_rows)

    def _account(self, slices: Sequence[Slice], taken: Taken) -> None:
        """Count the rows of a flush, each once: what is sent again after a sink has lost it was
        counted before.
        """
        now_ns, refused = wall_ns(), taken.refused.copy()
        progress_of = {source.key: self._progress(source) for source in self._live}
        for part in slices:
            progress, kind = progress_of[part.source], part.spec.name
            start_seq = max(progress.counted_seq, part.start_seq)
            row_count = max(part.end_seq - start_seq, 0)
            kept = row_count if part.seqs is None else int(np.sum(part.seqs >= start_seq))
            not_taken = min(refused[kind], kept)
            self.rows[kind] += kept - not_taken
            if not_taken:
                refused[kind] -= not_taken
                self.missed_rows[kind] += not_taken
            self.withheld_rows[kind] += row_count - kept
            self.latency.add(part.records, now_ns)
            progress.counted_seq = max(progress.counted_seq, part.end_seq)

    def _gaps_taken(self) -> None:
        for records in self._in_flight.gaps:
            self._gaps.popleft()
            self.rows[GAP.name] += len(records)
        self._in_flight = Batch(self._in_flight.parts)


def _counted(progress: Progress) -> int:
    return max(progress.seq, progress.counted_seq)
