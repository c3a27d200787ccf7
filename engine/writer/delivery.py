"""Two consumers of the sources: the database (every row, exactly once) and Redis (best effort).

Each runs on its own cursor and its own connection, so neither can hold up the other. A failing
sink is retried with a capped, jittered backoff, which starts over when rows were delivered; what it
has not taken stays in ring and journal. `trouble` is the one verdict that log, status and lights
read.

Every row of a ring is counted once by Redis, whatever is tried again:

    received = published + overrun + unpublished + waiting
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from engine.alarm import Alarm
from engine.backoff import Backoff
from engine.clock import monotonic_s, wall_ns
from engine.errors import RedisUnavailableError, TableRefusesError
from engine.keep_trying import Trouble, keep_trying
from engine.records import GAP, RecordArray
from engine.writer import losses
from engine.writer.clock_doubt import ClockDoubt
from engine.writer.coverage import CoverageGate, is_coverage
from engine.writer.held_back import HeldBack
from engine.writer.knobs import KnobTable
from engine.writer.latency import Latency
from engine.writer.postgres import CommitResult, PostgresSink, Slice
from engine.writer.redis import Published, RedisSink
from engine.writer.source import Source
from engine.writer.sources import Sources
from engine.writer.table_waits import TableWaits

log = logging.getLogger(__name__)

_BACKOFF_MIN_S = 0.1
_BACKOFF_MAX_S = 5.0
_DURABLE_EVERY_S = 2.0
_QUARANTINE_LOOK_S = 10.0
"""Rows that somebody takes out of quarantine are seen after so long."""
_GAPS_WAITING_MAX = 64
"""Losses whose gaps wait for Redis; the oldest is overrun by one more."""
_STOCK_EVERY_S: Final = 2.0
_STOCK_KEY_S: Final = 0.002
"""To ask for the size of a stream takes some 6 µs, here and on the server: a third of a percent."""
_REFUSED_FOR_S: Final = 60.0
"""A key that Redis refuses is told for so long after the last try: its stream may be gone."""
_LEAST_ROWS: Final = 256
"""In one flush to a Redis that could not take more at once."""


def _trouble(what: str, consequence: str, backoff: Backoff | None) -> Trouble:
    return Trouble(what, consequence, backoff or Backoff(_BACKOFF_MIN_S, _BACKOFF_MAX_S), log)


def _done(trouble: Trouble) -> None:
    """Something was delivered, or everything has been."""
    if not trouble.has_worked:
        log.info("%s: connected", trouble.what)
    trouble.over()


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
        self._held_back = HeldBack(knobs)
        self._gate = CoverageGate()
        self._on_loss = on_loss
        self._durable_at_s = 0.0
        self._undurable = False
        self._tables = TableWaits()
        self._clock = ClockDoubt(sink.venue)
        self._waiting: set[tuple[str, int]] = set()
        """Sources whose rows do not go into the present flush, whatever there is of them."""
        self._quarantine_at_s = 0.0
        self.trouble = _trouble("database", "nothing is lost, trying again", backoff)
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
            if (source.key, source.epoch) not in self._waiting and not is_coverage(source)
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
            stored = await self._sink.cursor(source.key, source.epoch, 0)
            source.committed(stored, durable=False)
            source.stored_recv_ns = self._sink.last_recv_ns(source.key, source.epoch)
            oldest[source.key] = min(source.epoch, oldest.get(source.key, source.epoch))
        await self._sink.forget_cursors_before(oldest)
        await self._sink.close_coverage(self._sources.instance, self._sources)
        await self._sink.adopt_quarantine()
        await self._count_quarantine()

    async def _deliver(self) -> None:
        while True:
            await self._wait_for_rows()
            durable = self._durable_is_due()
            slices = self._slices()
            if slices or durable:
                try:
                    await self._commit(slices, durable=durable)
                except TableRefusesError as error:
                    self._tables.refused(error)
            _done(self.trouble)
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

    def _slices(self) -> list[Slice]:
        """What goes into the next transaction: contiguous pieces of each source, oldest first."""
        room = self._knobs.max_rows_per_copy
        slices: list[Slice] = []
        self._held_back.begin()
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
                    gaps = losses.declare(source, seq, first_seq, wall_ns())
                    slices.append(Slice(source.key, source.epoch, seq, seq, gaps, GAP, row_count=0))
                    self._held_back.lost(source.spec.kind, gaps["stream"].tolist())
                elif not len(records):
                    break
                slices.append(self._piece(source, seq, first_seq, records))
                seq = first_seq + len(records)
                room -= len(records)
            reached[source] = seq
        return [*slices, *self._gate.open(reached)]

    def _forget_waits(self) -> None:
        """What waited and is not there any more, because a knob or another writer took it."""
        self._waiting.clear()
        behind = [source for source in self._sources if source.backlog_rows]
        self._clock.only({(source.key, source.epoch) for source in behind})
        # Any row may come with gaps that are to be declared.
        self._tables.only(
            {source.spec.table for source in behind} | ({GAP.table} if behind else set())
        )

    def _is_to_wait(
        self, source: Source, records: RecordArray | None = None, *, lost: bool = False
    ) -> bool:
        """Whether nothing more of a source goes into the present flush; asked before its next rows
        are read, and again with them."""
        key, kind = (source.key, source.epoch), source.spec.kind
        if records is None:
            waits = self._clock.waits(key) or self._tables.waits(kind.value)
        else:
            waits = self._clock.doubts(key, kind, records)
            waits = waits or (lost and self._tables.waits(GAP.kind.value))
        if waits:
            self._waiting.add(key)
        return waits

    def _piece(self, source: Source, seq: int, first_seq: int, records: RecordArray) -> Slice:
        """The rows that knobs let through."""
        kind = source.spec.kind
        records = self._clock.put_right(records)
        chosen = self._knobs.to_store(records, kind)
        if chosen is not None:
            self._held_back.note(kind, records[~chosen], wall_ns())
        piece = Slice(source.key, source.epoch, seq, first_seq, records, source.spec)
        piece = piece.without(chosen)
        return replace(piece, records=self._held_back.mark(kind, piece.records))

    async def _commit(self, slices: Sequence[Slice], *, durable: bool) -> None:
        held_back = list(self._held_back.spans)
        result = await self._sink.commit(
            slices, held_back, durable=durable, impatient=self._tables.impatient
        )
        self._held_back.committed()
        self._tables.taken({s.spec.table for s in slices if len(s.records)})
        now_ns = wall_ns()
        by_source = {(source.key, source.epoch): source for source in self._sources}
        for piece in slices:
            source = by_source[piece.ring, piece.epoch]
            source.database_seq = piece.end_seq
            source.stored_recv_ns = piece.last_recv_ns or source.stored_recv_ns
            if piece.is_declaration:
                if self._on_loss:
                    self._on_loss(piece.records)
                continue
            if not piece.spec.columns:
                continue
            if piece.lost_count:
                self._report_loss(piece)
            self.skipped_rows[piece.spec.kind.value] += piece.held_back_count
            self.latency.add(piece.records, now_ns)
        for source in self._sources:
            source.committed(source.database_seq, durable=durable)
        self.stored_rows.update(result.stored_rows)
        self.inexact_rows += result.inexact_rows
        self._note_quarantined(result)
        self._undurable = not durable
        if durable:
            self._durable_at_s = monotonic_s()
            self._sources.remove_delivered()

    def _note_quarantined(self, result: CommitResult) -> None:
        """Count what was refused, tell Redis of its gaps, have what follows flagged."""
        self.quarantined_rows.update(result.quarantined_rows)
        self.in_quarantine.update(result.quarantined_rows)
        if result.gaps is not None and self._on_loss:
            self._on_loss(result.gaps)
        for kind, slot in result.interrupted:
            self._held_back.lost(kind, [slot])

    def _report_loss(self, piece: Slice) -> None:
        """Rows that neither ring nor journal holds any more: damage, or a restored database."""
        self.lost_by_kind[piece.spec.kind.value] += piece.lost_count
        log.error(
            "%s/%d: rows %d to %d are neither in the database nor in the journal: declared as gaps",
            piece.ring, piece.epoch, piece.start_seq, piece.first_seq - 1,
        )  # fmt: skip

    async def finish(self) -> None:
        """Wait until every row is stored for good; cancel it to give up."""
        while not all(source.is_delivered for source in self._sources):
            self._durable_at_s = 0.0
            self._undurable = True
            self.arrived.ring()
            await asyncio.sleep(0.01)


class RedisDelivery:
    """Live rings to Redis. Lags at most a ring; what it could not take is counted as overrun."""

    def __init__(
        self,
        sources: Sources,
        sink: RedisSink,
        knobs: KnobTable,
        backoff: Backoff | None = None,
    ) -> None:
        self._sources = sources
        self._sink = sink
        self._knobs = knobs
        self.trouble = _trouble("redis", "the database is not affected, trying again", backoff)
        self.latency = Latency()
        self.published_rows: Counter[str] = Counter()
        self.overrun_rows: Counter[str] = Counter()
        self.unpublished_rows: Counter[str] = Counter()
        self.arrived = Alarm()
        self._gaps: deque[RecordArray] = deque()
        self._refusals: dict[str, tuple[float, str]] = {}
        """By key: when Redis last refused it alone, and why."""
        self._in_flight: tuple[list[Slice], list[RecordArray]] = [], []
        """What was sent, until it is known what became of it."""
        self._rows_at_once = knobs.flush_rows
        self._stock_due_s = monotonic_s() + _STOCK_EVERY_S

    def declare(self, gaps: RecordArray) -> None:
        """Publish gaps the database has just been told, with the next rows."""
        chosen = self._knobs.to_publish(gaps)
        self._gaps.append(gaps if chosen is None else gaps[chosen])
        oldest = len(self._in_flight[1])
        if len(self._gaps) - oldest > _GAPS_WAITING_MAX:
            self.overrun_rows[GAP.kind.value] += len(self._gaps[oldest])
            del self._gaps[oldest]

    async def run(self) -> None:
        """Publish until cancelled."""
        await keep_trying(self._work, self.trouble)

    def rows_arrived(self) -> None:
        """Rows were pumped; live data is published at once."""
        self.arrived.ring()

    @property
    def is_idle(self) -> bool:
        """Whether Redis has everything."""
        return all(s.redis_seq >= s.head_seq for s in self._live)

    @property
    def _live(self) -> list[Source]:
        """The rings whose rows are for readers: what is said of coverage is the database's."""
        return [s for s in self._sources if s.is_live and not is_coverage(s)]

    @property
    def waiting_rows(self) -> int:
        """Rows in the rings that Redis was not given yet."""
        return sum(max(s.head_seq - max(s.redis_seq, s.redis_counted_seq), 0) for s in self._live)

    @property
    def memory_bytes(self) -> tuple[int, int]:
        """What the streams take in Redis, and what they may."""
        return self._sink.room.used_bytes, self._sink.room.budget_bytes

    def note_overrun(self) -> None:
        """Count the rows that left the rings before Redis had them. What became of those that are
        under way is known when they are back.
        """
        under_way = {(piece.ring, piece.epoch) for piece in self._in_flight[0]}
        for source in self._live:
            oldest = source.ring_first_seq
            if (source.key, source.epoch) in under_way:
                continue
            if source.redis_seq < oldest:
                missed = oldest - max(source.redis_seq, source.redis_counted_seq)
                if missed > 0:
                    self.overrun_rows[source.spec.kind.value] += missed
                    source.redis_counted_seq = oldest
                source.redis_seq = oldest

    async def _work(self) -> None:
        try:
            await self._connect()
            await self._deliver()
        except RedisUnavailableError:
            self._rows_at_once = max(self._rows_at_once // 2, _LEAST_ROWS)
            raise

    async def _connect(self) -> None:
        await self._sink.connect()
        cursors: dict[tuple[str, int], int] = {}
        for source in self._live:
            published = await self._sink.cursor(source.key, source.epoch)
            if published is not None:
                self._resume(source, min(published, source.head_seq))
            source.redis_is_known = True
            cursors[source.key, source.epoch] = source.redis_seq
        self._in_flight = [], []
        await self._sink.introduce(cursors)

    def _resume(self, source: Source, published: int) -> None:
        """Go on where the server says: after rows whose answer was lost, or before those that it
        has lost since. In the first life of a writer that is where its predecessor was.
        """
        sent, gaps = self._in_flight
        for piece in sent:
            if (piece.ring, piece.epoch) == (source.key, source.epoch) and (
                piece.end_seq <= published
            ):
                self._account([piece], Published())
                self._gaps_published(gaps)
                gaps.clear()
        counted = source.redis_counted_seq
        if published > counted:
            if source.redis_is_known:
                self.published_rows[source.spec.kind.value] += published - counted
            source.redis_counted_seq = published
        elif not source.redis_is_known and counted == source.redis_seq:
            source.redis_counted_seq = min(counted, max(published, source.ring_first_seq))
        source.redis_seq = published

    async def _deliver(self) -> None:
        while True:
            if monotonic_s() >= self._stock_due_s:
                await self._sink.take_stock()
                pause_s = max(_STOCK_EVERY_S, _STOCK_KEY_S * len(self._sink.room.keys))
                self._stock_due_s = monotonic_s() + pause_s
            slices = self._slices()
            if not slices:
                self._delivered()
                await self.arrived.wait(_STOCK_EVERY_S)
                continue
            self._in_flight = slices, list(self._gaps)
            published = await self._sink.publish(*self._in_flight)
            self._account(slices, published)
            self._gaps_published(self._in_flight[1])
            self._in_flight = [], []
            self._advance(slices)
            self._rows_at_once = min(self._rows_at_once * 2, self._knobs.flush_rows)
            self._note_refusals(published)
            self._delivered()

    def _delivered(self) -> None:
        """Something was delivered, or everything has been; what is refused alone stays a trouble
        while it is.
        """
        now_s = monotonic_s()
        self._refusals = {
            key: (at_s, text)
            for key, (at_s, text) in self._refusals.items()
            if now_s - at_s < _REFUSED_FOR_S
        }
        for _, text in self._refusals.values():
            self.trouble.met(text)
            return
        _done(self.trouble)

    def _note_refusals(self, published: Published) -> None:
        for key in published.written:
            self._refusals.pop(key, None)
        now_s = monotonic_s()
        self._refusals |= {key: (now_s, text) for key, text in published.refusals.items()}

    def _account(self, slices: Sequence[Slice], published: Published) -> None:
        """Count the rows of a flush, each once: what is sent again after a server has lost it was
        counted before.
        """
        now_ns, refused = wall_ns(), published.refused_rows.copy()
        by_source = {(source.key, source.epoch): source for source in self._sources}
        for piece in slices:
            source, kind = by_source[piece.ring, piece.epoch], piece.spec.kind.value
            before = max(source.redis_counted_seq - piece.first_seq, 0)
            row_count = max(piece.end_seq - piece.first_seq - before, 0)
            kept = row_count if piece.kept is None else int(np.sum(piece.kept >= before))
            not_taken = min(refused[kind], kept)
            self.published_rows[kind] += kept - not_taken
            if not_taken:
                refused[kind] -= not_taken
                self.overrun_rows[kind] += not_taken
            self.unpublished_rows[kind] += row_count - kept
            self.latency.add(piece.records, now_ns)
            source.redis_counted_seq = max(source.redis_counted_seq, piece.end_seq)

    def _gaps_published(self, gaps: Sequence[RecordArray]) -> None:
        for records in gaps:
            self._gaps.popleft()
            self.published_rows[GAP.kind.value] += len(records)

    def _advance(self, slices: Sequence[Slice]) -> None:
        ends = {(p.ring, p.epoch): p.end_seq for p in slices}
        for source in self._sources:
            source.redis_seq = ends.get((source.key, source.epoch), source.redis_seq)

    def _slices(self) -> list[Slice]:
        self.note_overrun()
        slices: list[Slice] = []
        for source in self._live:
            if source.redis_seq >= source.head_seq:
                continue
            seq, records = source.read(source.redis_seq, self._rows_at_once)
            if len(records):
                piece = Slice(source.key, source.epoch, seq, seq, records, source.spec)
                slices.append(piece.without(self._knobs.to_publish(records)))
        return slices
