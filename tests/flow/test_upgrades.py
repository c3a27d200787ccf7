"""Every process of a running engine is replaced: nothing is missed, and nothing is there twice."""

import signal
from collections.abc import Callable

import pytest

from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]


def test_upgrades_in_a_row_cost_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(
        all_kinds=True, symbols=6, rate="3000",
        simulator=("--liquidations-per-minute", "240"),
    )  # fmt: skip
    engine = rig.start()
    for number in range(1, 4):
        engine.signal(signal.SIGUSR2)
        engine.wait_for_count("upgrade: done", number, 90.0)
        rig.until_more_rows(500)
    verdict = rig.finish()
    assert_equation(verdict)
    assert rig.query("SELECT * FROM gaps") == []
