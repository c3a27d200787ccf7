"""SIGKILL while streams pass from one process to the next: what is lost is declared."""

import random
import time
from collections.abc import Callable

import psutil
import pytest

from tests.flow.processes import Fts
from tests.flow.rig import SHARD, WRITER, Rig, assert_equation
from tests.flow.upgrading import ask, outcome

pytestmark = [pytest.mark.flow, pytest.mark.timeout(400)]
MakeRig = Callable[..., Rig]


def shards(engine: Fts) -> list[psutil.Process]:
    """The processes of the shard, the oldest first."""
    found = [child for child in engine.descendants() if SHARD in child.cmdline()]
    return sorted(found, key=lambda child: child.create_time())


@pytest.mark.fault("V04")
def test_whoever_is_killed_while_streams_pass_costs_declared_rows_only(make_rig: MakeRig) -> None:
    rig = make_rig(rate="4000", symbols=8)
    engine = rig.start()
    victims: list[tuple[str, Callable[[], psutil.Process]]] = [
        ("failed", lambda: shards(engine)[-1]),
        ("done", lambda: shards(engine)[0]),
        ("done", lambda: engine.child(WRITER)),
        ("failed", lambda: shards(engine)[-1]),
    ]
    for number, (expected, victim) in enumerate(victims, start=1):
        assert ask(rig, "POST")["state"] == "running"
        engine.wait_for_count("upgrade: streams of shard 0", number, 120.0)
        time.sleep(random.uniform(0.0, 1.5))
        victim().kill()
        row = outcome(rig)
        assert row["state"] == expected or row["passed_count"] == row["stream_count"], engine.log
        rig.until_every_stream_delivers()
    assert len(shards(engine)) == 1
    verdict = rig.finish()
    assert_equation(verdict)
    gaps = rig.query("SELECT DISTINCT reason FROM gaps")
    assert {reason for (reason,) in gaps} <= {"restart", "resync", "history_short"}, gaps
