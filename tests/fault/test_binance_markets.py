"""Binance spot and COIN-M through what may happen: the equation holds for every kind of both."""

from collections.abc import Callable

import pytest

from shards.simulator.core.ledger import read_ledger
from tests.flow.rig import SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
VENUES = ("binance_spot", "binance_inverse")
OFTEN = """
[venues.binance_inverse.poll_interval_s]
Funding = 1
OpenInterest = 1
SettledFunding = 1
"""
SPOILED = [
    ("binance_spot", "BTCUSDT", "trade", False), ("binance_spot", "BTCUSDT", "book", False),
    ("binance_spot", "BTCUSDT", "quote", False),
    ("binance_inverse", "BTCUSD_PERP", "trade", False),
    ("binance_inverse", "BTCUSD_PERP", "book", False),
    ("binance_inverse", "BTCUSD_PERP", "quote", False),
    ("binance_inverse", "BTCUSD_PERP", "funding", False),
    ("binance_inverse", "BTCUSD_PERP", "liquidation", False),
    ("binance_inverse", "BTCUSD_PERP", "funding", True),
    ("binance_inverse", "BTCUSD_PERP", "open_interest", True),
]  # fmt: skip
"""Venue, symbol, kind of row, and whether it is polled."""
UNREADABLE_ROWS = """
    SELECT i.venue, s.kind, s.transport, sum(g.missing)::int
    FROM gap g JOIN stream s USING (stream_id) JOIN instrument i USING (instrument_id)
    WHERE g.reason = 12 GROUP BY 1, 2, 3
"""
PAID = "SELECT count(*) FROM funding_rates WHERE settled"


def start(make_rig: MakeRig) -> Rig:
    rig = make_rig(
        all_kinds=True, settings=OFTEN, rate="1000", symbols=3, venues=",".join(VENUES),
        simulator=("--liquidations-per-minute", "240"),
    )  # fmt: skip
    rig.start()
    return rig


@pytest.mark.fault("N03")
def test_of_every_kind_what_cannot_be_read_is_declared_and_its_neighbours_are_stored(
    make_rig: MakeRig,
) -> None:
    rig = start(make_rig)
    for venue, symbol, kind, rest in SPOILED:
        rig.fault(fault="unreadable", venue=venue, symbol=symbol, kind=kind, rest=rest, count=3)
    rig.until(lambda: all(each["unreadable_due"] == 0 for each in rig.hubs()), "all of them sent")
    assert_equation(rig.finish())
    sent = int(read_ledger(rig.ledger_dir).unreadable["rows"].sum())
    declared = {row[:3]: row[3] for row in rig.query(UNREADABLE_ROWS)}
    assert sum(declared.values()) == sent, "each is declared once, and nothing else"
    assert len(declared) == len(SPOILED), "every kind"


@pytest.mark.fault("X01")
@pytest.mark.fault("S01")
def test_every_kind_goes_on_after_cuts_and_a_killed_shard(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    rig.until(lambda: rig.query(PAID)[0][0] > 0, "what was paid before")
    (paid,) = rig.query(PAID)
    for venue in VENUES:
        rig.fault(fault="disconnect", venue=venue)
        rig.fault(fault="gap", venue=venue, symbol=symbol_of(venue), count=3)
    rig.until_every_stream_delivers()
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())
    assert rig.query(PAID) == [paid], "each payment once, whoever asked for it"


def symbol_of(venue: str) -> str:
    return next(symbol for name, symbol, _, _ in SPOILED if name == venue)
