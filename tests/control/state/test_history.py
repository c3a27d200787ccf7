"""How the engine did: what a sample says, how far back they go, and what is not known."""

import math
from typing import Any

import numpy as np
import pytest

from control.state.health import HealthLight
from control.state.history import MINUTES, SECONDS, History
from engine.base.clock import wall_ns
from engine.data.names import StreamKind
from engine.messages.status import ChildReport, EngineStatus, Light, WriterReport
from engine.messages.streams import StreamCounts
from engine.messages.writer import SinkStatus
from tests.control.api.api_rig import Rig, run_with_rig

BEGIN_S = 1_780_000_020  # a whole minute


def told(rows: int, taken_s: float, *, gaps: int = 0, backlog: int = 0) -> EngineStatus:
    """A status with so many rows received and stored."""
    return EngineStatus(
        status="green", reason="", phase="running", instance="", uptime_s=1.0, shards=[],
        writer=WriterReport(
            ChildReport("writer"), received_rows={"trade": rows}, taken_s=taken_s,
            sinks=[SinkStatus("database", "up", rows={"trade": rows // 2}, backlog_rows=backlog)],
            recent_latency_us={"database": {"p50": 4000.0, "p99": float(backlog)}},
        ),
        control=ChildReport("control"), streams=[],
        counts_by_kind={StreamKind.TRADES: StreamCounts(gap_count=gaps)},
    )  # fmt: skip


def look(
    history: History, at_s: float, status: EngineStatus | None, light: Light = "green"
) -> None:
    history.look(status, HealthLight(light), int((BEGIN_S + at_s) * 1e9))


def column(history: History, name: str, step_s: int = 1) -> list[Any]:
    values: list[Any] = history.samples(step_s, 0)[name].tolist()
    return [None if math.isnan(value) else value for value in values]


def test_a_rate_is_of_the_time_that_the_writer_says_whenever_its_word_comes() -> None:
    history = History()
    look(history, 0.1, told(1000, 50.0))
    look(history, 0.9, told(1400, 50.5))  # of this second
    look(history, 1.05, told(1600, 51.0))  # and this one's word came late
    look(history, 1.9, told(2000, 51.5))
    look(history, 2.1, told(2000, 51.5))
    assert column(history, "received") == [None, 600.0]  # what was before the first look: unknown
    assert column(history, "stored") == [None, 300.0]
    assert column(history, "at_s") == [BEGIN_S, BEGIN_S + 1]


def test_what_nobody_says_is_not_known_and_the_light_is_the_worst() -> None:
    history = History()
    look(history, 0.0, None, "yellow")
    look(history, 1.0, told(10, 1.0, gaps=2))
    look(history, 2.0, told(10, 1.0, gaps=5, backlog=7), "red")  # a writer that has died
    look(history, 2.5, told(10, 1.0, gaps=5, backlog=9), "green")
    look(history, 9.0, told(10, 1.0, gaps=5))
    assert column(history, "received") == [None, None, None]
    assert column(history, "health") == [1, 0, 2]
    assert column(history, "gaps") == [0, 0, 3]
    assert column(history, "backlog") == [None, 0.0, 9.0]
    assert [at - BEGIN_S for at in column(history, "at_s")] == [0, 1, 2]


def test_a_minute_is_made_of_its_seconds() -> None:
    history = History()
    for second in range(121):
        backlog = 900 if second == 30 else 0
        light: Light = "yellow" if second == 70 else "green"
        gaps = second // 10
        look(history, second, told(second * 60, second, gaps=gaps, backlog=backlog), light)
    assert column(history, "at_s", 60) == [BEGIN_S, BEGIN_S + 60]
    assert column(history, "received", 60) == pytest.approx([60.0, 60.0])
    assert column(history, "latency_p50", 60) == pytest.approx([4000.0, 4000.0])
    assert column(history, "latency_p99", 60) == [900.0, 0.0]
    assert column(history, "backlog", 60) == [900.0, 0.0]
    assert column(history, "gaps", 60) == [5, 6]
    assert column(history, "health", 60) == [0, 1]


def test_the_oldest_make_room_and_the_memory_stays_what_it_is() -> None:
    history = History()
    before = history.nbytes
    for second in range(SECONDS + 200):
        look(history, second, told(second, second))
    seconds = column(history, "at_s")
    assert (len(seconds), seconds[-1]) == (SECONDS, BEGIN_S + SECONDS + 198)
    assert np.diff(seconds).tolist() == [1] * (SECONDS - 1)
    assert history.samples(1, BEGIN_S + 2000)["at_s"][0] == BEGIN_S + 2000
    assert history.nbytes == before < 400_000
    assert MINUTES == 24 * 60


def test_a_clock_that_was_set_back_begins_anew() -> None:
    history = History()
    for second in (100, 101, 102, 3, 4):
        look(history, second, told(second, second))
    assert column(history, "at_s") == [BEGIN_S + 3]


def test_the_route_has_the_span_that_is_asked_for_and_only_what_is_new() -> None:
    async def asked(rig: Rig) -> None:
        history = rig.backend.history
        end_s = wall_ns() // 10**9
        for back_s in range(1000, 0, -1):
            status = told(1000 - back_s, 1000 - back_s)
            history.look(status, HealthLight("green"), (end_s - back_s) * 10**9)
        every = (await rig.ask("GET", "/history")).body
        assert len(every["time_ms"]) == 999
        assert every["step_s"] == 1
        assert every["received_rows_per_s"][:2] == [None, 1.0]
        assert set(map(len, (each for each in every.values() if isinstance(each, list)))) == {999}
        short = (await rig.ask("GET", "/history?span=15m")).body
        assert 890 < len(short["time_ms"]) <= 900
        newest = every["time_ms"][-3]
        news = (await rig.ask("GET", f"/history?after_ms={newest}")).body
        assert news["time_ms"] == every["time_ms"][-2:]
        day = (await rig.ask("GET", "/history?span=24h")).body
        assert day["step_s"] == 60
        assert len(day["time_ms"]) in (16, 17)
        refused = await rig.ask("GET", "/history?span=1w")
        assert (refused.status, refused.body["field"]) == (400, "span")

    run_with_rig(asked)
