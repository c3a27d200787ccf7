"""Sockets that are replaced on time: nobody misses anything, and nothing is there twice."""

from collections.abc import Callable

import pytest

from tests.flow.rig import GAPS_OF_SOCKETS, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]


@pytest.mark.fault("X01")
def test_sockets_are_replaced_under_load_without_a_gap(make_rig: MakeRig) -> None:
    """Every kind, at the planned age of the sockets of both venues, and at an announcement."""
    rig = make_rig(
        all_kinds=True,
        rate="8000",
        simulator=("--liquidations-per-minute", "240"),
        venue_settings="connection_lifetime_s = 5",
    )
    engine = rig.start()
    engine.wait_for_count("binance_linear: planned reconnect", 2)
    engine.wait_for_count("hyperliquid_perp: planned reconnect", 2)
    rig.fault(fault="shutdown", venue="binance_linear", seconds=20)
    engine.wait_for_count("binance_linear: the venue announced", 2)
    verdict = rig.finish()
    assert_equation(verdict)
    assert rig.query(GAPS_OF_SOCKETS) == []
    assert "disconnected" not in engine.log
