"""`/livez`, `/readyz`, `/startupz`, and what a status code alone says of the lights."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control.api.routes import probes
from control.cli.main import main
from control.http.auth import Guard
from engine.messages.streams import StreamState
from tests.control.api.api_rig import POLL, Rig, run_with_rig
from tests.control.api.routes.test_streams import BTC_KEY
from tests.control.cli.remote.test_client_commands import TOKEN, engine
from tests.told import telling

pytestmark = pytest.mark.fault("N45")

FINE = ("", "", "")
WAITING = {"database_waits_for": "table trade refuses every row"}
UNDELIVERED = {
    "database_state": "down",
    "database_error": "refused",
    "database_backlog_rows": 9_000_000,
}


async def ask(rig: Rig) -> tuple[str, ...]:
    """The reasons of all three; "" where the answer is yes."""
    reasons = []
    for path in ("/livez", "/readyz", "/startupz"):
        answer = await rig.ask("GET", path)
        assert answer.body["ok"] == (answer.status == 200) == (answer.body["reason"] == "")
        assert answer.status in (200, 503)
        assert set(answer.body) == {"ok", "reason"}, "no detail"
        assert answer.body["reason"] in probes.REASONS
        head = await rig.ask("HEAD", path)
        assert head.status == answer.status
        reasons.append(answer.body["reason"])
    return tuple(reasons)


def tell(rig: Rig, **changes: Any) -> None:
    """Have the supervisor say something else of the writer."""
    rig.supervisor.writer = telling(rig.supervisor.writer, **changes)
    rig.supervisor.tell()


def test_a_sound_engine_passes_with_and_without_streams() -> None:
    async def scenario(rig: Rig) -> None:
        assert await ask(rig) == FINE
        rig.supervisor.run(BTC_KEY)
        rig.supervisor.tell()
        assert await ask(rig) == FINE

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("writer", "reason"),
    [
        (UNDELIVERED, ""),
        ({"database_state": "connecting", "database_backlog_rows": 50_000_000}, ""),
        ({"redis_state": "down", "redis_error": "refused"}, ""),
        ({"database_state": "off", "redis_state": "off"}, ""),
        ({"journal_error": "no space left"}, ""),
        (UNDELIVERED | {"journal_error": "no space left"}, "journal"),
        (WAITING, ""),
        (
            WAITING | {"journal_error": "no space"},
            "journal",
        ),
    ],
)
def test_no_sink_makes_the_engine_die_and_none_makes_it_unready_while_rows_are_kept(
    writer: dict[str, Any], reason: str
) -> None:
    async def scenario(rig: Rig) -> None:
        tell(rig, **writer)
        assert await ask(rig) == ("", reason, "")

    run_with_rig(scenario)


def test_the_phases() -> None:
    async def scenario(rig: Rig) -> None:
        for phase, ready, startup in (
            ("starting", "starting", "starting"), ("running", "", ""), ("draining", "draining", ""),
        ):  # fmt: skip
            rig.supervisor.phase = phase
            rig.supervisor.tell()
            assert await ask(rig) == ("", ready, startup)

    run_with_rig(scenario)


def test_a_child_that_is_away_is_named_by_its_part() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.shard_state = "restarting"
        rig.supervisor.tell()
        assert await ask(rig) == ("", "shard", "")
        rig.supervisor.writer.child.state = "restarting"
        rig.supervisor.tell()
        assert await ask(rig) == ("", "writer", "")

    run_with_rig(scenario)


def test_streams_are_ready_while_one_of_them_delivers() -> None:
    async def scenario(rig: Rig) -> None:
        other = msgspec.structs.replace(BTC_KEY, symbol="ETHUSDT", transport=POLL)
        for state in set(StreamState) - {StreamState.LIVE}:
            rig.supervisor.streams.clear()
            rig.supervisor.run(BTC_KEY, state)
            rig.supervisor.tell()
            assert await ask(rig) == ("", "streams", ""), state
            rig.supervisor.run(other)
            rig.supervisor.tell()
            assert await ask(rig) == FINE, state

    run_with_rig(scenario)


def test_a_supervisor_that_stands_still_is_restarted_and_a_short_pause_is_not() -> None:
    async def scenario(rig: Rig) -> None:
        rig.health._heard_s -= 7.0
        assert await ask(rig) == ("", "supervisor", "")
        rig.health._heard_s -= probes.LIVE_SILENCE_S
        assert await ask(rig) == ("supervisor", "supervisor", "")
        rig.supervisor.tell()
        assert await ask(rig) == FINE

    run_with_rig(scenario)


def test_probes_need_no_token_and_everything_else_of_health_does() -> None:
    async def scenario(rig: Rig) -> None:
        assert await ask(rig) == FINE
        for part in ("runtime", "db", "redis"):
            assert (await rig.ask("GET", f"/health/{part}")).status == 401
        assert (await rig.ask("POST", "/livez")).status == 401, "only reading is public"

    run_with_rig(scenario, guard=Guard.load(None, None, {"FTS_CONTROL_TOKEN": TOKEN}))


@pytest.mark.parametrize(
    ("writer", "part", "status"),
    [
        ({"database_state": "down"}, "db", 503),
        ({"database_state": "connecting"}, "db", 200),
        ({"journal_error": "no space left"}, "db", 200),
        ({"redis_state": "down"}, "redis", 503),
        ({"redis_state": "connecting"}, "redis", 200),
        ({}, "runtime", 200),
    ],
)
def test_a_red_light_is_a_503_with_the_same_body(
    writer: dict[str, Any], part: str, status: int
) -> None:
    async def scenario(rig: Rig) -> None:
        fine = await rig.ask("GET", f"/health/{part}")
        tell(rig, **writer)
        answer = await rig.ask("GET", f"/health/{part}")
        assert answer.status == status
        assert answer.body.keys() == fine.body.keys()
        assert (answer.body["status"] == "red") == (status == 503)

    run_with_rig(scenario)


def test_runtime_is_a_503_while_the_supervisor_is_silent() -> None:
    async def scenario(rig: Rig) -> None:
        rig.health._heard_s -= 60
        assert (await rig.ask("GET", "/health/runtime")).status == 503

    run_with_rig(scenario)


def test_fts_health_shows_red_lights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with engine() as (rig, url):
        rig.supervisor.writer.database.state = "down"
        rig.supervisor.writer.database.error = "refused"
        rig.supervisor.tell()
        where = ("--url", url, "--state-dir", str(tmp_path))
        assert main(["health", "--json", *where]) == 1
        lights = json.loads(capsys.readouterr().out)
        assert (lights["db"]["status"], lights["redis"]["status"]) == ("red", "green")
        assert main(["health", *where]) == 1
        assert "refused" in capsys.readouterr().out
