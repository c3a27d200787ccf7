"""What happens at twice the rate that is held: does it stay up and go on committing, is what is
lost declared, how late is what is not, and how soon is it live again?
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.flow.rig import Look, Rig
from bench.flow.wording import equation_line
from engine.base.clock import monotonic_s

_LIVE_LAG_S: Final = 1.0
_UNREAD_BYTES: Final = 1 << 20
_PATIENCE_S: Final = 240.0
_LOOK_S: Final = 0.25


@pytest.mark.parametrize("rig", ["trades", "mixed"], indirect=True)
def test_overload(
    benchmark: BenchmarkFixture, figure: Callable[[float], None], rig: Rig, quick: bool
) -> None:
    held = rig.search[-1].rows_per_s
    looks = _push(rig, 2 * held, 8.0 if quick else 30.0)
    first, last = looks[0], looks[-1]
    seconds = last.at_s - first.at_s
    committed_per_s = (last.stored - first.stored) / seconds
    waited_s = max(look.backlog for look in looks) / committed_per_s
    live_after_s = _until_live(rig, held / 4)
    found = rig.equation()
    assert found.is_equal, equation_line(found)
    figure(max(live_after_s, 1e-3))
    benchmark.extra_info.update(
        asked_per_s=round(2 * held, 1),
        sent_per_s=round((last.sent - first.sent) / seconds, 1),
        committed_per_s=round(committed_per_s, 1),
        committed_part=round(committed_per_s / held, 3),
        waited_s=round(waited_s, 2),
        live_after_s=round(live_after_s, 2),
        equation=asdict(found),
        lines=[
            f"{rig.setup.name} at {2 * held:,.0f} rows/s for {seconds:.0f} s:"
            f" committed {committed_per_s:,.0f} rows/s, {committed_per_s / held:.0%} of what is"
            f" held, after at most {waited_s:.1f} s in the engine; live again {live_after_s:.1f} s"
            " after it fell back",
            f"  {equation_line(found)}",
        ],
    )


def _push(rig: Rig, rows_per_s: float, seconds: float) -> list[Look]:
    """How far everybody was from when it had begun until it was over."""
    rig.wake(rows_per_s)
    time.sleep(1.0)
    looks = [rig.look()]
    while looks[-1].at_s - looks[0].at_s < seconds:
        time.sleep(_LOOK_S)
        looks.append(rig.look())
    return looks


def _until_live(rig: Rig, rows_per_s: float) -> float:
    """Seconds from the fall of the rate until all streams deliver and nothing waits for long."""
    began_s = monotonic_s()
    rig.wake(rows_per_s)
    for look in _looks(rig, began_s):
        every = rig.engine.live_streams() == rig.engine.stream_count
        is_read = look.market.unread_bytes < _UNREAD_BYTES and look.late_s < _LIVE_LAG_S
        if every and is_read and look.backlog < _LIVE_LAG_S * rows_per_s:
            return look.at_s - began_s
    raise TimeoutError(f"not live again after {_PATIENCE_S:.0f} s:\n{rig.engine.log()}")


def _looks(rig: Rig, began_s: float) -> Iterator[Look]:
    while monotonic_s() - began_s < _PATIENCE_S:
        time.sleep(_LOOK_S)
        yield rig.look()
