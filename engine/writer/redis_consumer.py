"""Redis' consumer of the sources: live rows, best effort.

It runs on its own cursor and its own connection, so it holds up nobody. Every row of a ring is
counted once, whatever is tried again:

    received = published + overrun + unpublished + waiting
"""

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import RedisUnavailableError
from engine.base.keep_trying import keep_trying
from engine.data.kinds import GAP, RecordArray
from engine.data.layout import SourceKey
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Slice
from engine.writer.sink_trouble import delivered, sink_trouble
from engine.writer.sinks.postgres.coverage import is_coverage
from engine.writer.sinks.redis.sink import Published, RedisSink
from engine.writer.sources.latency import Latency
from engine.writer.sources.source import Source
from engine.writer.sources.sources import Sources

_log = logging.getLogger(__name__)

_GAPS_WAITING_MAX = 64
"""Losses whose gaps wait for Redis; the oldest is overrun by one more."""
_STOCK_EVERY_S: Final = 2.0
_STOCK_KEY_S: Final = 0.002
"""To ask for the size of a stream takes some 6 µs, here and on the server: a third of a percent."""
_REFUSED_FOR_S: Final = 60.0
"""A key that Redis refuses is told for so long after the last try: its stream may be gone."""
_LEAST_ROWS: Final = 256
"""In one flush to a Redis that could not take more at once."""


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
        self.trouble = sink_trouble(
            "redis", "the database is not affected, trying again", backoff, _log
        )
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
        under_way = {piece.source for piece in self._in_flight[0]}
        for source in self._live:
            oldest = source.ring_first_seq
            if source.key in under_way:
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
        cursors: dict[SourceKey, int] = {}
        for source in self._live:
            published = await self._sink.cursor(*source.key)
            if published is not None:
                self._resume(source, min(published, source.head_seq))
            source.redis_is_known = True
            cursors[source.key] = source.redis_seq
        self._in_flight = [], []
        await self._sink.introduce(cursors)

    def _resume(self, source: Source, published: int) -> None:
        """Go on where the server says: after rows whose answer was lost, or before those that it
        has lost since. In the first life of a writer that is where its predecessor was.
        """
        sent, gaps = self._in_flight
        for piece in sent:
            if piece.source == source.key and (piece.end_seq <= published):
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
        delivered(self.trouble, _log)

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
        by_source = {source.key: source for source in self._sources}
        for piece in slices:
            source, kind = by_source[piece.source], piece.spec.kind.value
            start_seq = max(source.redis_counted_seq, piece.start_seq)
            row_count = max(piece.end_seq - start_seq, 0)
            kept = row_count if piece.seqs is None else int(np.sum(piece.seqs >= start_seq))
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
        ends = {p.source: p.end_seq for p in slices}
        for source in self._sources:
            source.redis_seq = ends.get(source.key, source.redis_seq)

    def _slices(self) -> list[Slice]:
        self.note_overrun()
        slices: list[Slice] = []
        for source in self._live:
            if source.redis_seq >= source.head_seq:
                continue
            seq, records = source.read(source.redis_seq, self._rows_at_once)
            if len(records):
                piece = Slice.whole(source.key, source.spec, seq, records)
                slices.append(piece.keeping(self._knobs.to_publish(records)))
        return slices
