"""What a person sees while the engine runs: a live table in a terminal, else lines now and then."""

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from engine.clock import monotonic_s, wall_ns
from engine.commands import StreamState
from engine.instance import EngineNote
from engine.logs import last_lines
from engine.status import EngineStatus, StreamReport

_log = logging.getLogger(__name__)

_LIVE_INTERVAL_S = 0.4
_PLAIN_INTERVAL_S = 5.0
_PLAIN_LOOK_S = 0.25
_LOG_LINES = 6
_STREAM_LINES_MAX = 24
_COLOUR = {"green": "green", "yellow": "yellow", "red": "red"}
_STATE_STYLE = {
    StreamState.LIVE: "green",
    StreamState.STALE: "red",
    StreamState.BACKOFF: "red",
    StreamState.FAILED: "red",
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where to look: shown at start and beside the table."""

    psql: str
    redis: str
    control: str
    dashboard: str
    log_file: Path

    @classmethod
    def of(cls, note: EngineNote, redis_prefix: str, log_file: Path) -> "Addresses":
        """From the engine's note."""
        key = f"{redis_prefix}:{{trades,book,quotes,…}}:<venue>:<symbol>"
        redis = f"{note.redis_cli}   stream keys {key}" if note.redis_cli else "off"
        return cls(note.psql or "off", redis, note.control_url, f"{note.control_url}/ui", log_file)

    def lines(self) -> list[str]:
        """One line each."""
        return [
            f"database  {self.psql}",
            f"redis     {self.redis}",
            f"control   {self.control}",
            f"dashboard {self.dashboard}",
            f"log       {self.log_file}",
        ]


@dataclass(slots=True)
class _Rates:
    """Differences of two looks at the same counters."""

    at_s: float = 0.0
    counts: dict[str, int] | None = None

    def update(self, counts: dict[str, int]) -> dict[str, float]:
        now_s = monotonic_s()
        elapsed_s = now_s - self.at_s
        before = self.counts or counts
        rates = {
            name: max(0, count - before.get(name, 0)) / elapsed_s if elapsed_s > 0 else 0.0
            for name, count in counts.items()
        }
        self.at_s, self.counts = now_s, counts
        return rates


async def watch(status: Callable[[], EngineStatus], addresses: Addresses, *, live: bool) -> None:
    """Show the engine until cancelled."""
    rates = _Rates()
    rates.update(_counts(status()))
    if not live:
        await _log_lines(status, rates)
    console = Console(file=sys.stdout)
    with Live(console=console, auto_refresh=False, transient=False) as screen:
        while True:
            now = status()
            screen.update(render(now, rates.update(_counts(now)), addresses), refresh=True)
            await asyncio.sleep(_LIVE_INTERVAL_S)


async def _log_lines(status: Callable[[], EngineStatus], rates: _Rates) -> None:
    """A line every few seconds, and one at once when the number of live streams has changed."""
    shown, due_s = -1, monotonic_s() + _PLAIN_INTERVAL_S
    while True:
        await asyncio.sleep(_PLAIN_LOOK_S)
        now = status()
        live = _live_count(now)
        settled = live != shown and live in (0, len(now.streams)) and bool(now.streams)
        if settled or monotonic_s() >= due_s:
            _log.info(plain_line(now, rates.update(_counts(now))))
            shown, due_s = live, monotonic_s() + _PLAIN_INTERVAL_S


def _live_count(status: EngineStatus) -> int:
    return sum(stream.state is StreamState.LIVE for stream in status.streams)


def plain_line(status: EngineStatus, rates: dict[str, float]) -> str:
    """The engine in one line."""
    live = _live_count(status)
    writer = status.writer
    return (
        f"{status.status} ({status.reason}) streams {live}/{len(status.streams)} live,"
        f" {rates.get('frames', 0):,.0f} frames/s, {rates.get('rows', 0):,.0f} rows/s in,"
        f" {rates.get('stored', 0):,.0f} rows/s stored, {rates.get('published', 0):,.0f} rows/s"
        f" published, backlog {writer.backlog_rows:,}, gaps"
        f" {sum(stream.gap_count for stream in status.streams)}, dropped"
        f" {sum(writer.dropped_rows.values())}, database {writer.database_state}, redis"
        f" {writer.redis_state}"
    )


def render(status: EngineStatus, rates: dict[str, float], addresses: Addresses) -> RenderableType:
    """The live view."""
    head = Text.assemble(
        ("● ", _COLOUR[status.status]),
        (f"{status.status}", f"bold {_COLOUR[status.status]}"),
        f"  {status.reason}   up {status.uptime_s:,.0f} s",
    )
    where = Text("\n".join(addresses.lines()), style="dim", overflow="fold")
    tail = Text(
        "\n".join(last_lines(addresses.log_file, _LOG_LINES)), overflow="ellipsis", no_wrap=True
    )
    return Group(
        head,
        _stream_table(status, rates),
        _writer_line(status, rates),
        where,
        Panel(tail, title="log", title_align="left", border_style="dim"),
        Text("Ctrl-C drains and stops", style="dim"),
    )


def _stream_table(status: EngineStatus, rates: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("venue", "symbol", "kind", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("frames/s", "rows/s", "rows", "last", "gaps", "missing", "dups"):
        table.add_column(name, justify="right", no_wrap=True)
    shown = sorted(
        status.streams, key=lambda stream: (stream.state is StreamState.LIVE, stream.slot)
    )[:_STREAM_LINES_MAX]
    for stream in sorted(shown, key=lambda stream: stream.slot):
        style = _STATE_STYLE.get(stream.state, "yellow")
        state = stream.state.value + (f": {stream.reason}" if stream.reason else "")
        table.add_row(
            stream.venue, stream.symbol, stream.kind, Text(state[:40], style=style),
            f"{rates.get(f'frames {stream.slot}', 0):,.0f}",
            f"{rates.get(f'rows {stream.slot}', 0):,.0f}",
            f"{stream.row_count:,}", _age(stream), f"{stream.gap_count:,}",
            f"{stream.missing_count:,}", f"{stream.duplicate_count:,}",
        )  # fmt: skip
    hidden = len(status.streams) - len(shown)
    if hidden:
        table.add_row(f"and {hidden} more", *[""] * 10)
    table.add_row(
        "all", "", "", "",
        f"{rates.get('frames', 0):,.0f}", f"{rates.get('rows', 0):,.0f}",
        f"{sum(stream.row_count for stream in status.streams):,}", "",
        f"{sum(stream.gap_count for stream in status.streams):,}",
        f"{sum(stream.missing_count for stream in status.streams):,}",
        f"{sum(stream.duplicate_count for stream in status.streams):,}",
        style="bold",
    )  # fmt: skip
    return table


def _writer_line(status: EngineStatus, rates: dict[str, float]) -> Text:
    writer = status.writer
    latency = writer.latency_us.get("database", {}).get("p99")
    parts = [
        f"stored {rates.get('stored', 0):,.0f} rows/s ({sum(writer.stored_rows.values()):,})",
        f"published {rates.get('published', 0):,.0f} rows/s",
        f"backlog {writer.backlog_rows:,}",
        f"dropped {sum(writer.dropped_rows.values()):,}",
        f"journal {writer.journal_bytes / 2**20:,.0f} MB",
        f"database {writer.database_state}",
        f"redis {writer.redis_state}",
    ]
    if latency is not None:
        parts.append(f"received to committed p99 {latency / 1e3:,.0f} ms")
    for name, error in (("database", writer.database_error), ("redis", writer.redis_error)):
        if error:
            parts.append(f"{name}: {error}")
    return Text("writer  " + " · ".join(parts))


def _counts(status: EngineStatus) -> dict[str, int]:
    counts = {
        "frames": sum(stream.frame_count for stream in status.streams),
        "rows": sum(stream.row_count for stream in status.streams),
        "stored": sum(status.writer.stored_rows.values()),
        "published": sum(status.writer.published_rows.values()),
    }
    for stream in status.streams:
        counts[f"frames {stream.slot}"] = stream.frame_count
        counts[f"rows {stream.slot}"] = stream.row_count
    return counts


def _age(stream: StreamReport) -> str:
    if not stream.last_recv_ns:
        return "-"
    return f"{max(0, wall_ns() - stream.last_recv_ns) / 1e9:.1f} s"
