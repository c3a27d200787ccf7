"""What a person sees while the engine runs: a live table in a terminal, else lines now and then."""

import asyncio
import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from rich.cells import cell_len, set_cell_size
from rich.console import (
    Console,
    ConsoleOptions,
    Group,
    JustifyMethod,
    RenderableType,
    RenderResult,
)
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from control.cli.addresses import Addresses
from control.cli.terminal.rates import Rates
from control.cli.terminal.tables import age
from engine.base.clock import monotonic_s
from engine.base.tasks import in_thread
from engine.messages.status import EngineStatus, StreamReport, WriterReport
from engine.messages.streams import StreamState
from engine.process.logs import escaped, last_lines

_log = logging.getLogger(__name__)

_LIVE_INTERVAL_S = 0.4
_LAST_FRAME_S = 1.0
"""So long a terminal may take for the last frame."""
_PLAIN_INTERVAL_S = 60.0
_PLAIN_CHANGE_S = 5.0
"""What changes to and fro is said so often at most."""
_NUMBERS = re.compile(r"\d[\d,.]*")
_PLAIN_LOOK_S = 0.25
_SHOWN_RATES = {
    "received_frames": "frames", "received_rows": "rows", "stored_rows": "stored",
    "published_rows": "published",
}  # fmt: skip
_LOG_LINES = 6
_BRIEF_BELOW_LINES = 30
"""A terminal of fewer lines shows one way to each store; the log has the others."""
_PANEL_FRAME_LINES = 2
_TABLE_FRAME_LINES = 2
"""Its head and its totals."""
_PAGE_S = 5.0
"""So long each part of the streams that are well is shown, where not all have room."""
_STATE_WIDTH_MIN, _STATE_WIDTH_MAX = 10, 40
_WORDS = frozenset({"venue", "symbol", "kind", "state"})
_DROPPED_FIRST = ("dups", "frames/s", "rows", "missing", "last")
"""Columns that a narrow terminal does without, in this order."""
_COLOUR = {"green": "green", "yellow": "yellow", "red": "red"}
_STATE_STYLE = {
    StreamState.LIVE: "green",
    StreamState.STALE: "red",
    StreamState.BACKOFF: "red",
    StreamState.FAILED: "red",
}
_WORST_FIRST = ("red", "yellow", "green")


def can_show_view() -> bool:
    """Whether standard output is a terminal that can be drawn on."""
    able = os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
    return able and sys.stdout.isatty()


async def watch(status: Callable[[], EngineStatus], addresses: Addresses, *, live: bool) -> None:
    """Show the engine until cancelled."""
    rates = Rates()
    if live:
        try:
            await _draw(status, rates, addresses)
        except OSError as error:  # a line that was cut; the engine has other things to do
            _log.warning(f"the terminal is gone: {error.strerror}; lines in the log instead")
    await _log_lines(status, rates)


async def _draw(status: Callable[[], EngineStatus], rates: Rates, addresses: Addresses) -> None:
    console = Console(file=sys.stdout)
    screen = Live(console=console, auto_refresh=False, transient=False)
    size = console.size
    # Beside the loop: a terminal that nobody reads (Ctrl-S, a cut line) holds up who writes to it.
    await in_thread(screen.start, "view")
    try:
        while True:
            now = status()
            shown = render(now, rates.update(now), addresses)
            # A terminal that was resized has wrapped its lines anew: nobody knows where they are.
            size, is_resized = console.size, console.size != size
            await in_thread(partial(_refresh, screen, shown, clear=is_resized), "view")
            await asyncio.sleep(_LIVE_INTERVAL_S)
    finally:
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_LAST_FRAME_S):
                await in_thread(screen.stop, "view")


def _refresh(screen: Live, shown: RenderableType, *, clear: bool) -> None:
    if clear:
        screen.console.clear()
    screen.update(shown, refresh=True)


async def _log_lines(status: Callable[[], EngineStatus], rates: Rates) -> None:
    """A line a minute; within seconds when how it goes has changed, and at once when all streams
    are live or none is any more.
    """
    shown, before, shown_s = -1, [""], monotonic_s()
    while True:
        await asyncio.sleep(_PLAIN_LOOK_S)
        now = status()
        now_rates = rates.update(now)
        live = _live_count(now)
        settled = live != shown and live in (0, len(now.streams)) and bool(now.streams)
        reason, count = _NUMBERS.sub("#", now.reason), str(len(now.streams))
        goes = [now.status, reason, count, *_states(now.writer)]
        pause_s = _PLAIN_INTERVAL_S if goes == before else _PLAIN_CHANGE_S
        if settled or monotonic_s() >= shown_s + pause_s:
            _log.info(plain_line(now, now_rates), extra={"fields": plain_fields(now, now_rates)})
            shown, before, shown_s = live, goes, monotonic_s()


def _live_count(status: EngineStatus) -> int:
    return sum(stream.state is StreamState.LIVE for stream in status.streams)


def plain_fields(status: EngineStatus, rates: dict[str, float]) -> dict[str, str | float | None]:
    """The numbers of that line by name; a rate that is not known yet is None."""
    writer = status.writer
    per_s = {
        f"{name}_per_s": round(rates[rate], 1) if rate in rates else None
        for name, rate in _SHOWN_RATES.items()
    }
    return {
        "status": status.status,
        "reason": status.reason,
        "streams": len(status.streams),
        "live_streams": _live_count(status),
        **per_s,
        "backlog_rows": max(each.backlog_rows for each in writer.databases),
        "gap_count": sum(stream.gap_count for stream in status.streams),
        "dropped_rows": sum(writer.dropped_rows.values()),
    }


def plain_line(status: EngineStatus, rates: dict[str, float]) -> str:
    """The engine in one line."""
    live = _live_count(status)
    writer = status.writer
    return (
        f"{status.status} ({status.reason}) streams {live}/{len(status.streams)} live,"
        f" {_per_s(rates, 'frames')} frames/s, {_per_s(rates, 'rows')} rows/s in,"
        f" {_per_s(rates, 'stored')} rows/s stored, {_per_s(rates, 'published')} rows/s"
        f" published, backlog {max(each.backlog_rows for each in writer.databases):,}, gaps"
        f" {sum(stream.gap_count for stream in status.streams)}, dropped"
        f" {sum(writer.dropped_rows.values())}, {', '.join(_states(writer))}"
    )


def _states(writer: WriterReport) -> list[str]:
    return [f"{sink.name} {sink.state}" for sink in (*writer.databases, *writer.live)]


def render(status: EngineStatus, rates: dict[str, float], addresses: Addresses) -> RenderableType:
    """The live view."""
    return _Screen(status, rates, addresses)


class _Screen:
    """As much as the terminal has room for. A live view is cropped from below, so where to look
    comes first, and the table takes only what is left.
    """

    def __init__(self, status: EngineStatus, rates: dict[str, float], addresses: Addresses) -> None:
        self._status, self._rates, self._addresses = status, rates, addresses

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        status, width = self._status, options.max_width
        head = Text.assemble(
            ("● ", _COLOUR[status.status]),
            (f"{status.status}", f"bold {_COLOUR[status.status]}"),
            f"   up {status.uptime_s:,.0f} s   ",
            ("Ctrl-C drains and stops", "dim"),
            f"   {escaped(status.reason)}",
            overflow="ellipsis",
            no_wrap=True,
        )
        # An address is of no use in part: one that is too long is the only thing that is wrapped.
        addresses = self._addresses.lines(brief=options.size.height < _BRIEF_BELOW_LINES)
        where = Text("\n".join(addresses), style="dim", overflow="fold")
        writer = Text("\n".join(_packed("writer  ", _writer_parts(status, self._rates), width)))
        top = Group(head, where, writer)
        # The last line stays free: the newline at the end would push the first one out of sight.
        room = options.size.height - 1 - len(console.render_lines(top, options, pad=False))
        yield top
        table_lines = len(status.streams) + _TABLE_FRAME_LINES
        log_lines = min(_LOG_LINES, max(room // 3, room - table_lines) - _PANEL_FRAME_LINES)
        if log_lines > 0:
            room -= log_lines + _PANEL_FRAME_LINES
        yield from _stream_table(status, self._rates, width, room)
        if log_lines > 0:
            tail = "\n".join(last_lines(self._addresses.log_file, log_lines))
            text = Text(tail, overflow="ellipsis", no_wrap=True)
            yield Panel(text, title="log", title_align="left", border_style="dim")


def _stream_table(
    status: EngineStatus, rates: dict[str, float], width: int, height: int
) -> Iterator[RenderableType]:
    """The streams in trouble first, then as many as fit; numbers are left out, never cut."""
    streams = _in_sight(status, height - _TABLE_FRAME_LINES)
    rows = [_stream_cells(stream, rates) for stream in streams]
    rows.append(_total_cells(status, rates))
    widths = _widths(rows, width)
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for name, columns in widths.items():
        justify: JustifyMethod = "left" if name in _WORDS else "right"
        table.add_column(name, width=columns, justify=justify, no_wrap=True)
    for stream, row in zip(streams, rows, strict=False):
        styles = {"state": _STATE_STYLE.get(stream.state, "yellow")}
        table.add_row(*(Text(row[name], style=styles.get(name, "")) for name in widths))
    table.add_row(*(rows[-1][name] for name in widths), style="bold")
    yield table
    if hidden := len(status.streams) - len(streams):
        yield Text(f"and {hidden} more streams", style="dim")


def _in_sight(status: EngineStatus, room: int) -> list[StreamReport]:
    """The worst first. Where not all fit, those in trouble stay, and of the others one part after
    the other is shown, each for a few seconds.
    """
    streams = sorted(status.streams, key=lambda stream: (_rank(stream), stream.slot))
    if len(streams) <= room:
        return streams
    room = max(1, room - 1)  # a line says how many more there are
    ill = [stream for stream in streams if stream.state is not StreamState.LIVE]
    well = streams[len(ill) :]
    if len(ill) >= room:
        return ill[:room]
    part = room - len(ill)
    parts = -(-len(well) // part)
    # The last part is as long as the others: the view keeps its height.
    begin = min(int(status.uptime_s / _PAGE_S) % parts * part, len(well) - part)
    return [*ill, *well[begin : begin + part]]


def _widths(rows: Sequence[Mapping[str, str]], width: int) -> dict[str, int]:
    """Of the columns that a terminal of this width has room for."""
    widths = {name: max(len(name), *(cell_len(row[name]) for row in rows)) for name in rows[0]}
    widths["state"] = min(widths["state"], _STATE_WIDTH_MAX)
    least = widths | {"state": min(widths["state"], _STATE_WIDTH_MIN)}
    for name in _DROPPED_FIRST:
        if sum(least.values()) + len(least) - 1 > width:
            del least[name], widths[name]
    excess = sum(widths.values()) + len(widths) - 1 - width
    widths["state"] = max(least["state"], widths["state"] - max(0, excess))
    return widths


def _packed(first: str, parts: Sequence[str], width: int) -> list[str]:
    """The parts behind `first` in as few lines as have room for them, none of them broken; one that
    is too long for a line is cut.
    """
    lines = [first + "".join(parts[:1])]
    for part in parts[1:]:
        if cell_len(joined := f"{lines[-1]} · {part}") <= width:
            lines[-1] = joined
        else:
            lines.append(" " * len(first) + part)
    return [
        line if cell_len(line) <= width else f"{set_cell_size(line, width - 1)}…" for line in lines
    ]


def _rank(stream: StreamReport) -> int:
    return _WORST_FIRST.index(_STATE_STYLE.get(stream.state, "yellow"))


def _stream_cells(stream: StreamReport, rates: dict[str, float]) -> dict[str, str]:
    names = {"venue": stream.venue, "symbol": stream.symbol, "kind": stream.kind}
    state = stream.state.value + (f": {escaped(stream.reason)}" if stream.reason else "")
    last = age(stream.last_recv_ns)
    return names | {"state": state} | _numbers([stream], rates, f" {stream.slot}", last)


def _total_cells(status: EngineStatus, rates: dict[str, float]) -> dict[str, str]:
    names = {"venue": "all", "symbol": "", "kind": "", "state": ""}
    return names | _numbers(status.streams, rates, "", "")


def _numbers(
    streams: Sequence[StreamReport], rates: dict[str, float], which: str, last: str
) -> dict[str, str]:
    def total(name: str) -> str:
        return f"{sum(getattr(stream, name) for stream in streams):,}"

    return {
        "frames/s": _per_s(rates, f"frames{which}"),
        "rows/s": _per_s(rates, f"rows{which}"),
        "rows": total("row_count"),
        "last": last,
        "gaps": total("gap_count"),
        "missing": total("missing_count"),
        "dups": total("duplicate_count"),
    }


def _writer_parts(status: EngineStatus, rates: dict[str, float]) -> list[str]:
    writer = status.writer
    latency = writer.recent_latency_us.get("database", {}).get("p99")
    parts = [
        f"stored {_per_s(rates, 'stored')} rows/s ({writer.database_rows().total():,})",
        f"published {_per_s(rates, 'published')} rows/s",
        f"backlog {max(each.backlog_rows for each in writer.databases):,}",
        f"dropped {sum(writer.dropped_rows.values()):,}",
        f"journal {writer.journal_bytes / 2**20:,.0f} MB",
        *_states(writer),
    ]
    if latency is not None:
        parts.append(f"received to committed p99 {latency / 1e3:,.0f} ms")
    parts += [f"{sink.name}: {sink.error}" for sink in writer.sinks if sink.error]
    return [" ".join(escaped(part).split()) for part in parts]


def _per_s(rates: Mapping[str, float], name: str) -> str:
    """A rate, or a dash where there is none yet: that is not the rate zero."""
    return f"{rates[name]:,.0f}" if name in rates else "-"
