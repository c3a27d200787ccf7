"""The table of a proof: a line a kind, by venue where there are several, and the sums."""

from control.cli.terminal.proof_table import proof_lines, unequal_lines
from control.proof.ledger_check import Unequal
from control.proof.ledger_sources import LedgerSource
from control.proof.verdict import Verdict
from engine.data.kinds import KINDS
from engine.data.names import Transport
from shards.venues import VENUES


def test_one_venue_has_a_line_a_kind_in_order_and_the_sums() -> None:
    verdicts = {
        "trade": Verdict(sent=1500, stored=1490, declared_missing=10),
        "whole": Verdict(sent=20, stored=20),
        "delta": Verdict(sent=80, stored=80),
        "liquidation": Verdict(),
        "unreadable": Verdict(sent=2, declared_missing=2),
    }
    assert proof_lines({"okx": verdicts}, {"okx": {"trade": 3, "quote": 1}}) == [
        "kind         sent  stored  declared  gaps  equal",
        "book          100     100         0     0    yes",
        "quote           0       0         0     1    yes",
        "trade       1,500   1,490        10     3    yes",
        "unreadable      2       0         2     -    yes",
        "all         1,602   1,590        12     4    yes",
    ]


def test_several_venues_have_their_sums_above_their_kinds() -> None:
    fine, lost = Verdict(sent=5, stored=5), Verdict(sent=5, stored=4, missing=1)
    verdicts = {
        "okx": {"trade": lost, "quote": fine},
        "deribit": {"trade": fine},
        "coinbase": {"trade": Verdict()},
    }
    assert proof_lines(verdicts, {}) == [
        "venue, kind  sent  stored  declared  gaps  equal",
        "deribit         5       5         0     0    yes",
        "  trade         5       5         0     0    yes",
        "okx            10       9         0     0     NO",
        "  quote         5       5         0     0    yes",
        "  trade         5       4         0     0     NO",
        "all            15      14         0     0     NO",
    ]


def test_what_is_doubled_or_altered_is_not_equal_though_the_numbers_are() -> None:
    for wrong in (Verdict(5, 5, duplicates=1), Verdict(5, 5, altered=1)):
        assert proof_lines({"okx": {"trade": wrong}}, {})[1].endswith(" NO")


def test_every_venue_and_kind_fits_a_terminal_after_days_of_rows() -> None:
    many = Verdict(sent=987_654_321, stored=987_654_321)
    lines = proof_lines(
        {venue: dict.fromkeys(KINDS, many) for venue in VENUES},
        {venue: {"trade": 1_234} for venue in VENUES},
    )
    assert len(lines) == 2 + len(VENUES) * (1 + len(KINDS))
    assert max(map(len, lines)) <= 80


def test_nothing_sent_has_no_table() -> None:
    assert proof_lines({}, {}) == proof_lines({"okx": {"trade": Verdict()}}, {}) == []


def test_streams_that_are_not_equal_are_named_the_first_ten_of_them() -> None:
    unequal = [
        Unequal(LedgerSource("okx", f"S{n}", Transport.WS), "delta", Verdict(2000, 1999, missing=1))
        for n in range(12)
    ]
    lines = unequal_lines(unequal)
    assert lines[0] == "not equal: okx S0 Ws delta: sent 2,000, stored 1,999, missing 1"
    assert lines[10:] == ["and 2 more; --json names all"]
    assert len(unequal_lines(unequal[:10])) == 10
    assert unequal_lines([]) == []
