"""Marks for bars: the minutes of trades, in the transaction that stores them, by whoever does."""

from collections.abc import Callable

import numpy as np
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import FencedError
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, TRADE
from engine.data.layout import Layout, SourceKey
from engine.data.slots import Slots
from engine.writer.rows.screen import minutes
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.quarantine_desk import QuarantineDesk
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.upkeep.bars_rig import catch_up
from tests.engine.upkeep.database_rig import place_in
from tests.engine.writer.bench import Bench, all_delivered
from tests.engine.writer.bench import run as deliver
from tests.engine.writer.conftest import MakeSettings, MakeTrades, claim
from tests.stores import execute, select

RING = "shard-0.trade"
MINUTE_NS = 60_000_000_000
MARKED = "SELECT DISTINCT minute FROM bar_todo ORDER BY 1"
MINUTES = "SELECT DISTINCT date_trunc('minute', time) FROM trade ORDER BY 1"
Store = Callable[..., None]


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings, slots: Slots) -> Store:
    """`store(rows, first_seq, bars=True)`: through a sink of its own."""

    def store(rows: RecordArray, seq: int, *, bars: bool) -> None:
        async def main() -> None:
            sink = PostgresSink(make_settings(database_url=database_url, bars=bars), slots)
            await sink.open({})
            try:
                await claim(sink, RING, 1, 0)
                piece = Slice.whole(SourceKey(RING, 1), TRADE, seq, rows)
                await sink.take(Batch([piece]), durable=True)
            finally:
                await sink.close()

        uvloop.run(main())

    return store


@pytest.fixture
def marks(database_url: str) -> None:
    """For tests of what TimescaleDB does in its own way."""
    if select(database_url, "SELECT bars_by()") != [("marks",)]:
        pytest.skip("continuous aggregates need no marks")


def apart(rows: RecordArray, step_ns: int) -> RecordArray:
    """The same trades, so far from each other, the newest first."""
    rows["ts_event"] += (np.arange(len(rows))[::-1] * step_ns).astype(np.int64)
    return rows


@pytest.mark.usefixtures("marks")
@pytest.mark.parametrize("step_ns", [0, 7_000_000_000, 10_000_000_000_000])
def test_every_minute_of_a_commit_is_marked_and_becomes_bars(
    store: Store, database_url: str, trades: MakeTrades, step_ns: int
) -> None:
    store(apart(trades(40), step_ns), 0, bars=True)
    found = select(database_url, MARKED)
    assert found == select(database_url, MINUTES)
    with place_in(database_url, bars=True, now_ns=2**62) as place:
        catch_up(place)
    assert select(database_url, MARKED) == []
    assert select(database_url, "SELECT sum(trade_count), sum(volume) FROM bar_1m") == select(
        database_url, "SELECT count(*), sum(qty) FROM trade"
    )


def test_a_transaction_that_fails_marks_nothing(
    store: Store, database_url: str, trades: MakeTrades
) -> None:
    with pytest.raises(FencedError):
        store(trades(10), 5, bars=True)
    assert select(database_url, MARKED) == []


def test_off_no_mark_is_left(store: Store, database_url: str, trades: MakeTrades) -> None:
    store(trades(10), 0, bars=False)
    assert select(database_url, MARKED) == []
    assert select(database_url, "SELECT is_marked FROM bar_state") == [(False,)]


@pytest.mark.usefixtures("marks")
def test_switched_off_and_on_again_everything_is_to_be_looked_at_anew(
    store: Store, database_url: str, trades: MakeTrades
) -> None:
    state = "SELECT is_marked, is_listed FROM bar_state"
    store(trades(10), 0, bars=True)
    with place_in(database_url, bars=True, now_ns=2**62) as place:
        catch_up(place)
        assert select(database_url, state) == [(True, True)]
        store(trades(10, first_id=10), 10, bars=False)
        assert select(database_url, state) == [(False, False)]
        store(trades(10, first_id=20), 20, bars=True)
        catch_up(place)
    assert select(database_url, "SELECT sum(trade_count) FROM bar_1s") == [(30,)]


@pytest.mark.usefixtures("marks")
def test_rows_out_of_quarantine_are_marked_too(
    layout: Layout,
    slots: Slots,
    database_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    del slots
    execute(database_url, "ALTER TABLE trade ADD CONSTRAINT no CHECK (trade_id <> 3)")
    bench = Bench(layout, TRADE, BOOK)
    bench.put(trades(10))
    delivery = bench.delivery(make_settings(database_url=database_url, bars=True))
    deliver(delivery, all_delivered(delivery))
    bench.close()
    execute(database_url, "DELETE FROM bar_todo")
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")

    async def retry() -> int:
        desk = await QuarantineDesk.open(layout, database_url)
        try:
            return len((await desk.retry([kept.row for kept in await desk.rows()])).stored)
        finally:
            await desk.close()

    assert uvloop.run(retry()) == 1
    assert select(database_url, MARKED) == select(
        database_url, "SELECT date_trunc('minute', time) FROM trade WHERE trade_id = 3"
    )


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_minutes_are_those_of_all_rows(times: list[int]) -> None:
    rows = np.zeros(len(times), TRADE.dtype)
    rows["ts_event"] = times
    assert minutes(rows) == {time // MINUTE_NS for time in times}
