"""`fts up` and `fts demo` as a user runs them, to their end: real processes, real servers."""

import contextlib
import json
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from control.cli.commands.demo import demo_streams
from control.proof.simulator import SimulatorProcess
from engine.data.kinds import KINDS
from engine.data.names import CARRIES
from tests.flow.processes import Fts

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.flow, pytest.mark.timeout(180)]


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Where also the account of root's private PostgreSQL can walk: not below pytest's own."""
    parent = Path(tempfile.mkdtemp(prefix="fts-flow-"))
    parent.chmod(0o755)
    yield parent / "state"
    if (parent / "state" / "instance").exists():  # a forced stop leaves its rings, as it should
        identity = (parent / "state" / "instance").read_text().strip()
        shutil.rmtree(f"/dev/shm/fts-{identity}", ignore_errors=True)
    shutil.rmtree(parent)


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Fts]:
    fts = Fts(*arguments, **environment)
    try:
        yield fts
    finally:
        fts.kill()


def leftovers(state_dir: Path, processes: list[psutil.Process]) -> list[str]:
    """Processes, sockets and ring files that should be gone."""
    identity = (state_dir / "instance").read_text().strip()
    found = [str(path) for path in Path("/dev/shm").glob(f"fts-{identity}/*.ring")]
    found += [str(path) for path in state_dir.rglob("*") if path.is_socket()]
    found += [str(process) for process in processes if process.is_running()]
    return found + [str(path) for path in state_dir.glob("engine.json")]


def test_bounded_demo_proves_the_equation(state_dir: Path) -> None:
    with running(
        "demo", "--for", "3", "--rate", "4000", "--symbols", "3", "--json",
        "--state-dir", str(state_dir),
    ) as fts:  # fmt: skip
        code, output = fts.end()
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert code == 0, (summary, fts.log)
    assert summary["sent"] == summary["stored"] + summary["declared_missing"] > 5000
    for name in ("duplicates", "missing", "altered", "dropped", "backlog", "restarts"):
        assert summary[name] == 0, name
    assert summary["received"] == summary["published"] >= summary["stored"]
    for stage in ("database", "redis"):
        figures = summary["latency_us"][stage]
        assert 0 < figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]


def test_demo_of_all_kinds_proves_each_of_them(state_dir: Path, tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"  # polls so often that some come while the demo ends
    config.write_text("[venues.binance_linear]\npoll_interval_s = { Funding = 1.1 }\n")
    with running(
        "demo", "--for", "8", "--rate", "500", "--symbols", "2", "--all-kinds", "--json",
        "--state-dir", str(state_dir), "--config", str(config),
    ) as fts:  # fmt: skip
        code, output = fts.end()
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert code == 0, (summary, fts.log)
    offered = {key.kind for key in demo_streams(2, all_kinds=True)}
    wanted = {name for kind in offered for name in CARRIES[kind] if KINDS[name].view}
    for name in {"trade", "delta", "whole"} | wanted:
        verdict = summary["ledger"][name]
        assert verdict["sent"] == verdict["stored"] + verdict["declared_missing"] > 0, name
        assert verdict["duplicates"] == verdict["missing"] == verdict["altered"] == 0, name


@pytest.mark.fault("V01")
@pytest.mark.fault("N46")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_endless_demo_proves_itself_when_it_is_told_to_stop(
    state_dir: Path, number: signal.Signals
) -> None:
    kinds = ["--all-kinds"] if number == signal.SIGTERM else []
    with running("demo", "--symbols", "2", *kinds, "--state-dir", str(state_dir)) as fts:
        fts.wait_for("control is ready")
        fts.wait_for(" live, ")
        fts.wait_for("green (")
        processes = fts.descendants()
        assert len(processes) >= 6
        fts.signal(number)
        code, output = fts.end(60.0)
    assert code == 0, (output, fts.log)
    assert "all accepted rows are in the database" in fts.log
    first = output.splitlines()[0]
    assert first.startswith("PROVEN: sent "), output
    sent, stored, declared = map(int, re.findall(r"\d+", first.replace(",", ""))[:3])
    assert sent == stored + declared > 0
    assert leftovers(state_dir, processes) == []
    assert not list((state_dir / "ledger").glob("trade.bin")), "it takes no room"
    assert output.splitlines()[-1] == f"read it with: fts psql --state-dir {state_dir}"
    asked = ("psql", "--state-dir", str(state_dir), "-XAtc", "SELECT count(*) > 0 FROM trades")
    with running(*asked) as psql:
        assert psql.end() == (0, "t\n")
    with running("db", "stop", "--state-dir", str(state_dir)) as closing:
        assert closing.end()[0] == 0


@pytest.mark.fault("V03")
def test_two_signals_stop_at_once_with_exit_code_1(state_dir: Path) -> None:
    with running("demo", "--symbols", "2", "--rate", "max", "--state-dir", str(state_dir)) as fts:
        fts.wait_for("control is ready")
        processes = fts.descendants()
        fts.signal(signal.SIGTERM)
        fts.wait_for("SIGTERM: draining")
        fts.signal(signal.SIGTERM)
        code, _ = fts.end(10.0)
    assert code == 1
    assert [process for process in processes if process.is_running()] == []


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(["--port", "0", "--rate", "500", "--symbols", "2"])
    yield process
    process.stop()


def configured(directory: Path, simulator: SimulatorProcess, symbols: str) -> Path:
    venue = simulator.venues()["binance_linear"]
    path = directory / "fts.toml"
    path.write_text(
        f"[venues.binance_linear]\nrest_url = '{venue.rest_url}'\nws_url = '{venue.ws_url}'\n"
        f"[[streams]]\nvenue = 'binance_linear'\nsymbols = [{symbols}]\n"
    )
    return path


def test_unknown_symbols_end_the_start_with_a_suggestion(
    state_dir: Path, tmp_path: Path, simulator: SimulatorProcess
) -> None:
    config = configured(tmp_path, simulator, "'BTCUSTD'")
    with running(
        "up", "--config", str(config), "--port", "0", "--no-database", "--no-redis",
        "--state-dir", str(state_dir),
    ) as fts:  # fmt: skip
        code, _ = fts.end()
    assert code == 2, fts.log
    last = fts.log.strip().splitlines()[-1]
    assert last.startswith("fts: no stream is usable: binance_linear/BTCUSTD: ")
    assert "BTCUSDT" in last


@pytest.mark.fault("N29")
def test_one_unknown_symbol_does_not_stop_the_others_and_is_told_at_the_end(
    state_dir: Path, tmp_path: Path, simulator: SimulatorProcess
) -> None:
    config = configured(tmp_path, simulator, "'BTCUSTD', 'ETHUSDT'")
    with running(
        "up", "--config", str(config), "--port", "0", "--no-redis", "--for", "3", "--json",
        "--state-dir", str(state_dir),
    ) as fts:  # fmt: skip
        code, output = fts.end()
    assert code == 4, fts.log
    (unfinished,) = json.loads(output)["equation"]["unfinished"]
    assert unfinished.startswith("2 of 4 streams failed: binance_linear/BTCUSTD/")
    assert json.loads(output)["stored"] > 0


@pytest.mark.fault("V02")
@pytest.mark.fault("N29")
def test_unreachable_database_is_said_and_loses_nothing(
    state_dir: Path, tmp_path: Path, simulator: SimulatorProcess
) -> None:
    config = configured(tmp_path, simulator, "'BTCUSDT'")
    common = ("up", "--config", str(config), "--port", "0", "--no-redis", "--json", "--for", "2",
              "--state-dir", str(state_dir))  # fmt: skip
    with running(*common, FTS_DATABASE_URL=f"postgresql://u:canary@/d?host={tmp_path}") as fts:
        code, output = fts.end()
    first = json.loads(output)
    assert code == 4, fts.log
    assert f"{first['received']:,} rows wait" in str(first["equation"]["unfinished"])
    assert first["equation"]["total"]["waiting"] == first["received"]
    assert "the database cannot be reached" in fts.log
    assert "the next start on this state directory delivers them" in fts.log
    assert "canary" not in fts.log + output
    assert first["received"] > 0
    assert first["stored"] == 0
    assert first["delivered"] is False
    with running(*common) as fts:
        code, output = fts.end()
    second = json.loads(output)
    assert code == 0, fts.log
    assert second["delivered"] is True
    assert second["stored"] >= first["received"] + second["received"]
    assert second["equation"]["holds"] is True
    assert second["equation"]["total"]["left"] == first["received"], "exactly what the first left"


@pytest.mark.fault("N29")
def test_an_engine_that_never_ran_a_stream_is_no_success(state_dir: Path, tmp_path: Path) -> None:
    """Nothing answers: neither the venue, nor the database. It used to be "all accepted rows are
    in the database", exit code 0."""
    config = tmp_path / "fts.toml"
    nobody = "rest_url = 'http://127.0.0.1:1'\nws_url = 'ws://127.0.0.1:1'\n"
    config.write_text(f"[venues.binance_linear]\n{nobody}[[streams]]\nvenue = 'binance_linear'\n"
                      "symbols = ['BTCUSDT']\n")  # fmt: skip
    with running(
        "up", "--config", str(config), "--port", "0", "--no-redis", "--for", "1",
        "--state-dir", str(state_dir), FTS_DATABASE_URL=f"postgresql://u@/d?host={tmp_path}",
    ) as fts:  # fmt: skip
        code, output = fts.end()
    assert code == 4, fts.log
    assert "unfinished: no stream has delivered anything" in output
    assert "all accepted rows are in the database" not in fts.log
