"""Facts of instruments that change while their streams run."""

from pathlib import Path

import pytest

from engine.base.clock import monotonic_s
from engine.data.instrument import Instrument
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.listings import ListingLoaded
from engine.messages.streams import InstrumentsResolved
from engine.streams.instrument_facts import InstrumentFacts
from tests.engine.full_disk import full_at

TRADES, BOOK, TICKER = (
    StreamKey("acme", "BTC", kind)
    for kind in (StreamKind.TRADES, StreamKind.L2_BOOK, StreamKind.TICKER)
)
OTHER = StreamKey("acme", "ETH", StreamKind.TRADES)


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
        self.stored: list[tuple[int, list[int]]] = []
        self.facts = InstrumentFacts(self.slots, lambda *stored: self.stored.append(stored))

    def load(self, *instruments: Instrument) -> None:
        self.facts.listed(ListingLoaded("acme", list(instruments), []))

    def resolve(self, facts: Instrument, listed_s: float) -> None:
        self.facts.resolved(7, InstrumentsResolved({3: facts}, listed_s))

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
    assert rig.on_disk() == [change, change, ETH, None], "a stream that begins is its shard's"
    assert rig.stored == []
    written = rig.path.read_bytes()
    rig.load(change, ETH)
    rig.load(ETH)
    assert rig.path.read_bytes() == written, "nothing new"


def test_what_a_shard_reads_later_counts_for_the_streams_that_run(rig: Rig) -> None:
    rig.load(OLD, ETH)
    rig.resolve(NEW, monotonic_s() + 1)
    assert rig.on_disk() == [NEW, NEW, ETH, NEW]
    assert rig.stored == [(7, [3])]


@pytest.mark.parametrize("told_by_us", [True, False])
def test_what_a_shard_read_earlier_undoes_nothing(rig: Rig, told_by_us: bool) -> None:
    listed_s = 0.0 if told_by_us else monotonic_s()
    rig.load(NEW, ETH)
    rig.resolve(OLD, listed_s)
    assert rig.on_disk() == [NEW, NEW, ETH, NEW]
    assert rig.stored == [(7, [3])]


def test_decimals_never_become_fewer(rig: Rig) -> None:
    rig.load(NEW)
    rig.load(btc("0.1", 1))
    assert rig.on_disk()[:2] == [btc("0.1", 4)] * 2


def test_a_full_disk_delays_a_change_and_keeps_it(rig: Rig) -> None:
    with full_at(rig.path.stat().st_size + 10):
        rig.load(NEW)
        rig.resolve(NEW, 0.0)
        assert "the stream table cannot be written" in rig.facts.problem
        assert (rig.on_disk(), rig.stored) == ([OLD, OLD, ETH, None], [])
    rig.facts.store()
    assert (rig.on_disk(), rig.stored) == ([NEW, NEW, ETH, NEW], [(7, [3])])
    assert rig.facts.problem == ""
