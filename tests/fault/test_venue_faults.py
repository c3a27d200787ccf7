"""What venues do to their clients: garbage, cuts, holes, repetitions, refusals."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(180)]
MakeRig = Callable[..., Rig]
VENUES = ("binance_linear", "hyperliquid_perp")
SNAPSHOTS = "SELECT count(DISTINCT seq) FROM book_levels WHERE is_snapshot AND symbol = 'BTCUSDT'"


def started_anew(rig: Rig, times: int) -> bool:
    """Whether so many snapshots of the book have been stored."""
    return rig.query(SNAPSHOTS) == [(times,)]


@pytest.mark.fault("X11")
def test_malformed_frames_are_skipped_and_no_connection_is_lost(make_rig: MakeRig) -> None:
    rig = make_rig()
    engine = rig.start()
    for venue in VENUES:
        rig.fault(fault="malformed", venue=venue, variant="all", count=5)
    rig.until_more_rows(1000)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0
    assert "unusable frame" in engine.log
    assert "disconnected" not in engine.log


@pytest.mark.fault("X01")
@pytest.mark.fault("X02")
def test_cut_sockets_come_back_and_losses_are_declared(make_rig: MakeRig) -> None:
    rig = make_rig(rate="8000")
    engine = rig.start()
    for round_, fault in enumerate(("disconnect", "close", "disconnect", "close"), 1):
        more = {"code": 1001} if fault == "close" else {}
        for venue in VENUES:
            rig.fault(fault=fault, venue=venue, **more)
        engine.wait_for_count("hyperliquid_perp ws://", round_)
        rig.until_more_rows(2000)
    assert_equation(rig.finish())


@pytest.mark.fault("X15")
def test_holes_in_the_sequence_are_declared_exactly(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.start()
    rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", kind="trade", count=17)
    rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", kind="book", count=2)
    rig.until_more_rows(2000)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing >= 17
    assert rig.query(
        "SELECT sum(missing), bool_and(reason = 'sequence') FROM gaps WHERE kind = 'Trades'"
    ) == [(17, True)]
    assert rig.query("SELECT count(*) > 0 FROM gaps WHERE kind = 'L2Book'") == [(True,)]
    assert started_anew(rig, 2), "the broken book"


@pytest.mark.fault("X13")
def test_repeated_trades_are_stored_once(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.start()
    for venue, symbol in (("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "BTC")):
        rig.fault(fault="duplicate", venue=venue, symbol=symbol, count=5)
    rig.until_more_rows(1000)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0


@pytest.mark.fault("X16")
@pytest.mark.fault("H01")
@pytest.mark.fault("H03")
def test_snapshots_that_do_not_fit_or_are_refused_are_asked_for_again(make_rig: MakeRig) -> None:
    rig = make_rig(symbols=1)
    rig.fault(fault="stale_snapshot", venue="binance_linear", count=2)
    engine = rig.start()
    for started, status in ((2, 503), (3, 429)):
        rig.fault(
            fault="http_status", venue="binance_linear", status=status, count=1, retry_after_s=1
        )
        rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", kind="book", count=1)
        engine.wait_for(f"HTTP {status}")
        rig.until(partial(started_anew, rig, started), "a snapshot that fits")
    assert_equation(rig.finish())
