"""What ends other programs does not end an engine: signals, listeners that leave, a deaf log."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow.processes import ROOT, Fts, words_of
from tests.flow.rig import remove_shared_memory
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]

_NOWHERE = """
streams = []
[venues.binance_linear]
rest_url = "http://127.0.0.1:9"
ws_url = "ws://127.0.0.1:9"
[venues.hyperliquid_perp]
rest_url = "http://127.0.0.1:9"
ws_url = "ws://127.0.0.1:9"
"""
"""Nobody answers there, and nothing is wanted; the processes run all the same."""


@pytest.fixture(autouse=True)
def hangups_mean_something() -> Iterator[None]:
    """Also where the tests themselves run under `nohup`, whose children ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def arguments(tmp_path: Path) -> Iterator[list[str]]:
    config = tmp_path / "fts.toml"
    config.write_text(_NOWHERE)
    yield ["up", "--config", str(config), "--state-dir", str(tmp_path / "state"), "--port", "0",
           "--no-database", "--no-redis"]  # fmt: skip
    remove_shared_memory(tmp_path / "state")


@pytest.mark.fault("N36")
def test_signals_that_nobody_means_are_ignored_with_a_word_in_every_process(
    arguments: list[str],
) -> None:
    engine = Fts(*arguments)
    try:
        engine.wait_for("control is ready")
        below = engine.descendants()
        children = [child for child in below if "engine.process.birth" in words_of(child)]
        assert len(below) == len(children) + 1, "there is what they are copies of"
        assert len(children) >= 3
        _read_again(engine, Path(arguments[2]))
        said = 0
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            engine.signal(number)
            for child in below:
                child.send_signal(number)
            said += (number != signal.SIGHUP) + len(children)
            engine.wait_for_count(" ignored: ", said)
        engine.wait_for("configuration read again: nothing has changed")
        said_by = [each["process"] for each in events(engine.log) if "SIGUSR1" in each["message"]]
        assert len(set(said_by)) == 1 + len(children), "each has the form that it was told to have"
        assert [child for child in below if not child.is_running()] == []
        _upgrade_until_it_is_another_program(engine)
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
            engine.signal(number)  # they wait until it has all that the one before had
        assert engine.end()[0] == 0, engine.log
        assert "upgrade: done" in engine.log
        assert "SIGTERM: draining" in engine.log
    finally:
        engine.kill()
    assert "killed by" not in engine.log


def _read_again(engine: Fts, config: Path) -> None:
    """What can change does, in every process; what cannot is named; what is wrong changes none."""
    wanted = _NOWHERE.replace(
        "streams = []",
        "journal.sync_interval_s = 2.0\ncontrol.admission = 'any'\ndatabase.flush_rows = 77\n"
        "log.format = 'json'\nlog.level = 'DEBUG'\n"
        "streams = [{ venue = 'binance_linear', symbols = ['BTCUSDT'], kinds = ['Trades'] }]",
    )
    config.write_text(f"journal.segment_mb = 'much'\n{wanted}")
    engine.signal(signal.SIGHUP)
    engine.wait_for("nothing changes: ")
    assert "journal.segment_mb" in engine.log
    config.write_text(wanted)
    engine.signal(signal.SIGHUP)
    engine.wait_for('"event": "config_reloaded"')
    (done,) = (line for line in events(engine.log) if line["event"] == "config_reloaded")
    assert set(done["keys"].split(",")) == {
        "control.admission", "database.flush_rows", "log.format", "log.level", "streams",
    }  # fmt: skip
    assert done["begun"] == 1
    waits = [line["key"] for line in events(engine.log) if line["event"] == "config_waits"]
    assert waits == ["journal.sync_interval_s"]
    assert "journal.sync_interval_s changes with `fts upgrade`" in engine.log
    wait_for(lambda: asked(engine, "/health/runtime")["admission"]["policy"] == "any", "the policy")
    (stream,) = wait_for(lambda: asked(engine, "/streams"), "the stream")
    assert stream["symbol"] == "BTCUSDT"
    config.write_text(wanted[: wanted.index("streams = [{")] + _NOWHERE)
    engine.signal(signal.SIGHUP)
    engine.wait_for('"begun": 0, "ended": 1')


def _upgrade_until_it_is_another_program(engine: Fts) -> None:
    assert asked(engine, "/upgrade", "POST")["state"] == "running"
    begun = "control.cli.changes.successor"
    wait_for(lambda: begun in engine.itself.cmdline(), "the program that follows", 120.0)


def events(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def asked(engine: Fts, path: str, method: str = "GET") -> Any:
    (url,) = re.findall(r"control   (http://\S+)", engine.log)
    request = urllib.request.Request(f"{url}{path}", method=method)  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as answer:  # of an engine that is not healthy
        return json.load(answer)


@pytest.mark.fault("N36")
def test_nohup_needs_no_word(arguments: list[str]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        engine = Fts(*arguments)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        engine.wait_for("control is ready")
        engine.signal(signal.SIGHUP)
        engine.signal(signal.SIGUSR1)
        engine.wait_for("SIGUSR1 ignored")
        engine.signal(signal.SIGTERM)
        assert engine.end()[0] == 0, engine.log
    finally:
        engine.kill()
    assert "SIGHUP" not in engine.log


@pytest.mark.fault("N36")
def test_the_simulator_alone_goes_on_as_well(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "control.cli.main", "simulate", "--port", "0",
         "--symbols", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "rest_url" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert "SIGHUP ignored" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.fault("N31")
@pytest.mark.parametrize("closed", ["2>&1 | head -1", ">&- 2>&- <&-", "2>&1 | (exec <&-; exit)"])
def test_whoever_stops_reading_the_log_stops_nothing(arguments: list[str], closed: str) -> None:
    program = [sys.executable, "-P", "-m", "control.cli.main", *arguments, "--for", "2"]
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {closed}', "bash", *program],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done
    state_dir = Path(arguments[arguments.index("--state-dir") + 1])
    assert "control is ready" in (state_dir / "fts.log").read_text()


def _a_directory(log: Path) -> None:
    log.mkdir()


def _a_broken_link(log: Path) -> None:
    log.symlink_to("/nonexistent/fts.log")


@pytest.mark.fault("N31")
@pytest.mark.parametrize("spoil", [_a_directory, _a_broken_link])
def test_without_its_log_file_it_says_so_on_standard_error(
    arguments: list[str], spoil: Callable[[Path], None]
) -> None:
    log = Path(arguments[arguments.index("--state-dir") + 1]) / "fts.log"
    log.parent.mkdir()
    spoil(log)
    engine = Fts(*arguments)
    try:
        engine.wait_for("control is ready")
        for process in ("supervisor", "writer", "shard-0", "control"):
            engine.wait_for(f"{process} {log}: ")
        engine.signal(signal.SIGTERM)
        assert engine.end()[0] == 0, engine.log
    finally:
        engine.kill()
    if log.is_dir():
        shutil.rmtree(log)
