"""A kind is declared once: one that is nowhere in the product goes all the way from its feed."""

from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pytest

from control.proof.ledger_kinds import as_shown
from control.ui.newest import newest_of_each
from engine.data.instrument import Instrument
from engine.data.kinds import KINDS
from engine.data.layout import Layout
from engine.data.names import StreamKey, StreamKind
from engine.data.positions import read_position
from engine.data.slots import Slots
from shards.feeds.context import FeedContext
from shards.feeds.declared.gaps import GapLedger
from tests.engine.writer.bench import Bench, all_delivered, run
from tests.engine.writer.conftest import START_NS, MakeSettings
from tests.shards.doubles import spec_of
from tests.stores import execute, select
from tests.toys.kind import SETTLEMENT, SQL, Settlements

NAME = SETTLEMENT.name


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line in KINDS."""
    monkeypatch.setitem(KINDS, NAME, SETTLEMENT)


@pytest.fixture
def bench(layout: Layout) -> Iterator[Bench]:
    """Rings of the toy and of gaps. The stream goes by the name of a kind that there is: names are
    an enumeration.
    """
    slots = Slots(layout.slots)
    slots.describe(slots.assign(StreamKey("acme", "S", StreamKind.FUNDING)).slot, INSTRUMENT)
    bench = Bench(layout, SETTLEMENT, KINDS["gap"])
    yield bench
    bench.close()


INSTRUMENT = Instrument("acme", "S", 2, 3)


def feed_on(bench: Bench, layout: Layout) -> Settlements:
    """The toy's feed, going on from what was journalled."""
    gaps = GapLedger(bench.rings["gap"])
    spec = spec_of(0, "acme", "S", StreamKind.FUNDING)
    return Settlements.make(
        FeedContext(spec, bench.rings, gaps, layout.positions_dir, lambda _: None)
    )


def test_rows_of_a_toy_kind_are_stored(
    bench: Bench, layout: Layout, database_url: str, make_settings: MakeSettings
) -> None:
    delivery = bench.delivery(make_settings(database_url=database_url))
    run(delivery, all_delivered(delivery))  # makes the tables of the kinds that there are
    execute(database_url, SQL)
    feed = feed_on(bench, layout)
    feed.subscribed()
    for day in range(3):
        feed.on_settlement(START_NS + day, START_NS + 5, 81234.12345678 * day, 1.5, 7 + day)
    bench.publish()
    again = bench.delivery(make_settings(database_url=database_url))
    run(again, all_delivered(again))
    query = "SELECT price, volume, contract FROM settlements ORDER BY contract"
    assert select(database_url, query) == [
        (None, Decimal("1.500"), 7),
        (Decimal("81234.12345678"), Decimal("1.500"), 8),
        (Decimal("162468.24691356"), Decimal("1.500"), 9),
    ]
    last = read_position(layout.positions_dir, NAME, 0)
    assert last is not None
    assert last.ts_event == last.id == START_NS + 2
    next_life = feed_on(bench, layout)
    next_life.subscribed()
    next_life.on_settlement(START_NS + 9, START_NS + 10, 1.0, 1.0, 1)
    assert next_life.gap_count == 1, "nobody listened meanwhile"


def test_what_follows_from_the_declaration_follows_for_a_toy(layout: Layout) -> None:
    assert NAME in [newest.kind.name for newest in newest_of_each(layout)]
    rows = np.zeros(1, SETTLEMENT.dtype)
    rows["ts_event"], rows["ts_recv"], rows["volume"], rows["contract"] = START_NS, 5, 1.5, 7
    said = {"price": None, "volume": 1.5, "contract": 7}
    assert SETTLEMENT.events(rows) == [{"time": START_NS, "recv": 5, **said}]
    ledger = np.zeros(
        1,
        [("ts_event", "<i8"), ("price_mantissa", "<i8"), ("volume_mantissa", "<i8"),
         ("contract", "<i8"), ("price_decimals", "u1"), ("qty_decimals", "u1")],
    )  # fmt: skip
    ledger["volume_mantissa"], ledger["qty_decimals"], ledger["contract"] = 15, 1, 7
    assert as_shown(SETTLEMENT, ledger)[0][1:] == (None, Decimal("1.5"), 7)
