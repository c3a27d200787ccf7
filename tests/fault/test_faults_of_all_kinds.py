"""Every kind of stream, pushed and polled, through cuts, refusals and a killed shard: the equation
holds for each of them, and each row of funding says the interval the venue said.
"""

from collections.abc import Callable
from functools import partial

import pytest

from shards.simulator.core.ledger import read_ledger
from tests.flow.rig import SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
VENUES = ("binance_linear", "hyperliquid_perp")
OFTEN = "\n".join(
    f"[venues.{venue}.poll_interval_s]\nFunding = 1\nOpenInterest = 1\nFundingOpenInterest = 1"
    for venue in VENUES
)
LIQUIDATIONS = ("--liquidations-per-minute", "240")
LATE = "SELECT count(*) FROM liquidation WHERE ts_recv > (SELECT max(ts_recv) FROM gap)"


def start(make_rig: MakeRig) -> Rig:
    rig = make_rig(all_kinds=True, settings=OFTEN, simulator=LIQUIDATIONS, rate="1000", symbols=2)
    rig.start()
    return rig


LOST_SOCKETS = """
    SELECT count(DISTINCT connection) FROM coverage_intervals
    WHERE venue = 'hyperliquid_perp' AND transport = 'Ws' AND how_ended = 'reconnect'
"""


def lost_sockets(rig: Rig, count: int) -> bool:
    return rig.query(LOST_SOCKETS) == [(count,)]


@pytest.mark.fault("X01")
@pytest.mark.fault("X02")
def test_what_every_kind_misses_while_cut_off_is_declared(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    for round_, fault in enumerate(("disconnect", "close", "disconnect", "close"), 1):
        for venue in VENUES:
            rig.fault(fault=fault, venue=venue)
        rig.until(partial(lost_sockets, rig, round_), "the lost socket")
        rig.until_every_stream_delivers()
    rig.until(lambda: rig.query(LATE)[0][0] > 3, "liquidations after the last cut")
    assert_equation(rig.finish())
    cut = {kind for (kind,) in rig.query("SELECT kind FROM gaps WHERE reason = 'reconnect'")}
    assert cut >= {"Ticker", "Funding", "FundingOpenInterest", "Liquidations"}


SPOILED = [
    ("binance_linear", "BTCUSDT", "trade", False), ("binance_linear", "BTCUSDT", "book", False),
    ("binance_linear", "BTCUSDT", "quote", False), ("binance_linear", "BTCUSDT", "funding", False),
    ("binance_linear", "BTCUSDT", "liquidation", False),
    ("binance_linear", "BTCUSDT", "funding", True),
    ("binance_linear", "BTCUSDT", "open_interest", True),
    ("hyperliquid_perp", "BTC", "trade", False), ("hyperliquid_perp", "BTC", "book", False),
    ("hyperliquid_perp", "BTC", "quote", False), ("hyperliquid_perp", "BTC", "funding", False),
    ("hyperliquid_perp", "BTC", "funding", True),
]  # fmt: skip
"""Venue, symbol, kind of row, and whether it is polled."""
UNREADABLE_ROWS = """
    SELECT i.venue, s.kind, s.transport, sum(g.missing)::int
    FROM gap g JOIN stream s USING (stream_id) JOIN instrument i USING (instrument_id)
    WHERE g.reason = 12 GROUP BY 1, 2, 3
"""


@pytest.mark.fault("N03")
@pytest.mark.fault("N06")
def test_of_every_kind_what_cannot_be_read_is_declared_and_its_neighbours_are_stored(
    make_rig: MakeRig,
) -> None:
    rig = start(make_rig)
    for venue, symbol, kind, rest in SPOILED:
        rig.fault(
            fault="unreadable", venue=venue, symbol=symbol, kind=kind, rest=rest,
            count=3 if rest or kind in ("funding", "book", "liquidation") else 8,
        )  # fmt: skip
    rig.until(lambda: all(each["unreadable_due"] == 0 for each in rig.hubs()), "all of them sent")
    verdict = rig.finish()
    assert_equation(verdict)
    ledger = read_ledger(rig.ledger_dir)
    sent = int(ledger.unreadable["rows"].sum())
    declared = {row[:3]: row[3] for row in rig.query(UNREADABLE_ROWS)}
    assert sum(declared.values()) == sent, "each is declared once, and nothing else"
    assert len(declared) == len(SPOILED), "every kind"
    others = {reason for (reason,) in rig.query("SELECT DISTINCT reason FROM gaps")}
    assert others <= {"unreadable", "poll_missed"}, "a poll repeated for too long misses the next"


@pytest.mark.fault("S01")
def test_every_kind_goes_on_exactly_where_a_killed_shard_ended(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    rig.until(lambda: rig.query("SELECT count(*) FROM liquidation")[0][0] > 5, "liquidations")
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    rig.until(lambda: rig.query(LATE)[0][0] > 3, "liquidations after the restart")
    assert_equation(rig.finish())


@pytest.mark.fault("H03")
def test_polls_that_are_refused_for_a_while_declare_the_samples_they_missed(
    make_rig: MakeRig,
) -> None:
    rig = start(make_rig)
    for venue, count in zip(VENUES, (24, 16), strict=True):  # the listings take their part of them
        rig.fault(fault="http_status", venue=venue, status=503, count=count)
    missed = "SELECT count(DISTINCT kind) FROM gaps WHERE reason = 'poll_missed'"
    rig.until(lambda: rig.query(missed) == [(3,)], "declared samples of all polled kinds")
    assert_equation(rig.finish())
