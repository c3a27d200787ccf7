"""SIGKILL anywhere, at any instant: sent = stored exactly once + declared as gap."""

import contextlib
import fcntl
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from engine.data.layout import open_layout
from tests.flow.rig import SHARD, UPKEEP, WRITER, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]


def random_pause() -> None:
    """The instant of a kill must not depend on what the test just waited for."""
    time.sleep(random.uniform(0.0, 0.3))


@pytest.mark.fault("S01")
def test_killed_shard_comes_back_and_declares_what_it_missed(make_rig: MakeRig) -> None:
    rig = make_rig(rate="4000")
    engine = rig.start()
    for life in range(1, 4):
        random_pause()
        engine.child(SHARD).kill()
        engine.wait_for_count("shard-0 is ready", life + 1)
        rig.until_more_rows(1000)
    assert_equation(rig.finish())
    gaps = rig.query("SELECT DISTINCT reason FROM gaps WHERE venue = 'binance_linear'")
    assert ("restart",) in gaps


@pytest.mark.fault("N48")
def test_a_locked_ring_keeps_no_shard_out(make_rig: MakeRig) -> None:
    """As `flock -s` does, or any reader that wants to be polite."""
    rig = make_rig(rate="1000")
    engine = rig.start()
    with contextlib.ExitStack() as stack:
        for path in open_layout(rig.directory / "state").shm_dir.glob("*.ring"):
            fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_SH | fcntl.LOCK_NB)
        engine.child(SHARD).kill()
        engine.wait_for_count("shard-0 is ready", 2)
        rig.until_more_rows(500)
    assert "already has a producer" not in engine.log
    assert_equation(rig.finish())


@pytest.mark.fault("W01")
def test_killed_writer_repeats_nothing_and_loses_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(rate="8000")
    engine = rig.start()
    for life in range(1, 6):
        random_pause()
        engine.child(WRITER).kill()
        engine.wait_for_count("writer is ready", life + 1)
        rig.until_more_rows(500)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0, "a writer's death costs nothing"


def test_killed_upkeep_is_nobodys_loss(make_rig: MakeRig) -> None:
    rig = make_rig(rate="2000")
    engine = rig.start()
    for life in range(1, 4):
        engine.wait_for_count("upkeep is ready", life)
        engine.child(UPKEEP).kill()
        rig.until_more_rows(500)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0


@pytest.mark.fault("V04")
@pytest.mark.fault("V05")
def test_everything_killed_at_once_resumes_from_rings_and_journal(make_rig: MakeRig) -> None:
    rig = make_rig(rate="4000")
    for _ in range(3):
        engine = rig.start()
        rig.until_more_rows(1000)
        random_pause()
        children = engine.descendants()
        for process in children:
            process.kill()
        engine.kill()
        psutil.wait_procs(children, timeout=30)
    rig.start()
    rig.until_more_rows(1000)
    assert_equation(rig.finish())


@pytest.mark.fault("V04")
def test_children_leave_when_the_supervisor_is_killed(make_rig: MakeRig) -> None:
    rig = make_rig(rate="1000")
    engine = rig.start()
    children = engine.descendants()
    assert len(children) >= 3
    engine.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    rig.start()
    rig.until_more_rows(500)
    assert_equation(rig.finish())


@pytest.mark.fault("S04")
def test_hung_shard_is_noticed_killed_and_replaced(make_rig: MakeRig) -> None:
    rig = make_rig(rate="1000")
    engine = rig.start()
    engine.child(SHARD).send_signal(signal.SIGSTOP)
    engine.wait_for_count("shard-0 is ready", 2)
    rig.until_more_rows(1000)
    assert_equation(rig.finish())


@pytest.mark.fault("S07")
def test_stopped_writer_costs_declared_rows_only(make_rig: MakeRig) -> None:
    """The ring fills while the writer stands still; the drops are declared, exactly."""
    rig = make_rig(
        rate="20000",
        settings=(
            "[shards]\nring_records = { trade = 4096, book = 4096 }\n"
            "[database]\nflush_rows = 1000\n"
        ),
    )
    engine = rig.start()
    writer = engine.child(WRITER)
    writer.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    writer.send_signal(signal.SIGCONT)
    rig.until_more_rows(20_000)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing > 0
    assert ("ring_full",) in rig.query("SELECT DISTINCT reason FROM gaps")
