"""The engine's status as events: what it holds, in the shape the page reads.

Streams travel as values of `STREAM_COLUMNS`: hundreds of them go out a few times a second.
A status is encoded once, however many viewers there are.
"""

import asyncio
import time
from operator import attrgetter
from typing import Any

import msgspec

from control.state.backend import Backend
from control.state.gap_log import GapsSeen
from control.state.health import HealthLight
from control.ui.event_stream import KEEP_ALIVE, Frames, event_frame
from control.ui.knob_ranges import KnobRange
from control.ui.state import DashboardLimits, is_ending
from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import GapReason
from engine.messages.status import EngineStatus, LimiterReport, ShardReport
from engine.messages.streams import KNOB_OF_SINK
from engine.messages.upkeep import DatabaseReport
from engine.process.usage import resident_bytes


class Hello(msgspec.Struct):
    """The first event: what does not change while a viewer watches."""

    stream_columns: tuple[str, ...]
    knob_ranges: dict[str, KnobRange]
    may_command: bool
    """Whether the viewer's token allows more than looking."""


_COLUMNS = {
    "slot": "slot", "venue": "venue", "symbol": "symbol", "kind": "kind", "transport": "transport",
    "shard": "shard", "state": "state", "reason": "reason", "rows": "row_count",
    "gaps": "gap_count", "missing": "missing_count", "duplicates": "duplicate_count",
    "last_recv_ns": "last_recv_ns",
    **{{"database": "db"}.get(name, name): f"knobs.{it}" for name, it in KNOB_OF_SINK.items()},
    "flush_rows": "knobs.flush_rows", "flush_interval_ms": "knobs.flush_interval_ms",
    "max_rows_per_copy": "knobs.max_rows_per_copy",
}  # fmt: skip
"""What the page's table calls things, and where a `StreamReport` has them."""
STREAM_COLUMNS = tuple(_COLUMNS)
_MS = 1_000_000
_REASONS = {int(reason): reason.name.lower() for reason in GapReason}
_stream_values = attrgetter(*_COLUMNS.values())


class ShardLine(msgspec.Struct):
    """One shard in a few numbers."""

    shard: int
    state: str
    connections: int
    reconnects: int
    malformed: int
    loop_lag_ms: float
    rss_bytes: int
    cpu_s: float

    @classmethod
    def of(cls, report: ShardReport) -> "ShardLine":
        """From the engine's report."""
        return cls(
            report.shard, report.child.state, report.connection_count, report.reconnect_count,
            sum(report.malformed_by_reason.values()), report.loop_lag_ms, report.rss_bytes,
            report.cpu_s,
        )  # fmt: skip


class ControlLine(msgspec.Struct):
    """The process that serves the page, in a few numbers."""

    state: str
    loop_lag_ms: float
    rss_bytes: int
    cpu_s: float


class Snapshot(msgspec.Struct):
    """The body of a `status` event."""

    now_ms: int
    phase: str
    instance: str
    uptime_s: float
    verdict: HealthLight
    """The engine as a whole; green only if all below is."""
    said: HealthLight
    """What the engine says of itself: a worse light must not hide a stream in trouble."""
    lights: dict[str, HealthLight]
    writer: dict[str, Any] | None = None
    """See `writer_line`."""
    control: ControlLine | None = None
    shards: list[ShardLine] = []
    limiters: list[LimiterReport] = []
    streams: list[tuple[Any, ...]] = []
    """Values of `STREAM_COLUMNS`."""
    storage: list[DatabaseReport] = []


def writer_line(status: EngineStatus) -> dict[str, Any]:
    """The writer in a few numbers; rows are of all kinds together, latencies of the last minute."""
    writer, database = status.writer, status.writer.database
    total, every = writer.database_rows, writer.databases
    return {
        "state": writer.child.state,
        "received": sum(writer.received_rows.values()),
        "stored": total().total(),
        "published": writer.live_rows().total(),
        "overrun": writer.live_rows("missed_rows").total(),
        "dropped": sum(writer.dropped_rows.values()),
        "lost": total("missed_rows").total(),
        "quarantined": total("set_aside_rows").total(),
        "inexact": sum(each.inexact_rows for each in every),
        "backlog_rows": max(each.backlog_rows for each in every),
        "journal_bytes": writer.journal_bytes,
        **{f"{sink.name}_state": sink.state for sink in (database, *writer.live)},
        "databases": [
            [each.name, each.state, sum(each.rows.values()), each.backlog_rows] for each in every
        ],
        "rss_bytes": writer.rss_bytes,
        "cpu_s": writer.cpu_s,
        "latency_us": writer.recent_latency_us,
    }


def snapshot(state: Backend) -> Snapshot:
    """Everything, now."""
    status = state.status
    verdict = state.verdict()
    lights = dict(state.health.lights())
    now_ms = wall_ns() // 1_000_000
    if status is None:
        return Snapshot(now_ms, "starting", "", 0.0, verdict, verdict, lights)
    return Snapshot(
        now_ms, status.phase, status.instance, status.uptime_s, verdict,
        HealthLight(status.status, status.reason), lights,
        writer_line(status),
        ControlLine(
            status.control.state, state.health.own_loop_lag_ms, resident_bytes(),
            time.process_time(),
        ),
        [ShardLine.of(shard) for shard in status.shards],
        status.limiters,
        list(map(_stream_values, status.streams)),
        status.upkeep,
    )  # fmt: skip


def gap_lines(gaps: GapsSeen) -> list[tuple[int, str, int, int, int, int]]:
    """Slot, cause, when found, from, to (ms since 1970), and rows, -1 for nobody knows."""
    return [
        (slot, _REASONS.get(reason, str(reason)), found // _MS, begin // _MS, end // _MS, missing)
        for slot, reason, found, begin, end, missing in gaps.tolist()
    ]


class StatusFeed:
    """The status as frames, shared by all viewers."""

    def __init__(self, state: Backend, limits: DashboardLimits) -> None:
        self._state = state
        self._limits = limits
        self._frame = b""
        self._frame_of: EngineStatus | None = None
        self._framed_s = float("-inf")

    def frame(self, now_s: float) -> bytes:
        """The current status. Encoded anew when the supervisor has spoken, and once a second
        otherwise: silence changes the lights, too.
        """
        status = self._state.status
        if status is not self._frame_of or now_s - self._framed_s >= 1.0:
            self._frame = event_frame("status", snapshot(self._state))
            self._frame_of, self._framed_s = status, now_s
        return self._frame

    async def frames(self, hello: Hello) -> Frames:
        """What one viewer gets."""
        yield event_frame("hello", hello)
        sent, sent_s = b"", float("-inf")
        told_count = 0
        while True:
            now_s = monotonic_s()
            gaps = self._state.gaps
            if gaps.count > told_count:
                yield event_frame("gaps", gap_lines(gaps.after(told_count)))
                told_count = gaps.count
            frame = self.frame(now_s)
            if frame is not sent:
                sent, sent_s = frame, now_s
                yield frame
            elif now_s - sent_s >= self._limits.keep_alive_s:
                sent_s = now_s
                yield KEEP_ALIVE
            if is_ending(self._state.status):
                return
            await asyncio.sleep(self._limits.status_interval_s)
