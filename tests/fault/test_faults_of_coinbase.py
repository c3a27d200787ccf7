"""Coinbase's two protocols through cuts, holes, nonsense and a killed shard: what was missed is
declared. No id chains the books, so each starts anew wherever something may be lost.
"""

from collections.abc import Callable
from functools import partial

import pytest

from shards.simulator.core.ledger import read_ledger
from tests.flow.rig import SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
VENUES = ("coinbase", "coinbase_exchange")
LOST_SOCKETS = """
    SELECT count(DISTINCT connection) FROM coverage_intervals
    WHERE venue = '{}' AND how_ended = 'reconnect'
"""
RENEWED = """
    SELECT count(*) FROM (
        SELECT stream_id FROM book WHERE flags & 1 = 1 GROUP BY 1
        HAVING count(DISTINCT ts_recv) > 1
    ) AS renewed
"""
UNREADABLE_ROWS = "SELECT sum(missing)::int FROM gaps WHERE reason = 'unreadable'"


def start(make_rig: MakeRig) -> Rig:
    rig = make_rig(venues=",".join(VENUES), rate="1000", symbols=2)
    rig.start()
    return rig


def has_lost(rig: Rig, venue: str, sockets: int) -> bool:
    return rig.query(LOST_SOCKETS.format(venue)) == [(sockets,)]


@pytest.mark.fault("X01")
@pytest.mark.fault("X02")
def test_what_is_missed_while_cut_off_is_declared(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for round_, fault in enumerate(("disconnect", "close"), 1):
        for venue in VENUES:
            rig.fault(fault=fault, venue=venue)
            rig.until(partial(has_lost, rig, venue, round_), "the lost socket")
        rig.until_every_stream_delivers()
    assert_equation(rig.finish())
    cut = rig.query("SELECT DISTINCT venue FROM gaps WHERE kind = 'L2Book'")
    assert {venue for (venue,) in cut} == {*VENUES}


@pytest.mark.fault("N03")
@pytest.mark.fault("X15")
def test_books_that_may_lack_something_start_anew_and_trades_name_what_is_missing(
    make_rig: MakeRig,
) -> None:
    rig = start(make_rig)
    for venue in VENUES:
        rig.fault(fault="gap", venue=venue, symbol="BTC-USD", count=7)
        rig.fault(fault="duplicate", venue=venue, symbol="BTC-USD", count=3)
        rig.fault(fault="unreadable", venue=venue, symbol="ETH-USD", kind="trade", count=11)
        rig.fault(fault="unreadable", venue=venue, symbol="ETH-USD", kind="book", count=2)
    rig.until(lambda: all(each["unreadable_due"] == 0 for each in rig.hubs()), "all of them sent")
    rig.until(lambda: rig.query(RENEWED) == [(len(VENUES),)], "snapshots of both books")
    assert_equation(rig.finish())
    missing = "SELECT sum(missing)::int FROM gaps WHERE kind = 'Trades' AND reason = 'sequence'"
    assert rig.query(missing) == [(7 * len(VENUES),)]
    sent = int(read_ledger(rig.ledger_dir).unreadable["rows"].sum())
    assert rig.query(UNREADABLE_ROWS) == [(sent,)]


@pytest.mark.fault("S01")
def test_both_go_on_where_a_killed_shard_ended(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    rig.until_more_rows()
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())


@pytest.mark.fault("X01")
def test_sockets_are_replaced_without_a_gap(make_rig: MakeRig) -> None:
    """The snapshot on the next socket repeats what is stored."""
    rig = make_rig(
        venues=",".join(VENUES), rate="2000", symbols=2,
        venue_settings="connection_lifetime_s = 5",
    )  # fmt: skip
    engine = rig.start()
    for venue in VENUES:
        engine.wait_for_count(f"{venue}: planned reconnect", 2)
    assert_equation(rig.finish())
    assert rig.query("SELECT * FROM gaps") == []
    assert "disconnected" not in engine.log
