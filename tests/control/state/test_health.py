"""Lights, their hold-down, admission, and the pages that show them."""

import os
from typing import Any

import pytest

from control.state import health as health_module
from control.state.health import (
    Health,
    HealthLight,
    HeldLight,
    open_files,
)
from engine.messages.judgement import worst
from engine.messages.settings import HealthSettings
from engine.messages.status import ChildReport, EngineStatus, Light, ShardReport, WriterReport
from engine.messages.streams import StreamState
from engine.messages.totals import FlushDelay
from engine.messages.writer import SinkStatus
from tests.control.api.api_rig import Rig, run_with_rig
from tests.control.api.routes.test_streams import BTC, BTC_KEY
from tests.told import telling


def test_a_light_worsens_at_once_and_improves_after_it_held() -> None:
    light = HeldLight(hold_s=5.0)
    light.update(("green", ""), 0.0)
    light.update(("red", "down"), 1.0)
    assert light.shown == HealthLight("red", "down")
    light.update(("green", ""), 2.0)
    light.update(("green", ""), 6.9)
    assert light.shown == HealthLight("red", "down")
    light.update(("green", ""), 7.0)
    assert light.shown == HealthLight("green")


def test_a_relapse_starts_the_hold_again() -> None:
    light = HeldLight(hold_s=5.0)
    light.update(("yellow", "late"), 0.0)
    light.update(("green", ""), 1.0)
    light.update(("yellow", "late again"), 4.0)
    light.update(("green", ""), 5.0)
    light.update(("green", ""), 9.0)
    assert light.shown.reason == "late again"
    light.update(("green", ""), 10.0)
    assert light.shown.status == "green"


def test_what_follows_a_start_counts_at_once() -> None:
    light = HeldLight(hold_s=5.0)
    assert light.shown.reason == "starting"
    light.update(("green", ""), 0.0)
    assert light.shown.status == "green"


def test_flush_delay_is_the_age_of_what_is_being_stored() -> None:
    delay = FlushDelay()
    assert delay.update(0.0, stored=100, backlog=0) == 0.0
    assert delay.update(1.0, stored=100, backlog=50) == 1.0
    assert delay.update(4.0, stored=100, backlog=500) == 4.0
    assert delay.update(5.0, stored=150, backlog=500) == 4.0
    assert delay.update(6.0, stored=650, backlog=0) == 0.0
    assert delay.update(7.0, stored=5, backlog=1) == 0.0, "a new engine counts anew"


@pytest.mark.fault("P03")
def test_an_outage_of_days_is_told_in_its_full_length() -> None:
    """Two statuses a second are too many to remember each."""
    delay, two_days_s = FlushDelay(), 2 * 86_400
    delay.update(0.0, stored=100, backlog=0)
    for number in range(1, 2 * two_days_s + 1):
        told_s = delay.update(number / 2, stored=100, backlog=number)
    assert told_s == two_days_s
    half = delay.update(two_days_s + 0.5, stored=100 + two_days_s, backlog=two_days_s)
    assert half == pytest.approx(two_days_s / 2, rel=0.01)


def test_the_kernel_knows_our_files() -> None:
    count, most = open_files(os.getpid())
    assert 0 < count < most
    assert open_files(1 << 22) == (0, 0)


def show(rig: Rig, **writer: Any) -> None:
    rig.supervisor.writer = telling(rig.supervisor.writer, **writer)
    rig.supervisor.tell()


FINE = {
    "database_state": "up",
    "redis_state": "up",
    "journal_error": "",
    "database_backlog_rows": 0,
    "database_waits_for": "",
}
TROUBLE: list[tuple[dict[str, Any], str, str, str]] = [
    ({"database_state": "down", "database_error": "refused"}, "db", "red", "refused"),
    ({"database_state": "connecting"}, "db", "yellow", "connecting"),
    ({"journal_error": "no space left"}, "db", "yellow", "no space left"),
    ({"database_backlog_rows": 3_000_000}, "db", "yellow", "3,000,000 rows wait"),
    ({"redis_state": "down", "redis_error": "timeout"}, "redis", "red", "timeout"),
    (
        {"database_waits_for": "table trade refuses every row: 0A000"},
        "db",
        "red",
        "table trade refuses",
    ),
]


@pytest.mark.parametrize(("writer", "name", "light", "reason"), TROUBLE)
def test_trouble_refuses_new_streams_with_the_reason(
    writer: dict[str, Any], name: str, light: str, reason: str
) -> None:
    async def scenario(rig: Rig) -> None:
        show(rig, **writer)
        shown = (await rig.ask("GET", f"/health/{name}")).body
        assert (shown["ok"], shown["status"]) == (False, light)
        assert reason in shown["reason"]
        answer = await rig.ask("POST", "/streams", BTC)
        assert (answer.status, answer.body["kind"]) == (503, "unhealthy")
        assert reason in answer.body["error"]
        assert int(answer.headers["retry-after"]) > 0
        runtime = (await rig.ask("GET", "/health/runtime")).body
        assert reason in runtime["admission"]["reason"]
        show(rig, **FINE)
        assert (await rig.ask("POST", "/streams", BTC)).status == 201

    run_with_rig(scenario)


def test_the_runtime_tells_of_both_sinks_in_the_words_that_others_know() -> None:
    async def scenario(rig: Rig) -> None:
        show(
            rig,
            database_rows={"trade": 9},
            database_withheld_rows={"trade": 8},
            database_refused_rows={"trade": 7},
            database_missed_rows={"trade": 6, "book": 1},
            database_set_aside_rows={"trade": 5},
            database_waits_for="our clock",
            database_backlog_rows=4,
            redis_rows={"book": 3},
            redis_withheld_rows={"book": 2},
            redis_missed_rows={"book": 1},
            redis_used_bytes=20,
            redis_budget_bytes=30,
            dropped_rows={"trade": 10},
        )
        told = (await rig.ask("GET", "/health/runtime")).body["writer"]
        assert told | {
            "stored_rows": {"trade": 9}, "skipped_rows": {"trade": 8},
            "quarantined_rows": {"trade": 7}, "lost_rows": 7,
            "lost_by_kind": {"trade": 6, "book": 1}, "quarantine_rows": {"trade": 5},
            "waits_for": "our clock", "backlog_rows": 4, "database_state": "up",
            "published_rows": {"book": 3}, "unpublished_rows": {"book": 2},
            "overrun_rows": {"book": 1}, "redis_bytes": 20, "redis_budget_bytes": 30,
            "redis_state": "up", "dropped_rows": {"trade": 10},
        } == told  # fmt: skip

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("policy", "accepted"), [("green", []), ("yellow", [1, 2, 3, 4]), ("any", [0, 1, 2, 3, 4, 5])]
)
def test_the_policy_decides_what_trouble_is_too_much(policy: str, accepted: list[int]) -> None:
    async def scenario(rig: Rig) -> None:
        for number, (writer, *_) in enumerate(TROUBLE):
            show(rig, **(FINE | writer))
            status = (await rig.ask("POST", "/streams", BTC)).status
            assert (status == 503) == (number not in accepted), number

    run_with_rig(scenario, admission=policy)


def test_removing_is_always_allowed() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.run(BTC_KEY)
        show(rig, database_state="down")
        assert (await rig.ask("DELETE", "/streams", BTC)).status == 200

    run_with_rig(scenario)


def test_a_light_that_just_got_better_still_refuses() -> None:
    async def scenario(rig: Rig) -> None:
        show(rig, database_state="down", database_error="away")
        show(rig, database_state="up", database_error="")
        assert (await rig.ask("POST", "/streams", BTC)).status == 503
        assert (await rig.ask("GET", "/health/db")).body["status"] == "red"

    run_with_rig(scenario, hold_s=60.0)


def test_a_stale_stream_is_shown_and_does_not_keep_others_out() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.run(BTC_KEY, StreamState.STALE)
        rig.supervisor.tell()
        other = BTC | {"symbol": "ETHUSDT"}
        assert (await rig.ask("POST", "/streams", other)).status == 201
        rig.supervisor.verdict = ("yellow", "1 of 2 streams in trouble")
        rig.supervisor.tell()
        body = (await rig.ask("GET", "/health/runtime")).body
        assert (body["ok"], body["status"]) == (True, "green")
        assert body["engine"] == {"status": "yellow", "reason": "1 of 2 streams in trouble"}

    run_with_rig(scenario)


def test_the_verdict_is_never_better_than_a_light() -> None:
    async def scenario(rig: Rig) -> None:
        show(rig, database_state="down", database_error="refused")
        body = (await rig.ask("GET", "/health/runtime")).body
        assert (body["status"], body["engine"]["status"]) == ("green", "red")
        assert "refused" in body["engine"]["reason"]
        show(rig, **FINE | {"redis_state": "down", "redis_error": "timeout"})
        body = (await rig.ask("GET", "/health/runtime")).body
        assert body["engine"] == {"status": "yellow", "reason": "redis is down: timeout"}

    run_with_rig(scenario)


@pytest.mark.fault("N25")
def test_what_only_control_sees_is_in_the_light_that_the_supervisor_shows() -> None:
    health = Health(0.0)
    assert health.worst_light() == HealthLight("green", ""), "nothing was judged yet"
    child = ChildReport("writer", "up")
    writer = WriterReport(
        child,
        sinks=[SinkStatus("database", "up", backlog_rows=60_000_000), SinkStatus("redis", "up")],
    )
    status = EngineStatus("green", "fine", "running", "x", 1.0, [], writer, child, [])
    health.take(status)
    seen = health.worst_light()
    assert (seen.status, "rows wait for the database" in seen.reason) == ("red", True)
    own: tuple[Light, str] = (status.status, status.reason)
    assert worst([own, (seen.status, seen.reason)]) == (seen.status, seen.reason)
    redis = writer.sink("redis")
    writer.database.backlog_rows, redis.state, redis.error = 0, "down", "away"
    health.take(status)
    assert health.worst_light() == HealthLight("yellow", "redis is down: away")


def test_a_restarting_child_is_red() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.shard_state = "restarting"
        rig.supervisor.tell()
        body = (await rig.ask("GET", "/health/runtime")).body
        assert (body["status"], body["reason"]) == ("red", "shard-0 is restarting: killed")
        assert (await rig.ask("POST", "/streams", BTC)).status == 503

    run_with_rig(scenario)


def test_a_silent_supervisor_turns_the_light_red() -> None:
    async def scenario(rig: Rig) -> None:
        rig.health._heard_s -= 60
        body = (await rig.ask("GET", "/health/runtime")).body
        assert (body["ok"], body["status"]) == (False, "red")
        assert "silent for 60 s" in body["reason"]

    run_with_rig(scenario)


def test_starting_and_draining() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.phase = "starting"
        rig.supervisor.tell()
        assert (await rig.ask("GET", "/health/runtime")).body["status"] == "yellow"
        rig.supervisor.phase = "running"
        rig.supervisor.tell()
        assert (await rig.ask("GET", "/health/runtime")).body["ok"] is True
        rig.supervisor.phase = "draining"
        rig.supervisor.tell()
        answer = await rig.ask("POST", "/streams", BTC)
        assert "draining" in answer.body["error"]

    run_with_rig(scenario, hold_s=60.0)


def test_switched_off_sinks_are_no_trouble() -> None:
    async def scenario(rig: Rig) -> None:
        show(rig, database_state="off", redis_state="off")
        for name in ("db", "redis"):
            body = (await rig.ask("GET", f"/health/{name}")).body
            assert (body["ok"], body["reason"]) == (True, "not configured")
        assert (await rig.ask("POST", "/streams", BTC)).status == 201

    run_with_rig(scenario)


def test_one_late_tick_is_noise_and_lasting_lag_is_not() -> None:
    health = Health(0.0)
    late = [health._judge_lag("control", lag)[0] for lag in (0, 900, 0, 900, 900, 900)]
    assert late == ["green", "green", "green", "green", "yellow", "yellow"]


def test_machine_limits_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "memory_free_fraction", lambda: 0.01)
    monkeypatch.setattr(health_module, "open_files", lambda _: (90, 100))

    async def scenario(rig: Rig) -> None:
        rig.health._probed_s = -1e9
        rig.supervisor.tell()
        body = (await rig.ask("GET", "/health/runtime")).body
        assert (body["status"], body["memory_free_fraction"]) == ("red", 0.01)
        assert "1.0% of the memory is free" in body["reason"]
        assert {process["name"] for process in body["processes"]} == {
            "shard-0", "writer", "control",
        }  # fmt: skip

    run_with_rig(scenario)


LIMITS: list[tuple[HealthSettings, str]] = [
    (HealthSettings(process_memory_mb=(1, 1e6)), "holds"),
    (HealthSettings(memory_free_fraction=(0.6, 0.1)), "only 50.0% of the memory is free"),
    (HealthSettings(open_files_fraction=(0.4, 0.9)), "has 50 of 100 files"),
    (HealthSettings(cpu_percent=(20, 1000)), "shard-0 uses 30 % of a CPU"),
    (HealthSettings(loop_lag_ms=(0.01, 1e6), loop_lag_window_s=0.5), "control lags"),
]


@pytest.mark.parametrize(("limits", "reason"), [(HealthSettings(), ""), *LIMITS])
def test_the_limits_of_the_processes_are_those_of_the_configuration(
    limits: HealthSettings, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "memory_free_fraction", lambda: 0.5)
    monkeypatch.setattr(health_module, "open_files", lambda _: (50, 100))
    monkeypatch.setattr(health_module, "resident_bytes", lambda _: 2_000_000)
    monkeypatch.setattr(Health, "_cpu_percent", lambda *_: 30.0)
    child = ChildReport("shard-0", "up")
    writer = WriterReport(ChildReport("writer", "up"))
    status = EngineStatus(
        "green", "fine", "running", "x", 1.0, [ShardReport(child, 0, None)], writer, child, []
    )
    health = Health(0.0, limits)
    health.own_loop_lag_ms = 20.0
    health.take(status)
    light = health.lights()["runtime"]
    assert light.status == ("yellow" if reason else "green"), light
    assert reason in light.reason


def test_each_light_is_held_as_long_as_it_is_told() -> None:
    child = ChildReport("writer", "up")
    sinks = [SinkStatus("database", "down"), SinkStatus("redis", "down")]
    writer = WriterReport(child, sinks=sinks)
    status = EngineStatus("green", "fine", "running", "x", 1.0, [], writer, child, [])
    health = Health(60.0, HealthSettings(hold_s={"redis": 0.0}))
    health.take(status)
    for sink in sinks:
        sink.state = "up"
    health.take(status)
    lights = {name: light.status for name, light in health.lights().items()}
    assert (lights["db"], lights["redis"]) == ("red", "green")


def test_a_sinks_latency_is_that_of_the_last_minute() -> None:
    async def scenario(rig: Rig) -> None:
        recent = {"database": {"p99": 50_118.7}}
        show(rig, latency_us={"database": {"p99": 5e7}}, recent_latency_us=recent)
        assert (await rig.ask("GET", "/health/db")).body["latency_us"] == recent["database"]

    run_with_rig(scenario)


def test_limiters_show_what_is_left() -> None:
    async def scenario(rig: Rig) -> None:
        (row,) = (await rig.ask("GET", "/limiters")).body
        assert (row["exchange"], row["pool"], row["remaining"]) == (
            "binance_linear", "rest_weight", 2000,
        )  # fmt: skip
        assert (await rig.ask("GET", "/limiters?exchange=HyperliquidPerp")).body == []

    run_with_rig(scenario)
