"""Streams of which nothing is known: they wait for the venue's listing, and begin by themselves."""

from collections.abc import Callable

import pytest

from tests.flow.rig import Rig, assert_equation
from tests.flow.test_five_hundred_streams import api

pytestmark = [pytest.mark.flow, pytest.mark.whole]
MakeRig = Callable[..., Rig]

HYPERLIQUID = "hyperliquid_perp"


def what_is_said(rig: Rig) -> str:
    """What the streams wait for."""
    return str(api(rig, "GET", "/streams"))


@pytest.mark.fault("H02")
def test_requests_that_are_forbidden_at_the_first_start_and_allowed_later(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(streams=[(HYPERLIQUID, "BTC")])
    rig.fault(fault="http_status", venue=HYPERLIQUID, status=429, count=1, retry_after_s=4)
    engine = rig.begin()
    engine.wait_for("control is ready")
    whys = ("waiting for the budget rest_weight, blocked", "hyperliquid_perp: HTTP 429: too many")
    rig.until(lambda: any(f"instruments: {why}" in what_is_said(rig) for why in whys), "the reason")
    engine.wait_for("streams 2/2 live")
    assert_equation(rig.finish())


@pytest.mark.fault("P01")
def test_control_that_is_killed_at_the_first_start(make_rig: MakeRig) -> None:
    rig = make_rig(streams=[(HYPERLIQUID, "BTC")])
    rig.fault(fault="http_status", venue=HYPERLIQUID, status=503, count=3)
    engine = rig.begin()
    engine.wait_for("control is ready")
    engine.child("control.main:run").kill()
    engine.wait_for_count("control is ready", 2)
    engine.wait_for("streams 2/2 live")
    assert engine.log.count("shard-0 is ready") == 1
    assert_equation(rig.finish())


@pytest.mark.fault("A10")
def test_a_symbol_that_is_listed_later_begins_by_itself(make_rig: MakeRig) -> None:
    rig = make_rig(
        streams=[(HYPERLIQUID, "BTC"), (HYPERLIQUID, "LATER")],
        settings="[control]\ninstruments_refresh_s = 1",
    )
    engine = rig.begin()
    engine.wait_for("unknown symbol: hyperliquid_perp lists no 'LATER'")
    engine.wait_for("streams 2/4 live")
    rig.tell("/simulator/instruments", venue=HYPERLIQUID, action="list", symbol="LATER")
    engine.wait_for("streams 4/4 live")
    assert engine.log.count("LATER/Trades/Ws: unknown symbol") == 1, "said once"
    assert_equation(rig.finish())


def test_a_venue_is_left_alone_until_somebody_asks_about_it(make_rig: MakeRig) -> None:
    rig = make_rig(streams=[("binance_linear", "BTCUSDT")], settings="[control]\nadmission = 'any'")
    rig.start()
    (asked, left) = (hub["rest"]["calls"] for hub in rig.hubs())
    assert asked > 0
    assert left == 0
    listed = api(rig, "GET", f"/instruments?exchange={HYPERLIQUID}")
    assert {each["exchange"] for each in listed} == {HYPERLIQUID}
    stream = {"exchange": HYPERLIQUID, "symbol": listed[0]["symbol"], "kind": "Trades"}
    assert api(rig, "POST", "/streams", stream) == "ok"
    rig.until(lambda: "'live', 'live', 'live'" in states(rig), "the third stream")
    assert_equation(rig.stop())


def states(rig: Rig) -> str:
    """What the streams do."""
    return str([each["state"] for each in api(rig, "GET", "/streams")])
