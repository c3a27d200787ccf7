"""Totals over the lives of children: children count from their own birth, the engine from its own.

When a child is born again, what its predecessor had counted is kept and added.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from engine.base.clock import monotonic_s
from engine.data.names import DEFAULT_DATABASE, StreamKey, StreamKind, Transport
from engine.messages.account import Moves, RingAccount, RingMoves
from engine.messages.pipes import ShardStatus
from engine.messages.status import ChildReport, ShardReport, StreamReport, WriterReport
from engine.messages.streams import StreamCounts, StreamState, StreamStatus, sum_by_kind
from engine.messages.writer import DatabaseThresholds, LatencyHistogram, SinkStatus, WriterStatus

_QUANTILES = (0.5, 0.9, 0.99)
_STEPS_A_DECADE = 10
_RECENT_S = 60.0
_LOOK_EVERY_S = 1.0
_DELAY_STEPS_MAX = 4096


class ShardCounts(msgspec.Struct):
    """What another program of this process must know to count on for a shard."""

    by_kind: dict[StreamKind, StreamCounts]
    base: dict[StreamKind, StreamCounts]
    are_least: bool = False


class WriterCounts(msgspec.Struct):
    """The same for the writer."""

    report: WriterReport
    base: dict[str, SinkStatus]
    rings: dict[str, list[RingAccount]]
    """By database."""
    dropped: list[tuple[str, int, str, int]]
    """Ring, epoch, kind, and how many it has dropped."""
    dropped_base: dict[str, int]
    accepted: dict[str, list[tuple[float, int]]]
    """By database, when it had accepted how many rows, on the monotonic clock."""


class StreamTotals:
    """Keeps a stream's counters growing across the lives of its shards."""

    def __init__(self, slot: int, key: StreamKey, shard: int) -> None:
        self.report = StreamReport(
            slot, key.venue, key.symbol, key.kind.value, shard, key.transport.value
        )
        self._base = dict.fromkeys(StreamCounts._fields, 0)

    @classmethod
    def of(cls, report: StreamReport, base: dict[str, int]) -> "StreamTotals":
        """Of a stream of which so much was counted before its shard was born."""
        key = StreamKey(
            report.venue, report.symbol, StreamKind(report.kind), Transport(report.transport)
        )
        totals = cls(report.slot, key, report.shard)
        totals.report, totals._base = report, base
        return totals

    @property
    def base(self) -> dict[str, int]:
        """What was counted before its shard was born."""
        return self._base

    def update(self, status: StreamStatus) -> None:
        """Take in what the shard says now."""
        report = self.report
        report.state, report.reason = status.state, status.reason
        report.last_recv_ns = max(report.last_recv_ns, status.last_recv_ns)
        for name in StreamCounts._fields:
            setattr(report, name, self._base[name] + getattr(status, name))

    def shard_ended(self, reason: str, state: StreamState = StreamState.PENDING) -> None:
        """The shard is gone: its counts become the base of the next one's."""
        self._base = {name: getattr(self.report, name) for name in StreamCounts._fields}
        self.report.state, self.report.reason = state, reason


class RecentLatency:
    """The last minute of a histogram that only grows: what it has counted since it was looked at
    a minute ago.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, list[int]]] = deque()

    def update(self, histogram: LatencyHistogram, now_s: float) -> LatencyHistogram:
        """Take in the counts since birth; return those of the last minute."""
        looks, counts = self._looks, histogram.counts
        if not looks:
            looks.append((now_s, [0] * len(counts)))
        if now_s - looks[-1][0] >= _LOOK_EVERY_S:
            looks.append((now_s, counts))
        while len(looks) > 1 and looks[1][0] <= now_s - _RECENT_S:
            looks.popleft()
        before = looks[0][1]
        return LatencyHistogram([now - then for now, then in zip(counts, before, strict=True)])


class ShardTotals:
    """Keeps what a shard counts, by kind of stream, growing across its lives. Nobody asks a shard
    that is killed for a last word: what it counted after its last status is not in here.
    """

    def __init__(self) -> None:
        self.by_kind: dict[StreamKind, StreamCounts] = {}
        self._base: dict[StreamKind, StreamCounts] = {}
        self.are_least = False
        """Whether a process was killed that may have counted more."""

    def estate(self) -> ShardCounts:
        """What `inherit` takes."""
        return ShardCounts(self.by_kind, self._base, self.are_least)

    def inherit(self, counts: ShardCounts) -> None:
        """Count on from there."""
        self.by_kind, self._base = counts.by_kind, counts.base
        self.are_least = counts.are_least

    def update(self, status: ShardStatus) -> None:
        """Take in what the shard says now."""
        self.by_kind = sum_by_kind([self._base, status.counts_by_kind])

    def shard_ended(self) -> None:
        """The shard was killed: its counts become the base of the next one's."""
        self._base = self.by_kind
        self.are_least = True

    def add(self, other: "ShardTotals") -> None:
        """Count what another shard had counted, which is gone for good."""
        self.are_least |= other.are_least
        self._base = sum_by_kind([self._base, other.by_kind])
        self.by_kind = sum_by_kind([self.by_kind, other.by_kind])


class FlushDelay:
    """How long ago the rows that are stored now were received: the database's lag in seconds. An
    outage of days is remembered from its beginning, in steps that grow with it.
    """

    def __init__(self) -> None:
        self._accepted: deque[tuple[float, int]] = deque()
        self._step_s = 0.0

    @property
    def accepted(self) -> list[tuple[float, int]]:
        """When how many rows had been accepted."""
        return list(self._accepted)

    def inherit(self, accepted: Iterable[tuple[float, int]]) -> None:
        """Go on from there."""
        self._accepted = deque(accepted)
        if len(self._accepted) > 1:
            self._step_s = (self._accepted[-1][0] - self._accepted[0][0]) / len(self._accepted)

    def update(self, now_s: float, stored: int, backlog: int) -> float:
        """Take in the counts; return the delay."""
        accepted = self._accepted
        if accepted and accepted[-1][1] > stored + backlog:  # other counters: a new engine
            accepted.clear()
        if len(accepted) < 2:
            self._step_s = 0.0
        if not accepted or now_s - accepted[-1][0] >= self._step_s:
            accepted.append((now_s, stored + backlog))
        if len(accepted) > _DELAY_STEPS_MAX:
            accepted = self._accepted = deque(list(accepted)[::2])
            self._step_s = (accepted[-1][0] - accepted[0][0]) / len(accepted)
        while len(accepted) > 1 and accepted[1][1] <= stored:
            accepted.popleft()
        return now_s - accepted[0][0] if backlog else 0.0


class WriterTotals:
    """Keeps the writer's counters growing across its lives."""

    def __init__(
        self,
        clock_s: Callable[[], float] = monotonic_s,
        thresholds: Mapping[str, DatabaseThresholds] | None = None,
    ) -> None:
        self.report = WriterReport(ChildReport("writer"), thresholds=dict(thresholds or {}))
        self._clock_s = clock_s
        self._flush_delays: defaultdict[str, FlushDelay] = defaultdict(FlushDelay)
        self._recent: dict[str, RecentLatency] = {}
        self._base: dict[str, SinkStatus] = {}
        self._rings: defaultdict[str, RingMoves] = defaultdict(RingMoves)
        """By database: its cursors."""
        self._dropped: dict[tuple[str, int], int] = {}
        self._dropped_base: Counter[str] = Counter()
        self._kind_of_ring: dict[tuple[str, int], str] = {}

    def estate(self) -> WriterCounts:
        """What `inherit` takes."""
        return WriterCounts(
            self.report,
            self._base,
            {name: rings.estate() for name, rings in self._rings.items()},
            [(*key, self._kind_of_ring[key], count) for key, count in self._dropped.items()],
            dict(self._dropped_base),
            {name: delay.accepted for name, delay in self._flush_delays.items()},
        )

    def inherit(self, counts: WriterCounts) -> None:
        """Count on from there, with the thresholds of now."""
        thresholds = self.report.thresholds
        self.report, self._base = counts.report, counts.base
        self.report.thresholds = thresholds
        for name, rings in counts.rings.items():
            self._rings[name].inherit(rings)
        for ring, epoch, kind, count in counts.dropped:
            self._dropped[ring, epoch], self._kind_of_ring[ring, epoch] = count, kind
        self._dropped_base = Counter(counts.dropped_base)
        for name, accepted in counts.accepted.items():
            self._flush_delays[name].inherit(accepted)

    def update(self, status: WriterStatus) -> None:
        """Take in what the writer says now."""
        report = self.report
        report.sinks = [_added(self._base.get(sink.name), sink) for sink in status.sinks]
        for name in ("journal_bytes", "journal_error", "rss_bytes", "cpu_s"):
            setattr(report, name, getattr(status, name))
        report.latency_us = {
            stage: summarize(histogram) for stage, histogram in status.latency.items()
        }
        report.taken_s = now_s = self._clock_s()
        report.flush_delays_s = {
            each.name: self._flush_delays[each.name].update(
                now_s, each.settled_rows, each.backlog_rows
            )
            for each in report.databases
        }
        report.flush_delay_s = max(report.flush_delays_s.values())
        report.recent_latency_us = {
            stage: summarize(self._recent.setdefault(stage, RecentLatency()).update(each, now_s))
            for stage, each in status.latency.items()
        }
        self._count_drops(status)
        report.moves = self._rings[DEFAULT_DATABASE].update(status.rings)
        # A ring that is gone, as its shard was succeeded, has been received all the same.
        report.received_rows = {
            kind: max(rows, report.moves.get(kind, Moves()).accepted)
            for kind, rows in status.received_rows.items()
        }
        report.moves_of = {
            name: self._rings[name].update(rings) for name, rings in status.rings_of.items()
        }

    def writer_ended(self) -> None:
        """The writer is gone: its counts become the base of the next one's."""
        self._base = {sink.name: sink for sink in self.report.sinks}
        for rings in self._rings.values():
            rings.writer_ended()
        self._recent.clear()  # its successor's histograms begin anew

    def _count_drops(self, status: WriterStatus) -> None:
        """Rings count drops themselves; a count that shrinks belongs to a new ring. What the rings
        of an earlier run had dropped before this engine is not this engine's.
        """
        for ring in status.rings:
            key = ring.ring, ring.epoch
            before = self._dropped.get(key)
            if before is None and ring.born_seq:
                self._dropped_base[ring.kind] -= ring.dropped_count
            elif before is not None and ring.dropped_count < before:
                self._dropped_base[ring.kind] += before
            self._dropped[key] = ring.dropped_count
            self._kind_of_ring[key] = ring.kind
        now = Counter(self._dropped_base)
        for name, count in self._dropped.items():
            now[self._kind_of_ring[name]] += count
        self.report.dropped_rows = dict(now)


def _added(before: SinkStatus | None, now: SinkStatus) -> SinkStatus:
    """What a sink's consumer says now, with what its predecessors had counted."""
    before = before or SinkStatus(now.name)
    counts: dict[str, Any] = {
        name: dict(Counter(getattr(before, name)) + Counter(getattr(now, name)))
        for name in SinkStatus.COUNTS
    }
    inexact_rows = before.inexact_rows + now.inexact_rows
    return msgspec.structs.replace(now, **counts, inexact_rows=inexact_rows)


def update_shard(report: ShardReport, status: ShardStatus) -> None:
    """Copy a shard's own numbers; its streams are totalled apart."""
    report.taken_s = monotonic_s()
    for name in (
        "connection_count", "reconnect_count", "malformed_by_reason", "loop_lag_ms", "rss_bytes",
        "cpu_s",
    ):  # fmt: skip
        setattr(report, name, getattr(status, name))


def summarize(histogram: LatencyHistogram) -> dict[str, float]:
    """Percentiles in microseconds. Each is its bucket's upper edge: never flattering."""
    total = sum(histogram.counts)
    if not total:
        return {}
    summary: dict[str, float] = {}
    for quantile in _QUANTILES:
        rank, seen = quantile * total, 0
        for bucket, count in enumerate(histogram.counts):
            seen += count
            if seen >= rank:
                summary[f"p{round(quantile * 100)}"] = _upper_edge_us(bucket)
                break
    last = max(bucket for bucket, count in enumerate(histogram.counts) if count)
    summary["max"] = _upper_edge_us(last)
    return summary


def _upper_edge_us(bucket: int) -> float:
    return round(float(10.0 ** ((bucket + 1) / _STEPS_A_DECADE)), 1)
