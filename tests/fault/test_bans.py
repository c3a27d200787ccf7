"""A venue that lets nobody ask: what needs no answer goes on."""

import signal
from collections.abc import Callable

import pytest

from tests.flow.rig import Rig

MakeRig = Callable[..., Rig]

HYPERLIQUID = "hyperliquid_perp"


@pytest.mark.fault("H02")
def test_a_restart_during_a_ban_from_rest_goes_on_collecting(make_rig: MakeRig) -> None:
    rig = make_rig(streams=[(HYPERLIQUID, "BTC"), (HYPERLIQUID, "ETH")])
    engine = rig.start()
    rig.until_more_rows()
    engine.signal(signal.SIGTERM)
    engine.end()
    rig.fault(fault="http_status", venue=HYPERLIQUID, status=429, count=1000, retry_after_s=3600)
    for _ in ("the venue says so", "it is remembered"):
        engine = rig.start()
        rig.until_more_rows()
        engine.signal(signal.SIGTERM)
        engine.end()
