"""Bybit through cuts, holes, nonsense and a killed shard: what its kinds miss is declared.

Its books begin with a pushed snapshot and are asked for anew where they broke, its tickers say what
has changed, its trades have ids that no hole shows in.
"""

from collections.abc import Callable
from uuid import UUID

import pytest

from shards.simulator.core.ledger import read_ledger
from shards.simulator.venues.bybit.trades import uuid_text
from tests.flow.rig import SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
LINEAR, INVERSE, SPOT = VENUES = ("bybit_linear", "bybit_inverse", "bybit_spot")
SYMBOLS = {LINEAR: "BTCUSDT", INVERSE: "BTCUSD", SPOT: "BTCUSDT"}
OFTEN = "\n".join(
    f"[venues.{venue}.poll_interval_s]\nFundingOpenInterest = 1" for venue in (LINEAR, INVERSE)
)
SOON = "stale_after_s = 8"
"""A ticker of which a change could not be read is silent until it is subscribed anew."""


def start(make_rig: MakeRig) -> Rig:
    rig = make_rig(
        all_kinds=True, settings=OFTEN, venues=",".join(VENUES), venue_settings=SOON,
        simulator=("--liquidations-per-minute", "240"), rate="1000", symbols=2,
    )  # fmt: skip
    rig.start()
    return rig


def lost_sockets(rig: Rig, venue: str) -> int:
    """How many of a venue's sockets have ended."""
    found = rig.query(
        "SELECT count(DISTINCT connection) FROM coverage_intervals"
        f" WHERE venue = '{venue}' AND transport = 'Ws' AND how_ended = 'reconnect'"
    )
    return int(found[0][0])


def reasons(rig: Rig, kind: str) -> set[str]:
    """Of the gaps of a kind of stream."""
    found = rig.query(f"SELECT DISTINCT reason FROM gaps WHERE kind = '{kind}'")
    return {reason for (reason,) in found}


@pytest.mark.fault("X01")
def test_what_is_missed_while_cut_off_is_declared(make_rig: MakeRig) -> None:
    """A book and a ticker whose snapshot continues what is stored have missed nothing."""
    rig = start(make_rig)
    for fault in ("disconnect", "close"):
        for venue in VENUES:
            before = lost_sockets(rig, venue)
            rig.fault(fault=fault, venue=venue)
            rig.until(lambda v=venue, n=before: lost_sockets(rig, v) > n, "the lost socket")  # type: ignore[misc]
        rig.until_every_stream_delivers()
    assert_equation(rig.finish())
    for kind in ("Trades", "Ticker", "Liquidations"):
        assert "reconnect" in reasons(rig, kind), kind


@pytest.mark.fault("X14")
def test_a_hole_in_a_book_is_found_by_its_ids_and_the_book_begins_anew(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for venue in VENUES:
        rig.fault(fault="gap", venue=venue, symbol=SYMBOLS[venue], kind="book", count=20)
        rig.fault(fault="duplicate", venue=venue, symbol=SYMBOLS[venue], count=5)
        rig.fault(fault="malformed", venue=venue)
    holes = "SELECT count(*) FROM gaps WHERE kind = 'L2Book' AND reason = 'resync'"
    rig.until(lambda: rig.query(holes) == [(len(VENUES),)], "the holes")
    whole = """
        SELECT count(*) FROM (
            SELECT stream_id FROM book_levels WHERE is_snapshot
            GROUP BY 1 HAVING count(DISTINCT seq) > 1
        ) AS renewed
    """
    rig.until(lambda: rig.query(whole) == [(len(VENUES),)], "snapshots after the holes")
    assert_equation(rig.finish())


@pytest.mark.fault("N03")
def test_what_cannot_be_read_is_declared_and_its_neighbours_are_stored(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    for venue in VENUES:
        kinds = ["trade", "book", "quote"]
        kinds += ["funding", "liquidation"] if venue != SPOT else []
        for kind in kinds:
            few = kind in ("funding", "book", "liquidation")
            rig.fault(
                fault="unreadable", venue=venue, symbol=SYMBOLS[venue], kind=kind,
                count=2 if few else 8,
            )  # fmt: skip
    for venue in (LINEAR, INVERSE):
        rig.fault(fault="unreadable", venue=venue, symbol=SYMBOLS[venue], kind="funding", rest=True)
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
    rig.until(lambda: rig.query("SELECT count(*) FROM liquidation")[0][0] > 5, "liquidations")
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    assert_equation(rig.finish())
    upper, lower = map(set, zip(*rig.query("SELECT trade_id_hi, trade_id FROM trade"), strict=True))
    contracts = {each for each in lower if each < 0}
    assert len(contracts) > 100
    assert upper == {0} | {_upper(each) for each in contracts}


def _upper(lower: int) -> int:
    """The half of an id that the ledger does not have, as the database holds it."""
    whole = UUID(uuid_text(lower)).int >> 64
    return whole - (1 << 64) if whole >> 63 else whole
