"""The whole engine in one message: what the terminal view, `--json` and the control process show.

Children count from their own birth. The totals here count from the engine's: when a child is born
again, what its predecessor had counted is kept and added.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Literal

import msgspec

from engine.base.clock import monotonic_s
from engine.data.kinds import NOT_MARKET_DATA
from engine.data.slots import StreamKey, StreamKind
from engine.messages.account import Account, Moves, RingMoves
from engine.messages.commands import (
    Knobs,
    LatencyHistogram,
    ShardStatus,
    StreamCounts,
    StreamState,
    StreamStatus,
    WriterStatus,
    sum_by_kind,
)
from engine.messages.flush_delay import FlushDelay

Light = Literal["green", "yellow", "red"]
Judgement = tuple[Light, str]
Phase = Literal["starting", "running", "draining", "stopped"]
ChildState = Literal["starting", "up", "restarting", "ended"]

KINDS_OF_STREAM: dict[StreamKind, tuple[str, ...]] = {
    StreamKind.TRADES: ("trade",),
    StreamKind.L2_BOOK: ("book",),
    StreamKind.TICKER: ("quote",),
    StreamKind.FUNDING: ("funding",),
    StreamKind.OPEN_INTEREST: ("open_interest",),
    StreamKind.FUNDING_OPEN_INTEREST: ("funding", "open_interest"),
    StreamKind.LIQUIDATIONS: ("liquidation",),
}
"""The record kinds that each kind of stream produces: one row of each, or none of any."""

_QUANTILES = (0.5, 0.9, 0.99)
_STEPS_A_DECADE = 10
_RECENT_S = 60.0
_LOOK_EVERY_S = 1.0


class ChildReport(msgspec.Struct):
    """One child process."""

    name: str
    state: ChildState = "starting"
    pid: int = 0
    restart_count: int = 0
    reason: str = ""


class StreamReport(msgspec.Struct):
    """One stream, with totals since the engine started."""

    slot: int
    venue: str
    symbol: str
    kind: str
    shard: int
    transport: str = "Ws"
    knobs: Knobs = Knobs()
    added_ns: int = 0
    state: StreamState = StreamState.PENDING
    reason: str = ""
    frame_count: int = 0
    row_count: int = 0
    gap_count: int = 0
    missing_count: int = 0
    duplicate_count: int = 0
    refused_count: int = 0
    last_recv_ns: int = 0


class ShardReport(msgspec.Struct):
    """One shard."""

    child: ChildReport
    shard: int
    cpu: int | None = None
    connection_count: int = 0
    reconnect_count: int = 0
    malformed_by_reason: dict[str, int] = {}
    loop_lag_ms: float = 0.0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    taken_s: float = 0.0
    """When it said so, with its streams, on the monotonic clock; 0: not yet."""


class WriterReport(msgspec.Struct):
    """The writer and its sinks. Rows are by record kind, since the engine started."""

    child: ChildReport
    received_rows: dict[str, int] = {}
    stored_rows: dict[str, int] = {}
    published_rows: dict[str, int] = {}
    overrun_rows: dict[str, int] = {}
    quarantined_rows: dict[str, int] = {}
    quarantine_rows: dict[str, int] = {}
    """Rows that are in quarantine now, also those of earlier engines on this state directory."""
    waits_for: str = ""
    """Why rows wait although the database is there; empty while none do."""
    dropped_rows: dict[str, int] = {}
    skipped_rows: dict[str, int] = {}
    unpublished_rows: dict[str, int] = {}
    inexact_rows: int = 0
    lost_rows: int = 0
    """Rows that neither ring nor journal held when the database was ready for them: damage, or a
    database that was set back. They are in the ledger as gaps."""
    lost_by_kind: dict[str, int] = {}
    moves: dict[str, Moves] = {}
    """What the rings took and the database's cursors passed."""
    journal_error: str = ""
    """Why rows are not journalled; empty while they are."""
    database_state: str = "starting"
    database_error: str = ""
    redis_state: str = "starting"
    redis_error: str = ""
    redis_bytes: int = 0
    """What the streams in Redis take, and what they may."""
    redis_budget_bytes: int = 0
    backlog_rows: int = 0
    flush_delay_s: float = 0.0
    """Age of the rows that are being stored."""
    journal_bytes: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    latency_us: dict[str, dict[str, float]] = {}
    """Percentiles by stage, since the writer was born."""
    recent_latency_us: dict[str, dict[str, float]] = {}
    """The same of the last minute; a stage is empty where nothing passed it in that time."""
    taken_s: float = 0.0
    """When it said so, on the monotonic clock; 0: not yet."""


class LimiterReport(msgspec.Struct):
    """One budget of one venue, as `GET /limiters` shows it."""

    venue: str
    pool: str
    budget: float
    window_s: float | None
    """None where it is a limit on what is held at once."""
    used: float
    venue_used: float | None = None
    """What the venue's own header said last."""
    blocked_s: float = 0.0
    """Seconds until requests are allowed again (403, 418, 429, 451)."""
    waiting_count: int = 0
    others_used: float | None = None
    """Of `used`, what other engines on the address spent; None where budgets are not shared."""
    blocked_reason: str = ""
    """What the venue said; empty where nobody asked it."""


class EngineStatus(msgspec.Struct):
    """Everything, at one moment."""

    status: Light
    reason: str
    phase: Phase
    instance: str
    uptime_s: float
    shards: list[ShardReport]
    writer: WriterReport
    control: ChildReport
    streams: list[StreamReport]
    limiters: list[LimiterReport] = []
    counts_by_kind: dict[StreamKind, StreamCounts] = {}
    """Of all streams since the engine started, also of those that were removed."""
    servers: list[ChildReport] = []
    """The private database and Redis, where they are the engine's own."""

    def rows_by_kind(self) -> dict[str, int]:
        """Rows the shards put into their rings, by record kind; never fewer than before."""
        return self._by_kind(lambda counts: counts.row_count)

    def refused_by_kind(self) -> dict[str, int]:
        """Rows that came and could not be read, by record kind."""
        return self._by_kind(lambda counts: counts.refused_count)

    def _by_kind(self, count: Callable[[StreamCounts], int]) -> dict[str, int]:
        rows: Counter[str] = Counter()
        for stream_kind, counts in self.counts_by_kind.items():
            kinds = KINDS_OF_STREAM[stream_kind]
            for kind in kinds:
                rows[kind] += count(counts) // len(kinds)
        return dict(rows)

    def accounts(self) -> dict[str, Account]:
        """What became of the rows of market data, by kind; of none where there is no database.
        Exact at the end: while it runs, shards and writer are not heard at the same moment.
        """
        if self.writer.database_state == "off":
            return {}
        writer = self.writer
        counted = {
            "stored": writer.stored_rows, "skipped": writer.skipped_rows,
            "quarantined": writer.quarantined_rows, "lost": writer.lost_by_kind,
            "refused": self.refused_by_kind(), "dropped": writer.dropped_rows,
        }  # fmt: skip
        kinds = set().union(*counted.values(), writer.moves) - NOT_MARKET_DATA
        return {
            kind: Account.of(
                writer.moves.get(kind, Moves()),
                {name: rows.get(kind, 0) for name, rows in counted.items()},
            )
            for kind in sorted(kinds)
        }


class StreamTotals:
    """Keeps a stream's counters growing across the lives of its shards."""

    def __init__(self, slot: int, key: StreamKey, shard: int) -> None:
        self.report = StreamReport(
            slot, key.venue, key.symbol, key.kind.value, shard, key.transport.value
        )
        self._base = dict.fromkeys(StreamCounts._fields, 0)

    def update(self, status: StreamStatus) -> None:
        """Take in what the shard says now."""
        report = self.report
        report.state, report.reason = status.state, status.reason
        report.last_recv_ns = max(report.last_recv_ns, status.last_recv_ns)
        for name in StreamCounts._fields:
            setattr(report, name, self._base[name] + getattr(status, name))

    def shard_ended(self, reason: str) -> None:
        """The shard is gone: its counts become the base of the next one's."""
        self._base = {name: getattr(self.report, name) for name in StreamCounts._fields}
        self.report.state, self.report.reason = StreamState.PENDING, reason


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

    def update(self, status: ShardStatus) -> None:
        """Take in what the shard says now."""
        self.by_kind = sum_by_kind([self._base, status.counts_by_kind])

    def shard_ended(self) -> None:
        """The shard is gone: its counts become the base of the next one's."""
        self._base = self.by_kind


class WriterTotals:
    """Keeps the writer's counters growing across its lives."""

    COUNTS = (
        "stored_rows", "published_rows", "overrun_rows", "quarantined_rows", "skipped_rows",
        "unpublished_rows", "lost_by_kind",
    )  # fmt: skip

    def __init__(self, clock_s: Callable[[], float] = monotonic_s) -> None:
        self.report = WriterReport(ChildReport("writer"))
        self._clock_s = clock_s
        self._flush_delay = FlushDelay()
        self._recent: dict[str, RecentLatency] = {}
        self._base: dict[str, dict[str, int]] = {name: {} for name in self.COUNTS}
        self._inexact_base = self._lost_base = 0
        self._rings = RingMoves()
        self._dropped: dict[tuple[str, int], int] = {}
        self._dropped_base: Counter[str] = Counter()
        self._kind_of_ring: dict[tuple[str, int], str] = {}

    def update(self, status: WriterStatus) -> None:
        """Take in what the writer says now."""
        report = self.report
        for name in self.COUNTS:
            total = Counter(self._base[name]) + Counter(getattr(status, name))
            setattr(report, name, dict(total))
        report.inexact_rows = self._inexact_base + status.inexact_rows
        report.lost_rows = self._lost_base + status.lost_rows
        for name in (
            "received_rows", "database_state", "database_error", "redis_state", "redis_error",
            "redis_bytes", "redis_budget_bytes", "backlog_rows", "journal_bytes", "journal_error",
            "rss_bytes", "cpu_s", "quarantine_rows", "waits_for",
        ):  # fmt: skip
            setattr(report, name, getattr(status, name))
        report.latency_us = {
            stage: summarize(histogram) for stage, histogram in status.latency.items()
        }
        report.taken_s = now_s = self._clock_s()
        taken = sum(report.stored_rows.values()) + sum(report.quarantined_rows.values())
        report.flush_delay_s = self._flush_delay.update(now_s, taken, status.backlog_rows)
        report.recent_latency_us = {
            stage: summarize(self._recent.setdefault(stage, RecentLatency()).update(each, now_s))
            for stage, each in status.latency.items()
        }
        self._count_drops(status)
        report.moves = self._rings.update(status.rings)

    def writer_ended(self) -> None:
        """The writer is gone: its counts become the base of the next one's."""
        self._base = {name: dict(getattr(self.report, name)) for name in self.COUNTS}
        self._rings.writer_ended()
        self._recent.clear()  # its successor's histograms begin anew
        self._inexact_base = self.report.inexact_rows
        self._lost_base = self.report.lost_rows

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
