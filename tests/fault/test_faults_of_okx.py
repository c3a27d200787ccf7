"""OKX through cuts, holes, notices and nonsense, with every kind it offers: the equation holds,
and what broke is declared.
"""

from collections.abc import Callable
from functools import partial

import pytest

from shards.simulator.core.ledger import read_ledger
from tests.flow.rig import SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
SWAP, DATED = "BTC-USDT-SWAP", "XRP-USD_UM_XPERP-310404"
LOST_SOCKETS = """
    SELECT count(DISTINCT connection) FROM coverage_intervals WHERE how_ended = 'reconnect'
"""
HOLES = "SELECT symbol, kind, reason FROM gaps"
UNREADABLE_ROWS = """
    SELECT s.kind, sum(g.missing)::int FROM gap g JOIN stream s USING (stream_id)
    WHERE g.reason = 12 GROUP BY 1
"""
SPOILED = {
    "trade": "Trades", "book": "L2Book", "quote": "Ticker", "funding": "Funding",
    "open_interest": "OpenInterest", "liquidation": "Liquidations",
}  # fmt: skip
"""Kinds of rows, and of the streams that bring them."""


def start(make_rig: MakeRig) -> Rig:
    rig = make_rig(
        all_kinds=True, venues="okx", rate="1000", symbols=4,
        simulator=("--liquidations-per-minute", "480"),
    )  # fmt: skip
    rig.start()
    return rig


def has_lost(rig: Rig, sockets: int) -> bool:
    return rig.query(LOST_SOCKETS) == [(sockets,)]


@pytest.mark.fault("X01")
@pytest.mark.fault("X02")
def test_what_every_kind_misses_while_cut_off_is_declared(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for round_, fault in enumerate(("disconnect", "close"), 1):
        rig.fault(fault=fault, venue="okx")
        rig.until(partial(has_lost, rig, 2 * round_), "the lost sockets of books and the rest")
        rig.until_every_stream_delivers()
    assert_equation(rig.finish())
    cut = {kind for (kind,) in rig.query("SELECT kind FROM gaps WHERE reason = 'reconnect'")}
    assert cut >= {"Ticker", "Funding", "OpenInterest", "Liquidations"}


@pytest.mark.fault("X15")
def test_a_hole_in_merged_trades_or_in_a_book_is_declared_and_the_book_begins_anew(
    make_rig: MakeRig,
) -> None:
    rig = start(make_rig)
    for symbol in (SWAP, DATED):
        rig.fault(fault="gap", venue="okx", symbol=symbol, kind="trade", count=7)
        rig.fault(fault="gap", venue="okx", symbol=symbol, kind="book", count=3)
    reasons = (("Trades", "sequence"), ("L2Book", "resync"))
    wanted = {(symbol, kind, reason) for symbol in (SWAP, DATED) for kind, reason in reasons}
    rig.until(lambda: wanted <= {*rig.query(HOLES)}, "all holes declared")
    renewed = "SELECT count(DISTINCT stream_id) FROM book WHERE flags & 1 = 1 AND ts_recv > {}"
    (last,) = rig.query("SELECT max(ts_recv) FROM gap")[0]
    rig.until(lambda: rig.query(renewed.format(last))[0][0] >= 2, "both books from a snapshot")
    assert_equation(rig.finish())


def test_sockets_that_are_announced_to_end_hand_over_without_a_gap(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    rig.fault(fault="shutdown", venue="okx", seconds=20)
    handed = "SELECT count(DISTINCT connection) FROM coverage_intervals WHERE venue = 'okx'"
    rig.until(lambda: rig.query(handed)[0][0] >= 4, "new sockets beside the old ones")
    assert_equation(rig.finish())
    lost = "SELECT kind, missing FROM gaps WHERE kind IN ('Trades', 'L2Book') AND missing > 0"
    assert rig.query(lost) == []


@pytest.mark.fault("N03")
def test_what_cannot_be_read_is_declared_once_and_nothing_else_is(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for kind in SPOILED:
        count = 8 if kind in ("trade", "quote") else 3
        rig.fault(fault="unreadable", venue="okx", symbol=SWAP, kind=kind, count=count)
    rig.until(lambda: all(each["unreadable_due"] == 0 for each in rig.hubs()), "all of them sent")
    assert_equation(rig.finish())
    sent = int(read_ledger(rig.ledger_dir).unreadable["rows"].sum())
    declared = dict(rig.query(UNREADABLE_ROWS))
    assert declared.keys() == set(SPOILED.values())
    assert sum(declared.values()) >= sent


@pytest.mark.fault("S01")
def test_every_kind_goes_on_exactly_where_a_killed_shard_ended(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    rig.until(lambda: rig.query("SELECT count(*) FROM liquidation")[0][0] > 5, "liquidations")
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())
