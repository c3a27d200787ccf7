"""`fts upgrade` and its route: begun, watched to its end, refused."""

import json
from pathlib import Path

import pytest

from control.cli.commands.doctor_state import releases
from control.cli.main import main
from control.cli.remote import upgrade
from engine.data.layout import open_layout
from engine.messages.status import UpgradeReport
from engine.process import instance
from engine.process.release import release
from engine.start.config import load
from tests.control.api.api_rig import Rig, run_with_rig
from tests.control.cli.remote.test_client_commands import engine


def ending(rig: Rig, monkeypatch: pytest.MonkeyPatch, **how: object) -> None:
    """An upgrade that goes on, and ends like this before it is looked at again."""
    report = rig.supervisor.upgrade = UpgradeReport(step="streams of shard 0", stream_count=500)

    def pause(seconds: float) -> None:
        del seconds
        for name, value in how.items():
            setattr(report, name, value)
        rig.supervisor.tell()

    monkeypatch.setattr(upgrade, "pause", pause)


def test_an_upgrade_is_begun_and_watched_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine() as (rig, url):
        ending(
            rig, monkeypatch, state="done", step="done", passed_count=500, ended_ns=7_500_000_000
        )
        assert main(["upgrade", "--url", url, "--json"]) == 0
    out, told = capsys.readouterr()
    assert json.loads(out)["passed_count"] == 500
    assert told.splitlines() == [
        "upgrade: streams of shard 0; 0 of 500 streams have passed",
        "upgrade done: 500 of 500 streams have passed in 7.5 s",
    ]


def test_who_wants_the_very_code_of_the_command_hears_of_another(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine() as (rig, url):
        rig.supervisor.runs("0.0.9-12345678")
        ending(rig, monkeypatch, state="done", step="done")
        assert main(["upgrade", "--url", url, "--match"]) == 1
        rig.supervisor.runs(release())
        ending(rig, monkeypatch, state="done", step="done")
        assert main(["upgrade", "--url", url, "--match"]) == 0
    assert "the engine runs 0.0.9-12345678, and this is " in capsys.readouterr().err


def test_one_that_fails_says_where_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine() as (rig, url):
        ending(rig, monkeypatch, state="failed", step="trial", reason="no room")
        assert main(["upgrade", "--url", url]) == 1
    assert "upgrade failed at trial: no room" in capsys.readouterr().err


def test_a_second_one_at_a_time_is_refused() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.no_upgrade = "the engine is being upgraded"
        answer = await rig.ask("POST", "/upgrade")
        assert (answer.status, answer.body["kind"]) == (409, "upgrading")
        rig.supervisor.no_upgrade = "the engine is draining"
        answer = await rig.ask("POST", "/upgrade")
        assert (answer.status, answer.body["kind"]) == (503, "unavailable")
        answer = await rig.ask("POST", "/upgrade", {"now": True})
        assert (answer.status, answer.body["field"]) == (400, "body")

    run_with_rig(scenario)


def test_before_the_first_there_is_none() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.tell()
        answer = await rig.ask("GET", "/upgrade")
        assert (answer.status, answer.body["state"]) == (200, "none")
        metrics = (await rig.ask("GET", "/metrics")).text.decode()
        assert 'fts_engine_upgrades_total{state="done"} 2.0' in metrics

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("supervisor", "writer", "said"),
    [
        (release(), release(), "ok"),
        (release(), "0.0.9-12345678", "releases_mixed"),
        ("0.0.9-12345678", "0.0.9-12345678", "release_old"),
    ],
)
def test_doctor_tells_which_code_runs(
    tmp_path: Path, supervisor: str, writer: str, said: str
) -> None:
    layout = open_layout(tmp_path)
    with engine() as (rig, url), instance.hold(layout):
        instance.write_note(layout, instance.EngineNote(1, url))
        rig.supervisor.runs(supervisor, writer)
        rig.supervisor.tell()
        (found,) = releases(load(None, {}, tmp_path))
    assert (found.id or found.level) == said
    assert found.text.count("0.0.9-12345678") == (said != "ok")
