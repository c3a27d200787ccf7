"""Facts of instruments: known from before, listed, changed while their streams run."""

from pathlib import Path

import pytest

from engine.data.instrument import Instrument
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.listings import ListingLoaded
from engine.messages.streams import StreamSpec
from engine.streams.instrument_facts import InstrumentFacts
from tests.engine.full_disk import full_at

TRADES, BOOK, TICKER = (
    StreamKey("acme", "BTC", kind)
    for kind in (StreamKind.TRADES, StreamKind.L2_BOOK, StreamKind.TICKER)
)
OTHER = StreamKey("acme", "ETH", StreamKind.TRADES)
TICKER_SPEC, OTHER_SPEC = StreamSpec(3, TICKER), StreamSpec(2, OTHER)


def btc(tick_size: str, decimals: int, status: str = "on") -> Instrument:
    return Instrument("acme", "BTC", decimals, 3, tick_size=tick_size, status=status)


OLD, NEW = btc("0.01", 2), btc("0.0001", 4)
ETH = Instrument("acme", "ETH", 1, 1)


class Rig:
    """Slots 0 and 1 are trades and book of BTC, slot 2 trades of ETH; slot 3 has just begun."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slots = Slots(path)
        self.slots.assign_all([TRADES, BOOK, OTHER, TICKER])
        self.slots.describe_all({0: OLD, 1: OLD, 2: ETH})
        self.facts = InstrumentFacts(self.slots)

    def load(self, *instruments: Instrument, unreadable: dict[str, str] | None = None) -> None:
        self.facts.listed(ListingLoaded("acme", list(instruments), [], unreadable or {}))
        self.facts.store()

    def on_disk(self) -> list[Instrument | None]:
        return [entry.instrument for entry in Slots(self.path)]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "streams.jsonl")


@pytest.mark.parametrize(
    "change", [NEW, btc("0.01", 2, status="BREAK"), Instrument("acme", "BTC", 2, 3, lot_size="5")]
)
def test_a_changed_listing_describes_every_stream_of_the_symbol_anew(
    rig: Rig, change: Instrument
) -> None:
    rig.load(change, ETH)
    assert rig.on_disk() == [change, change, ETH, None], "nobody wants the fourth"
    written = rig.path.read_bytes()
    rig.load(change, ETH)
    rig.load(ETH)
    assert rig.path.read_bytes() == written, "nothing new"


@pytest.mark.fault("H02")
def test_a_stream_of_a_known_instrument_is_described_without_a_listing(rig: Rig) -> None:
    assert not rig.facts.may_begin(TICKER_SPEC), "its slot is not on disk"
    rig.facts.store([TICKER_SPEC])
    assert rig.on_disk() == [OLD, OLD, ETH, OLD]
    assert rig.facts.may_begin(TICKER_SPEC)


def test_a_new_stream_gets_what_is_listed_now(rig: Rig) -> None:
    rig.load(NEW, ETH)
    rig.facts.store([TICKER_SPEC])
    assert rig.on_disk() == [NEW, NEW, ETH, NEW]


def test_what_is_listed_no_more_may_not_begin(rig: Rig) -> None:
    assert rig.facts.may_begin(OTHER_SPEC)
    rig.load(OLD)
    assert not rig.facts.may_begin(OTHER_SPEC)
    assert rig.facts.is_unknown(OTHER)
    rig.load(OLD, ETH)
    assert rig.facts.may_begin(OTHER_SPEC)


@pytest.mark.fault("N04")
def test_an_odd_row_costs_only_symbols_of_which_nothing_is_known(rig: Rig) -> None:
    """What was known of the others is as true as it was; a stop would lose rows for a typo."""
    rig.load(OLD, unreadable={"ETH": "status: required", "SOL": "status: required"})
    assert rig.facts.may_begin(OTHER_SPEC)
    sol = StreamKey("acme", "SOL", StreamKind.TRADES)
    assert rig.facts.is_unknown(sol)
    assert rig.facts.why_unknown(sol) == (
        "acme lists 'SOL', but its row cannot be read: status: required"
    )


def test_an_unknown_symbol_is_told_with_what_may_have_been_meant(rig: Rig) -> None:
    near, far = (StreamKey("acme", symbol, StreamKind.TRADES) for symbol in ("BTCC", "@107"))
    rig.facts.listed(ListingLoaded("acme", [OLD, ETH], []))
    assert rig.facts.why_unknown(near) == "unknown symbol: acme lists no 'BTCC'; did you mean BTC?"
    rig.facts.listed(ListingLoaded("acme", [OLD, ETH], [], nameless=2))
    assert rig.facts.why_unknown(far) == (
        "unknown symbol: acme lists no '@107' (2 rows of its listing have no name that can be read)"
    )


def test_what_waits_says_who_lets_it_wait(rig: Rig) -> None:
    sol = StreamKey("acme", "SOL", StreamKind.TRADES)
    assert rig.facts.why_waiting(sol) == "instruments: control is starting"
    rig.facts.heard({"acme": "HTTP 503"})
    assert rig.facts.why_waiting(sol) == "instruments: HTTP 503"
    rig.facts.control_ended("killed by SIGKILL")
    assert rig.facts.why_waiting(sol) == ("instruments: control killed by SIGKILL; it starts again")


def test_a_venue_that_nobody_knows_is_left_to_the_shard(rig: Rig) -> None:
    stranger = StreamSpec(9, StreamKey("atlantis", "GOLD", StreamKind.TRADES))
    assert not rig.facts.may_begin(stranger), "until control has said which venues there are"
    rig.facts.heard({"acme": ""})
    assert rig.facts.may_begin(stranger)


def test_decimals_never_become_fewer(rig: Rig) -> None:
    rig.load(NEW)
    rig.load(btc("0.1", 1))
    assert rig.on_disk()[:2] == [btc("0.1", 4)] * 2


def test_a_full_disk_delays_a_change_and_keeps_it(rig: Rig) -> None:
    with full_at(rig.path.stat().st_size + 10):
        rig.load(NEW, ETH)
        rig.facts.store([TICKER_SPEC])
        assert "the stream table cannot be written" in rig.facts.problem
        assert rig.facts.why_waiting(TICKER) == rig.facts.problem
        assert rig.facts.may_begin(OTHER_SPEC), "what is described needs no room"
        assert not rig.facts.may_begin(TICKER_SPEC)
        assert rig.on_disk() == [OLD, OLD, ETH, None]
    rig.facts.store([TICKER_SPEC])
    assert rig.on_disk() == [NEW, NEW, ETH, NEW]
    assert rig.facts.problem == ""
