"""For a sink of live rows, best effort: from the rings, and at most a ring behind.

Every row of a ring is counted once, whatever is tried again:

    received = taken + missed + withheld + waiting
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import numpy as np

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import EngineError, FencedError
from engine.data.kind import RecordArray
from engine.data.kinds import GAP
from engine.data.layout import SourceKey
from engine.data.ring import HEAD
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


class _Ring(NamedTuple):
    """A ring, how far the sink is in it, and the words of its head: to look at all rings at each
    turn is to take few steps for each.
    """

    source: Source
    progress: Progress
    words: memoryview


class Live(Consumer):
    """Rows as they come; what the sink could not take in time is counted as missed."""

    def __init__(
        self,
        sources: Sources,
        sink: Sink,
        knobs: KnobTable,
        backoff: Backoff | None = None,
        pace_s: float = 0.0,
    ) -> None:
        """`pace_s`: rows that keep coming go together, so often."""
        super().__init__(sources, sink, knobs, backoff)
        self._pace_s = pace_s
        self._due_s = 0.0
        self._gaps: deque[RecordArray] = deque()
        self._in_flight = Batch()
        """What was sent, until it is known what became of it."""
        self._rows_at_once = knobs.flush_rows
        self._seen: Sequence[Source] = ()
        self._known: dict[SourceKey, _Ring] = {}

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
        if not self.is_idle:
            self.arrived.ring()

    @property
    def status(self) -> SinkStatus:
        """How it stands now."""
        self.note_missed()
        return super().status

    @property
    def is_idle(self) -> bool:
        """Whether the sink has everything."""
        return all(progress.seq >= words[HEAD] for _, progress, words in self._live)

    @property
    def backlog_rows(self) -> int:
        """Rows in the rings that the sink was not given yet."""
        return sum(max(words[HEAD] - _counted(known), 0) for _, known, words in self._live)

    async def finish(self) -> None:
        """Wait until the sink has what is in the rings."""
        while not self.is_idle:
            await asyncio.sleep(0.01)

    def note_missed(self) -> None:
        """Count the rows that left the rings before the sink had them. What became of those that
        are under way is known when they are back.
        """
        under_way = {part.source for part in self._in_flight.parts}
        for source, progress, _ in self._live:
            if source.key not in under_way:
                self._note_missed(source, progress)

    def _note_missed(self, source: Source, progress: Progress) -> None:
        oldest = source.ring_first_seq
        if progress.seq >= oldest:
            return
        missed = oldest - _counted(progress)
        if missed > 0:
            self.missed_rows[source.spec.name] += missed
            progress.counted_seq = oldest
        progress.seq = oldest

    @property
    def _live(self) -> Collection["_Ring"]:
        """The rings whose rows are for readers."""
        if self._seen is not self._sources.live:
            self._seen, name = self._sources.live, self.sink.name
            self._known = {
                source.key: _Ring(source, source.progress(name), source.reader.words)
                for source in self._seen
                if source.reader and not source.is_coverage
            }
        return self._known.values()

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
        cursors = await self.sink.cursors({each.source.key: each.progress.seq for each in live})
        for source, progress, _ in live:
            seq = cursors[source.key].seq
            if seq is not None:
                self._resume(source, progress, min(seq, source.head_seq))
            progress.is_known = True
        self._in_flight = Batch()
        self.arrived.ring()  # a session that is good is said to be, whether rows come or not

    def _resume(self, source: Source, progress: Progress, taken_seq: int) -> None:
        """Go on where the sink says: after rows whose answer was lost, or before those that it has
        lost since. In the first life of a writer that is where its predecessor was.
        """
        for part in self._in_flight.slices:
            if part.source == source.key and part.end_seq <= taken_seq:
                self._account([part], Taken())
                self._gaps_taken()
        counted = progress.counted_seq
        if taken_seq > counted:
            if progress.is_known:
                self.rows[source.spec.name] += taken_seq - counted
            progress.counted_seq = taken_seq
        elif not progress.is_known and counted == progress.seq:
            progress.counted_seq = min(counted, max(taken_seq, source.ring_first_seq))
        progress.seq = taken_seq

    async def _next(self) -> tuple[Batch, bool]:
        await self._wait_for_rows()
        slices = self._slices()
        self._in_flight = Batch(slices, gaps=list(self._gaps)) if slices else Batch()
        return self._in_flight, False

    async def _wait_for_rows(self) -> None:
        """Return when there are some, or it is time to look around."""
        if not self.is_idle:
            await asyncio.sleep(0)  # they come faster than the sink takes them: others' turn
        else:
            self._sources.ask_for_doorbell(True)
            if self.is_idle:
                await self.arrived.wait(_LOOK_EVERY_S)
        if self._pace_s:
            await asyncio.sleep(self._due_s - monotonic_s())
            self._due_s = monotonic_s() + self._pace_s

    def _slices(self) -> list[Slice]:
        slices: list[Slice] = []
        for source, progress, words in self._live:
            if progress.seq >= words[HEAD]:
                continue
            self._note_missed(source, progress)
            seq, records = source.read(progress.seq, self._rows_at_once)
            if len(records):
                whole = Slice.whole(source.key, source.spec, seq, records)
                slices.append(whole.keeping(self._knobs.chosen(self.sink.name, records)))
        return slices

    def _taken(self, batch: Batch, taken: Taken, *, durable: bool) -> None:
        del durable
        self._account(batch.slices, taken)
        self._gaps_taken()
        self._in_flight = Batch()
        for part in batch.parts:
            self._progress(part.source).seq = part.end_seq
        self._rows_at_once = min(self._rows_at_once * 2, self._knobs.flush_rows)

    def _account(self, slices: Sequence[Slice], taken: Taken) -> None:
        """Count the rows of a flush, each once: what is sent again after a sink has lost it was
        counted before.
        """
        now_ns, refused = wall_ns(), dict(taken.refused)
        for part in slices:
            progress, kind = self._progress(part.source), part.spec.name
            start_seq = max(progress.counted_seq, part.start_seq)
            row_count = max(part.end_seq - start_seq, 0)
            kept = row_count if part.seqs is None else int(np.sum(part.seqs >= start_seq))
            not_taken = min(refused.get(kind, 0), kept)
            self.rows[kind] += kept - not_taken
            if not_taken:
                refused[kind] -= not_taken
                self.missed_rows[kind] += not_taken
            self.withheld_rows[kind] += row_count - kept
            self.latency.add(part.records, now_ns)
            progress.counted_seq = max(progress.counted_seq, part.end_seq)

    def _gaps_taken(self) -> None:
        if not self._in_flight.gaps:
            return
        for records in self._in_flight.gaps:
            self._gaps.popleft()
            self.rows[GAP.name] += len(records)
        self._in_flight = Batch(self._in_flight.parts)

    def _progress(self, source: SourceKey) -> Progress:
        return self._known[source].progress


def _counted(progress: Progress) -> int:
    return max(progress.seq, progress.counted_seq)
