"""Every process of a running engine is replaced: nothing is missed, and nothing is there twice."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine.data.layout import open_layout
from tests.fault.test_faults_of_every_venue import (
    IN_ANY_SCRIPT,
    KEYS,
    SYMBOLS,
    VENUES,
    assert_books_are_those_of_the_ledger,
    now_us,
    often,
)
from tests.flow.processes import ROOT, Fts, words_of
from tests.flow.rig import SHARD, WRITER, Rig, assert_equation
from tests.flow.upgrading import Releases, ask, outcome, upgraded

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]
MakeRig = Callable[..., Rig]

_PUSHED_GAPS = "SELECT * FROM gaps WHERE transport = 'Ws'"


ANOTHER_PROTOCOL = """\
import engine.process.protocol
engine.process.protocol.PROTOCOL += 1
"""
CANNOT_TAKE_OVER = """\
import sys
if "control.cli.changes.successor" in sys.orig_argv and "check" not in sys.orig_argv:
    from control.cli import footing
    if sys.executable == {python!r}:
        footing.instance = None
"""


def of_every_venue(make_rig: MakeRig, shadow: Path, program: list[str]) -> Rig:
    """Every kind of every venue. What is in `shadow` is imported instead of what is installed."""
    rig = make_rig(
        keys=KEYS, venues=",".join(VENUES), settings=often(VENUES), symbols=SYMBOLS, rate="750",
        simulator=("--liquidations-per-minute", "600"),
        environment={"PYTHONPATH": f"{ROOT}:{shadow}"},
    )  # fmt: skip
    rig.program = program
    for venue, symbol in IN_ANY_SCRIPT:
        rig.tell("/simulator/instruments", venue=venue, action="list", symbol=symbol)
    rig.start()
    return rig


def processes(engine: Fts) -> set[int]:
    """Pids of the engine's own children."""
    return {each.pid for each in engine.descendants() if "engine.process.birth" in words_of(each)}


def interpreters(engine: Fts) -> set[str]:
    """Of the engine's own processes, the first one included."""
    of_children = [words_of(psutil.Process(pid))[0] for pid in processes(engine)]
    return {engine.itself.cmdline()[0], *of_children}


def shards(engine: Fts) -> list[psutil.Process]:
    """The processes of the shard, the oldest first."""
    found = [child for child in engine.descendants() if SHARD in words_of(child)]
    return sorted(found, key=lambda child: child.create_time())


def rings_of(rig: Rig) -> set[str]:
    """The shard processes that have rings in shared memory."""
    found = open_layout(rig.directory / "state").shm_dir.glob("*.ring")
    return {path.name.partition(".")[0] for path in found}


def assert_what_cannot_run_is_refused(rig: Rig, engine: Fts, shadow: Path) -> None:
    """Code that fails at its import, a configuration that is none or takes a restart, a database
    that lacks a file of the schema: the processes are the same ones afterwards.
    """
    before, config = processes(engine), rig.directory / "fts.toml"
    whole = config.read_text()

    def refused() -> str:
        row = upgraded(rig)
        assert row["state"] == "failed", row
        assert processes(engine) == before
        assert rings_of(rig) == {"shard-0"}
        return str(row["reason"])

    (shadow / "picows.py").write_text("raise RuntimeError('half installed')")
    assert "half installed" in refused()
    (shadow / "picows.py").unlink()
    config.write_text(whole.replace("[[streams]]", "[[streems]]", 1))
    assert "streems" in refused()
    config.write_text("[control]\nhost = '127.0.0.2'\n" + whole)
    assert "control.host" in refused()
    config.write_text(whole)
    (shadow / "sitecustomize.py").write_text(ANOTHER_PROTOCOL)
    said = refused()
    assert ("the protocol" in said, "restart the engine" in said) == (True, True), said
    (shadow / "sitecustomize.py").unlink()
    forget = "DELETE FROM schema_version WHERE file_name LIKE '0021%' RETURNING file_name, checksum"
    ((name, checksum),) = rig.query(forget)
    assert name in refused()
    rig.query(f"INSERT INTO schema_version VALUES ('{name}', '{checksum}') RETURNING 1")


def upgrade_by_command(rig: Rig) -> None:
    """`fts upgrade`, which tells how it goes."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "control.cli.main", "upgrade", "--json",
         "--state-dir", str(rig.directory / "state")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    count = rig.stream_count
    assert (row["state"], row["passed_count"], row["stream_count"]) == ("done", count, count)
    assert f"{count} of {count} streams have passed" in done.stderr


@pytest.mark.fault("V04")
def test_upgrades_in_a_row_cost_nothing_and_what_cannot_run_touches_nothing(
    make_rig: MakeRig, tmp_path: Path
) -> None:
    releases = Releases(tmp_path)
    rig = of_every_venue(make_rig, tmp_path, releases.program)
    engine = rig.engine
    assert engine is not None
    assert_what_cannot_run_is_refused(rig, engine, tmp_path)
    before, times_us = processes(engine), [now_us(rig)]
    two = releases.use("two")
    upgrade_by_command(rig)
    assert not before & processes(engine), "every one of them is new"
    assert interpreters(engine) == {two}, "of the release that the command leads to"
    rig.until_every_stream_delivers()
    times_us.append(now_us(rig))
    with (rig.directory / "fts.toml").open("a") as config:
        config.write("[[streams]]\nvenue = 'binance_linear'\nsymbols = ['SOLUSDT']\n")
        config.write("kinds = ['Trades']\n")
    rig.stream_count += 1
    one = releases.use("one")
    (tmp_path / "sitecustomize.py").write_text(CANNOT_TAKE_OVER.format(python=one))
    row = upgraded(rig)
    assert (row["state"], row["step"]) == ("failed", "supervisor"), engine.log
    assert "cannot take over" in row["reason"]
    assert (interpreters(engine), engine.itself.cmdline()[0]) == ({one, two}, two)
    new = "SELECT count(*) > 0 FROM trades WHERE venue = 'binance_linear' AND symbol = 'SOLUSDT'"
    rig.until(lambda: rig.query(new) == [(True,)], "a trade of the stream that is new")
    rig.until(lambda: rings_of(rig) == {"shard-0"}, "the end of the other rings")
    rig.until_every_stream_delivers()
    times_us.append(now_us(rig))
    assert_equation(rig.finish())
    assert rig.query(_PUSHED_GAPS) == []
    assert_books_are_those_of_the_ledger(rig, times_us)


@pytest.mark.fault("V04")
def test_whoever_is_killed_while_streams_pass_costs_declared_rows_only(make_rig: MakeRig) -> None:
    seed = int(os.environ.get("FTS_TEST_SEED") or random.randrange(1 << 32))
    sys.stderr.write(f"the same instants: FTS_TEST_SEED={seed}\n")
    instants_s = random.Random(seed)
    rig = make_rig(rate="4000", symbols=8)
    engine = rig.start()
    victims: list[tuple[str, Callable[[], psutil.Process]]] = [
        ("failed", lambda: shards(engine)[-1]),
        ("done", lambda: shards(engine)[0]),
        ("done", lambda: engine.child(WRITER)),
    ]
    for number, (expected, victim) in enumerate(victims, start=1):
        assert ask(rig, "POST")["state"] == "running"
        engine.wait_for_count("upgrade: streams of shard 0", number, 120.0)
        time.sleep(instants_s.uniform(0.0, 1.5))  # whatever is going on then
        victim().kill()
        row = outcome(rig)
        assert row["state"] == expected or row["passed_count"] == row["stream_count"], engine.log
        rig.until_every_stream_delivers()
    assert len(shards(engine)) == 1
    assert_equation(rig.finish())
    gaps = rig.query("SELECT DISTINCT reason FROM gaps")
    assert {reason for (reason,) in gaps} <= {"restart", "resync", "history_short"}, gaps
