"""Every process of a running engine is replaced: nothing is missed, and nothing is there twice."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.layout import open_layout
from tests.flow.processes import ROOT, Fts
from tests.flow.rig import Rig, assert_equation
from tests.flow.upgrading import upgraded

pytestmark = [pytest.mark.flow, pytest.mark.timeout(400)]
MakeRig = Callable[..., Rig]


def upgrade(rig: Rig, *options: str) -> tuple[int, dict[str, Any], str]:
    """`fts upgrade --json`: exit code, the engine's last answer, and what was told meanwhile."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "control.cli.main", "upgrade", "--json", *options,
         "--state-dir", str(rig.directory / "state")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def processes(engine: Fts) -> set[int]:
    """Pids of the engine's own children."""
    return {each.pid for each in engine.descendants() if "engine.process.birth" in each.cmdline()}


def test_upgrades_in_a_row_cost_nothing(make_rig: MakeRig) -> None:
    """Every kind of both venues, by the command line and by the API."""
    rig = make_rig(
        all_kinds=True, symbols=4, rate="3000",
        simulator=("--liquidations-per-minute", "240"),
    )  # fmt: skip
    engine = rig.start()
    before = processes(engine)
    code, row, told = upgrade(rig)
    assert (code, row["state"]) == (0, "done"), (row, told, engine.log)
    assert row["passed_count"] == row["stream_count"] == rig.stream_count
    assert f"{rig.stream_count} of {rig.stream_count} streams have passed" in told
    assert not before & processes(engine), "every one of them is new"
    rig.until_more_rows(500)
    assert upgraded(rig)["state"] == "done", engine.log
    rig.until(lambda: rings_of(rig) == {"shard-0"}, "the end of the other rings")
    verdict = rig.finish()
    assert_equation(verdict)
    assert rig.query("SELECT * FROM gaps") == []
    assert "already has a producer" not in engine.log


def rings_of(rig: Rig) -> set[str]:
    """The shard processes that have rings in shared memory."""
    found = open_layout(rig.directory / "state").shm_dir.glob("*.ring")
    return {path.name.partition(".")[0] for path in found}


def test_what_cannot_run_leaves_the_engine_as_it_is(make_rig: MakeRig, tmp_path: Path) -> None:
    """Code that fails at its import, a configuration that is none, a database that lacks a table:
    the processes are the same ones afterwards. Then all is well again, and a stream is new.
    """
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    rig = make_rig(rate="1000", environment={"PYTHONPATH": f"{ROOT}:{shadow}"})
    engine = rig.start()
    before = processes(engine)
    config = rig.directory / "fts.toml"
    whole = config.read_text()

    def refused() -> str:
        row = upgraded(rig)
        assert row["state"] == "failed", row
        assert processes(engine) == before
        assert len(rings_of(rig)) == 1
        return str(row["reason"])

    (shadow / "picows.py").write_text("raise RuntimeError('half installed')")
    assert "half installed" in refused()
    (shadow / "picows.py").unlink()
    config.write_text(whole.replace("[[streams]]", "[[streems]]", 1))
    assert "streems" in refused()
    config.write_text("[control]\nhost = '127.0.0.2'\n" + whole)
    assert "control.host" in refused()
    config.write_text(whole)
    forget = "DELETE FROM schema_version WHERE file_name LIKE '0021%' RETURNING file_name, checksum"
    ((name, checksum),) = rig.query(forget)
    assert name in refused()
    rig.query(f"INSERT INTO schema_version VALUES ('{name}', '{checksum}') RETURNING 1")
    new = "[[streams]]\nvenue = 'binance_linear'\nsymbols = ['BTCUSDT']\nkinds = ['Ticker']\n"
    config.write_text(whole + new)
    rig.stream_count += 1
    assert upgraded(rig)["state"] == "done", engine.log
    rig.until(lambda: rig.query("SELECT count(*) > 0 FROM quote") == [(True,)], "its first quote")
    verdict = rig.finish()
    assert_equation(verdict)
    assert rig.query("SELECT * FROM gaps") == []
