"""Hyperliquid's builders' dexes and pairs through cuts, nonsense and a killed shard."""

from collections.abc import Callable

import pytest

from shards.simulator.core.ledger import read_ledger
from tests.flow.rig import SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
BUILDER, SPOT = VENUES = ("hyperliquid_builder", "hyperliquid_spot")
SYMBOLS = {BUILDER: "xyz:TSLA", SPOT: "@107"}
KINDS = {BUILDER: ("trade", "book", "quote", "funding"), SPOT: ("trade", "book", "quote")}


def start(make_rig: MakeRig) -> Rig:
    rig = make_rig(all_kinds=True, venues=",".join(VENUES), rate="1000", symbols=2)
    rig.start()
    return rig


def lost_sockets(rig: Rig, venue: str) -> int:
    """How many of a venue's sockets have ended."""
    found = rig.query(
        "SELECT count(DISTINCT connection) FROM coverage_intervals"
        f" WHERE venue = '{venue}' AND how_ended = 'reconnect'"
    )
    return int(found[0][0])


@pytest.mark.fault("X01")
def test_what_is_missed_while_cut_off_is_declared(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for venue in VENUES:
        rig.fault(fault="disconnect", venue=venue)
        rig.until(lambda v=venue: lost_sockets(rig, v) > 0, "the lost socket")  # type: ignore[misc]
        rig.fault(fault="malformed", venue=venue)
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())


@pytest.mark.fault("N03")
def test_what_cannot_be_read_is_declared_and_its_neighbours_are_stored(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for venue in VENUES:
        for kind in KINDS[venue]:
            rig.fault(fault="unreadable", venue=venue, symbol=SYMBOLS[venue], kind=kind, count=2)
    rig.until(lambda: all(each["unreadable_due"] == 0 for each in rig.hubs()), "all of them sent")
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())
    sent = int(read_ledger(rig.ledger_dir).unreadable["rows"].sum())
    declared = rig.query("SELECT sum(missing)::int FROM gaps WHERE reason = 'unreadable'")
    assert declared == [(sent,)]


@pytest.mark.fault("S01")
def test_every_kind_goes_on_where_a_killed_shard_ended(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())
