"""How long does it take to turn records into packed Redis commands? No server is involved."""

from collections.abc import Callable
from typing import Any

import hiredis
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.data.flags import Flag, Side
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, TRADE
from engine.writer.rows.events import by_stream, encode

STREAM_COUNT = 100
LEVELS = 20

Events = Callable[[RecordArray], list[Any]]


def trades(count: int) -> RecordArray:
    """Trades on 100 streams, in random order."""
    random = np.random.default_rng(1)
    rows = np.zeros(count, TRADE.dtype)
    rows["stream"] = random.integers(0, STREAM_COUNT, count)
    rows["side"] = Side.BUY
    rows["ts_event"] = 1_780_000_000_000_000_000 + np.arange(count) * 13_007
    rows["ts_recv"] = rows["ts_event"] + 1_000_000
    rows["trade_id"] = np.arange(count)
    rows["price"] = random.integers(8_000_000, 8_200_000, count) / 100
    rows["qty"] = random.integers(1, 10**6, count) / 1000
    return rows


def books(count: int) -> RecordArray:
    """Events of 20 levels on 100 streams in turn."""
    numbers = np.arange(count)
    places = numbers % LEVELS
    rows = np.zeros(count, BOOK.dtype)
    rows["stream"] = numbers // LEVELS % STREAM_COUNT
    rows["side"] = np.where(places < LEVELS // 2, Side.BID, Side.ASK)
    rows["flags"] = np.where(places == 0, Flag.FIRST_IN_EVENT, 0) | np.where(
        places == LEVELS - 1, Flag.LAST_IN_EVENT, 0
    )
    rows["price"] = (8_100_000 + places) / 100
    rows["qty"] = places / 1000
    return rows


def packed(rows: RecordArray, events: Events) -> int:
    """Bytes of the XADDs for `rows`."""
    size = 0
    for slot, group in by_stream(rows):
        command: Any = ("XADD", f"fts:{slot}", "*", "events", encode(events(group)))
        size += len(hiredis.pack_command(command))
    return size


@pytest.mark.parametrize("count", [1_000, 10_000, 50_000])
def test_pack_trades(benchmark: BenchmarkFixture, count: int) -> None:
    benchmark.extra_info.update(items=count, budget_us=1.0)
    assert benchmark(packed, trades(count), TRADE.events)


def test_pack_book_events_of_20_levels(benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info.update(items=2_500 * LEVELS, budget_us=1.0)
    assert benchmark(packed, books(2_500 * LEVELS), BOOK.events)
