"""Kraken's sockets, replaced on time: no row is missing between one and the next."""

from collections.abc import Callable

import pytest

from control.proof.ledger_check import LedgerCheck
from tests.flow.rig import GAPS_OF_SOCKETS, Rig

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
VENUES = ("kraken_spot", "kraken_futures")


@pytest.mark.fault("X01")
def test_sockets_are_replaced_on_time_without_a_gap(make_rig: MakeRig) -> None:
    rig = make_rig(
        all_kinds=True, venues=",".join(VENUES), symbols=2,
        simulator=("--liquidations-per-minute", "240"),
        venue_settings="connection_lifetime_s = 5",
    )  # fmt: skip
    engine = rig.start()
    for venue in VENUES:
        engine.wait_for_count(f"{venue}: planned reconnect", 2)
    rig.finish()
    assert rig.query(GAPS_OF_SOCKETS) == []
    verdicts = LedgerCheck(rig.ledger_dir, rig.database_url).verdicts
    for kind, verdict in verdicts.items():
        if kind != "whole":  # with a book that the next socket begins with nothing new is said
            assert verdict.sent == verdict.stored, kind
            assert verdict.duplicates == verdict.altered == 0, kind
