"""What does a row cost beside many streams? Each step that looks at the stream of a row, with ten
streams and with ten thousand.
"""

from typing import Any

import hiredis
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.data.flags import Side
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.writer.rows.copy import CopyEncoder, StreamLookup
from engine.writer.rows.events import by_stream, encode
from engine.writer.rows.screen import is_clean

ROWS = 20_000
COUNTS = [10, 100, 1_000, 10_000]


def trades(streams: int) -> RecordArray:
    """Trades of so many streams, in random order."""
    random = np.random.default_rng(1)
    rows = np.zeros(ROWS, TRADE.dtype)
    rows["stream"] = random.integers(0, streams, ROWS)
    rows["side"] = Side.BUY
    rows["ts_event"] = 1_780_000_000_000_000_000 + np.arange(ROWS) * 13_007
    rows["ts_recv"] = rows["ts_event"] + 1_000_000
    rows["trade_id"] = np.arange(ROWS)
    rows["price"] = random.integers(8_000_000, 8_200_000, ROWS) / 100
    rows["qty"] = random.integers(1, 10**6, ROWS) / 1000
    return rows


def lookup(streams: int) -> StreamLookup:
    """All of them, with decimals of their own."""
    found = StreamLookup()
    for slot in range(streams):
        found.set(slot, slot + 1, 2 + slot % 5, 3 + slot % 3)
    return found


@pytest.mark.parametrize("streams", COUNTS)
def test_copy(benchmark: BenchmarkFixture, streams: int) -> None:
    encoder, rows, known = CopyEncoder(TRADE, ROWS), trades(streams), lookup(streams)

    def store() -> int:
        assert is_clean(rows, TRADE, known)
        return len(encoder.encode(rows, known))

    benchmark.extra_info.update(items=ROWS, budget_us=0.20)
    assert benchmark(store) == ROWS * encoder.row_bytes


@pytest.mark.parametrize("streams", COUNTS)
def test_publish(benchmark: BenchmarkFixture, streams: int) -> None:
    """An entry a stream: where each has two rows, the entry is what costs."""
    rows = trades(streams)

    def pack() -> int:
        size = 0
        for slot, part in by_stream(rows):
            command: Any = ("XADD", f"fts:{slot}", "*", "events", encode(TRADE.events(part)))
            size += len(hiredis.pack_command(command))
        return size

    benchmark.extra_info.update(items=ROWS)
    assert benchmark(pack) > ROWS
