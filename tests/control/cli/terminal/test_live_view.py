"""The terminal view: what a person needs is in sight on any terminal, and numbers are whole."""

import asyncio
import contextlib
import errno
import io
import os
import re
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from control.cli.addresses import Addresses
from control.cli.terminal.live_view import can_show_view, render, watch
from engine.messages.status import ChildReport, EngineStatus, StreamReport, WriterReport
from engine.messages.streams import StreamState
from engine.messages.writer import SinkStatus
from tests.waiting import until

ADDRESSES = Addresses(
    psql="psql 'postgresql://fts@/fts?host=/home/somebody/.local/state/fts/demo/postgres/run'",
    redis="redis-cli -s /home/somebody/.local/state/fts/demo/valkey/run/valkey.sock\nstream keys"
    " fts:{trades,book,quotes,…}:<venue>:<symbol>",
    control="http://127.0.0.1:40123",
    dashboard="http://127.0.0.1:40123/ui",
    log_file=Path("/nowhere/engine.log"),
)


CLEAR = "\x1b[2J"


def status_of(streams: list[StreamReport]) -> EngineStatus:
    up = ChildReport("writer", "up")
    writer = WriterReport(
        up,
        sinks=[
            SinkStatus("database", "up", rows={"trade": 123_456_789}), SinkStatus("redis", "up"),
        ],
        recent_latency_us={"database": {"p99": 63_000.0}},
    )  # fmt: skip
    return EngineStatus(
        "green", "all streams deliver", "running", "5f3a9c21b7d0", 61.0, [], writer, up, streams
    )  # fmt: skip


def a_stream(slot: int, **changes: object) -> StreamReport:
    found = {"state": StreamState.LIVE, "row_count": 3_600_001, "frame_count": 20_000_002} | changes
    names = (("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "kPEPE"))
    venue, symbol = names[slot % 2]
    if "symbol" in found:
        venue, symbol = names[0][0], str(found.pop("symbol"))
    kind = "L2Book" if slot % 4 else "Trades"
    return StreamReport(slot, venue, symbol, kind, 0, **found)  # type: ignore[arg-type]


def lines_of(
    streams: list[StreamReport], columns: int, rows: int, uptime_s: float = 61.0
) -> list[str]:
    status = status_of(streams)
    status.uptime_s = uptime_s
    return drawn(status, columns, rows, ADDRESSES)


def drawn(status: EngineStatus, columns: int, rows: int, addresses: Addresses) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=columns, height=rows, color_system=None)
    console.print(render(status, {"rows": 1_234_567.0}, addresses))
    return out.getvalue().removesuffix("\n").split("\n")


@pytest.mark.parametrize("count", [0, 4, 20, 500])
@pytest.mark.parametrize("size", [(80, 24), (100, 30), (132, 43), (220, 60)])
def test_where_to_look_is_in_sight_and_everything_fits(size: tuple[int, int], count: int) -> None:
    lines = lines_of([a_stream(slot) for slot in range(count)], *size)
    assert len(lines) < size[1], "the view itself must not scroll the terminal"
    shown = "".join(line.rstrip() if len(line.rstrip()) < size[0] else line for line in lines)
    for address in (ADDRESSES.psql, ADDRESSES.control, ADDRESSES.dashboard):
        assert address.replace(" ", "") in shown.replace(" ", "")
    assert "valkey.sock" in shown
    assert "Ctrl-C drains" in shown
    assert "database up" in shown
    assert any(line.startswith("all ") and "1,234,567" in line for line in lines)


@pytest.mark.whole
def test_a_terminal_that_nobody_reads_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)

    async def main() -> None:
        view = asyncio.create_task(watch(lambda: status_of([]), ADDRESSES, live=True))
        for _ in range(20):
            await asyncio.sleep(0.02)
        assert not view.done()
        view.cancel()
        await asyncio.wait([view], timeout=10)
        assert view.done()

    def drain() -> None:
        os.set_blocking(reading, False)
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                os.read(reading, 1 << 20)
            threading.Event().wait(0.01)

    with os.fdopen(writing, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        asyncio.run(main())
        monkeypatch.undo()
        drain()
    os.close(reading)


def test_a_narrow_terminal_leaves_columns_out_and_cuts_no_number() -> None:
    wide = lines_of([a_stream(slot) for slot in range(20)], 140, 60)
    assert all(name in "\n".join(wide) for name in ("frames/s", "dups", "3,600,001"))
    narrow = "\n".join(lines_of([a_stream(slot) for slot in range(20)], 80, 24))
    head = next(line for line in narrow.split("\n") if line.startswith("venue"))
    assert "frames/s" not in head
    assert {"state", "rows/s", "gaps", "missing"} <= set(head.split())
    assert "hyperliquid_perp kPEPE   L2Book live" in narrow
    table = narrow[narrow.index("venue ") : narrow.index("and ")]
    assert "…" not in table


def test_when_not_all_fit_the_worst_come_first_and_the_others_are_counted() -> None:
    streams = [a_stream(slot) for slot in range(20)]
    streams[17] = a_stream(17, state=StreamState.STALE, reason="no data for 30 s")
    streams[18] = a_stream(18, state=StreamState.CONNECTING)
    lines = lines_of(streams, 100, 24)
    first = lines.index(next(line for line in lines if line.startswith("venue"))) + 1
    assert "stale: no data" in lines[first]
    assert "connecting" in lines[first + 1]
    shown = sum(line.startswith(("binance_linear", "hyperliquid_perp")) for line in lines)
    assert 4 <= shown < 20
    assert f"and {20 - shown} more streams" in "\n".join(lines)


def test_streams_that_are_well_are_shown_in_turn_and_those_in_trouble_always() -> None:
    streams = [a_stream(slot, symbol=f"S{slot}") for slot in range(40)]
    streams[17] = a_stream(17, symbol="S17", state=StreamState.STALE, reason="no data for 30 s")
    seen: set[str] = set()
    for seconds in range(0, 300, 5):
        lines = lines_of(streams, 80, 24, uptime_s=float(seconds))
        shown = {line.split()[1] for line in lines if line.startswith("binance")}
        assert "S17" in shown
        assert f"and {40 - len(shown)} more streams" in "\n".join(lines)
        seen |= shown
    assert seen == {f"S{slot}" for slot in range(40)}


def test_no_line_is_wrapped_but_an_address_that_is_too_long() -> None:
    streams = [a_stream(slot) for slot in range(4)]
    status = status_of(streams)
    status.reason = "a reason " * 40
    status.writer.sinks[0].error = "an error " * 40
    addresses = Addresses("fts psql\npsql 'x'", "redis-cli", "http://c", "http://c/ui", Path("/l"))
    lines = drawn(status, 80, 24, addresses)
    assert [line.split()[0] for line in lines[1:6]] == [
        "database", "redis", "control", "dashboard", "log",
    ]  # fmt: skip
    assert lines[3].split() == ["control", "http://c"], "with nothing else on its line"
    assert "a reason" in lines[0]
    assert "a reason" not in lines[1]
    assert sum("an error" in line for line in lines) == 1
    at = next(number for number, line in enumerate(lines) if line.startswith("writer"))
    assert all(line.startswith(("writer  ", " " * 8)) for line in lines[at : at + 3])
    assert "psql 'x'" in "\n".join(drawn(status, 80, 40, addresses)), "where there is room"


def test_a_terminal_that_was_resized_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that the terminal has wrapped meanwhile are not where they were."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, size = Terminal(), os.terminal_size((120, 40))

    async def look() -> None:
        nonlocal size
        shown = status_of([a_stream(0)])
        watching = asyncio.create_task(watch(lambda: shown, ADDRESSES, live=True))
        await until(lambda: "green" in terminal.getvalue(), "a frame")
        assert CLEAR not in terminal.getvalue()
        size = os.terminal_size((60, 20))
        drawn_till = len(terminal.getvalue())
        await until(lambda: CLEAR in terminal.getvalue()[drawn_till:], "a clear screen")
        await until(lambda: "green" in terminal.getvalue().rpartition(CLEAR)[2], "a frame on it")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("os.get_terminal_size", lambda _fd: size)
    monkeypatch.setattr(sys, "stdout", terminal)
    asyncio.run(look())
    after = terminal.getvalue().rpartition(CLEAR)[2]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", after)
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= 60


def test_the_log_has_what_the_table_leaves(tmp_path: Path) -> None:
    log_file = tmp_path / "engine.log"
    log_file.write_text("".join(f"line {number}\n" for number in range(100)))
    addresses = Addresses("off", "off", "http://c", "http://c/ui", log_file)
    for rows, least in ((24, 1), (50, 6)):
        out = io.StringIO()
        status = status_of([a_stream(slot) for slot in range(20)])
        console = Console(file=out, width=80, height=rows, color_system=None)
        console.print(render(status, {}, addresses))
        text = out.getvalue()
        assert text.count("\n") < rows
        assert text.count("line ") >= least
        assert "line 99" in text


@pytest.mark.fault("N31")
def test_a_terminal_that_is_gone_leaves_lines_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

        def isatty(self) -> bool:
            return True

    async def look() -> None:
        shown = status_of([a_stream(0)])
        watching = asyncio.create_task(watch(lambda: shown, ADDRESSES, live=True))
        while "streams 1/1 live" not in caplog.text:
            assert not watching.done(), watching
            await asyncio.sleep(0.02)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Gone())
    with caplog.at_level("INFO"):
        asyncio.run(asyncio.wait_for(look(), 20))
    assert "the terminal is gone: Input/output error" in caplog.text


@pytest.mark.fault("N31")
@pytest.mark.parametrize("term", ["", "dumb", "unknown", None])
def test_a_terminal_that_nobody_can_draw_on_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    assert not can_show_view()
    monkeypatch.setenv("TERM", "xterm")
    assert can_show_view()


@pytest.mark.fault("N26")
def test_a_quiet_engine_says_so_once_a_minute_and_an_outage_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half an hour, with Redis away in its last third."""
    now_s, out_from_s, ends_s = 0.0, 1_200.0, 1_800.0
    said_s: list[float] = []

    async def pass_time(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        if len(caplog.records) > len(said_s):
            said_s.append(now_s)
        if now_s >= ends_s:
            raise asyncio.CancelledError

    def status() -> EngineStatus:
        engine = status_of([a_stream(slot) for slot in range(4)])
        engine.writer.sink("redis").state = "down" if now_s >= out_from_s else "up"
        return engine

    monkeypatch.setattr("control.cli.terminal.live_view.monotonic_s", lambda: now_s)
    monkeypatch.setattr("control.cli.terminal.live_view.asyncio.sleep", pass_time)
    with caplog.at_level("INFO"), contextlib.suppress(asyncio.CancelledError):
        asyncio.run(watch(status, ADDRESSES, live=False))
    assert len(said_s) <= 33
    assert said_s[0] < 6
    assert max(after - before for before, after in pairwise(said_s)) < 62
    told_s = next(at_s for at_s in said_s if at_s >= out_from_s)
    assert told_s <= out_from_s + 6
