"""Both venues of Kraken through cuts, holes and nonsense, with every kind that they offer: the
equation holds, and what broke is declared.
"""

from collections.abc import Callable
from functools import partial

import pytest

from control.proof.ledger_check import LedgerCheck
from shards.simulator.core.ledger import read_ledger
from tests.flow.rig import SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
SYMBOLS = {"kraken_spot": "BTC/USD", "kraken_futures": "PF_XBTUSD"}
LIQUIDATIONS = ("--liquidations-per-minute", "240")
LOST_SOCKETS = """
    SELECT count(DISTINCT connection) FROM coverage_intervals
    WHERE venue = 'kraken_futures' AND how_ended = 'reconnect'
"""
REASONS = "SELECT venue, kind, reason FROM gaps"
UNREADABLE_ROWS = """
    SELECT i.venue, s.kind, sum(g.missing)::int
    FROM gap g JOIN stream s USING (stream_id) JOIN instrument i USING (instrument_id)
    WHERE g.reason = 12 GROUP BY 1, 2
"""
SPOILED = [
    ("kraken_spot", "trade"), ("kraken_spot", "book"), ("kraken_spot", "quote"),
    ("kraken_futures", "trade"), ("kraken_futures", "book"), ("kraken_futures", "funding"),
    ("kraken_futures", "liquidation"),
]  # fmt: skip


def has_lost(rig: Rig, sockets: int) -> bool:
    return rig.query(LOST_SOCKETS) == [(sockets,)]


def start(make_rig: MakeRig) -> Rig:
    rig = make_rig(
        all_kinds=True, venues=",".join(SYMBOLS), simulator=LIQUIDATIONS, rate="1000", symbols=2
    )
    rig.start()
    return rig


@pytest.mark.fault("X01")
@pytest.mark.fault("X02")
def test_repeated_trades_fill_the_holes_of_cut_sockets(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for round_, fault in enumerate(("disconnect", "close", "disconnect"), 1):
        for venue in SYMBOLS:
            rig.fault(fault=fault, venue=venue)
        rig.until(partial(has_lost, rig, round_), "the lost socket")
        rig.until_every_stream_delivers()
    assert_equation(rig.finish())


@pytest.mark.fault("X01")
def test_sockets_are_replaced_on_time_without_a_gap(make_rig: MakeRig) -> None:
    rig = make_rig(
        all_kinds=True, venues=",".join(SYMBOLS), simulator=LIQUIDATIONS, symbols=2,
        venue_settings="connection_lifetime_s = 5",
    )  # fmt: skip
    engine = rig.start()
    for venue in SYMBOLS:
        engine.wait_for_count(f"{venue}: planned reconnect", 2)
    rig.finish()
    assert rig.query("SELECT * FROM gaps") == []
    verdicts = LedgerCheck(rig.ledger_dir, rig.database_url).verdicts
    for kind, verdict in verdicts.items():
        if kind != "whole":  # with a book that the next socket begins with nothing new is said
            assert verdict.sent == verdict.stored, kind
            assert verdict.duplicates == verdict.altered == 0, kind


@pytest.mark.fault("X15")
def test_a_hole_in_trades_or_in_a_book_is_declared_and_the_book_begins_anew(
    make_rig: MakeRig,
) -> None:
    rig = start(make_rig)
    for venue, symbol in SYMBOLS.items():
        rig.fault(fault="gap", venue=venue, symbol=symbol, kind="trade", count=7)
        rig.fault(fault="gap", venue=venue, symbol=symbol, kind="book", count=5)
    wanted = {
        (venue, kind, reason)
        for venue in SYMBOLS
        for kind, reason in (("Trades", "sequence"), ("L2Book", "resync"))
    }
    rig.until(lambda: wanted <= {*rig.query(REASONS)}, "all holes declared")
    assert_equation(rig.finish())


@pytest.mark.fault("N03")
def test_what_cannot_be_read_is_declared_by_every_stream_that_it_is_of(make_rig: MakeRig) -> None:
    """An unreadable ticker of futures is a quote as well, a liquidation a trade."""
    rig = start(make_rig)
    for venue, kind in SPOILED:
        count = 3 if kind in ("funding", "book", "liquidation") else 8
        symbol = SYMBOLS[venue]
        rig.fault(fault="unreadable", venue=venue, symbol=symbol, kind=kind, count=count)
    rig.until(lambda: all(each["unreadable_due"] == 0 for each in rig.hubs()), "all of them sent")
    verdict = rig.finish()
    assert_equation(verdict)
    sent = int(read_ledger(rig.ledger_dir).unreadable["rows"].sum())
    declared = {row[:2]: row[2] for row in rig.query(UNREADABLE_ROWS)}
    assert sum(declared.values()) == sent, "each is declared once by each, and nothing else"
    assert declared["kraken_futures", "Ticker"] == 3
    assert declared["kraken_futures", "Liquidations"] == 3


@pytest.mark.fault("S01")
def test_every_kind_goes_on_exactly_where_a_killed_shard_ended(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    rig.until(lambda: rig.query("SELECT count(*) FROM liquidation")[0][0] > 5, "liquidations")
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())
