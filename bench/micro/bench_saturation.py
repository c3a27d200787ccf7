"""What does a row cost in the hot steps while there is more than enough of everything? These have
the budgets of the whole: of a shard's decoder, and of the writer without its servers.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.decoding import Lane
from bench.frames import Market, binance_book, binance_trades
from bench.micro.rig import STREAMS, Rig, Taking, trades
from engine.data.kinds import TRADE
from engine.data.layout import open_layout
from engine.data.names import StreamKind
from engine.writer.every_row import EveryRow
from engine.writer.rows.copy import CopyEncoder, StreamLookup
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.screened import is_spotless
from engine.writer.rows.slice import Slice
from engine.writer.sinks.sink import Promise

pytestmark = pytest.mark.benchmark(timer=time.thread_time)
ROUNDS: Final = 30
ROWS: Final = 8_192
"""That fit the caches, as what a busy writer takes at once."""
MARKET: Final = Market("binance_linear", "BTCUSDT", binance_trades, binance_book, batch=1)


def decoded(benchmark: BenchmarkFixture, lane: Lane, budget_us: float) -> None:
    """Fresh messages each round."""

    def setup() -> tuple[tuple[list[bytes]], dict[str, Any]]:
        return (lane.supply(),), {}

    benchmark.extra_info.update(items=lane.row_count, budget_us=budget_us)
    benchmark.pedantic(lane.take, setup=setup, rounds=ROUNDS, warmup_rounds=3)
    assert lane.feed.row_count >= ROUNDS * lane.row_count
    assert not lane.feed.gap_count


def test_trade_into_the_ring(benchmark: BenchmarkFixture) -> None:
    decoded(benchmark, Lane(MARKET, StreamKind.TRADES, 1), 0.8)


def test_level_of_400_into_the_ring(benchmark: BenchmarkFixture) -> None:
    decoded(benchmark, Lane(MARKET, StreamKind.L2_BOOK, 400), 0.15)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A state directory of its own."""
    rig = Rig(open_layout(tmp_path / "state", tmp_path / "shm"), capacity=1 << 15)
    yield rig
    rig.close()


def test_reserve_and_publish(benchmark: BenchmarkFixture, rig: Rig) -> None:
    producer = rig.producer

    def publish() -> None:
        for _ in range(1000):
            producer.reserve()
            producer.publish()

    def setup() -> None:
        rig.pump()
        rig.let_go()

    benchmark.extra_info.update(items=1000)
    benchmark.pedantic(publish, setup=setup, rounds=ROUNDS, warmup_rounds=3)


def test_writer_from_ring_to_copy(benchmark: BenchmarkFixture, rig: Rig) -> None:
    """Pumped into the journal, chosen for the database, screened, laid out for COPY, accounted."""
    rows, encoder, lookup = trades(ROWS), CopyEncoder(TRADE, ROWS), StreamLookup()
    for slot in range(STREAMS):
        lookup.set(slot, slot + 1, 2, 3)
    knobs = KnobTable(rig.settings)
    consumer = EveryRow(rig.sources, Taking(Promise.EVERY_ROW), knobs)
    rig.claim(consumer)

    def flush() -> None:
        rig.pump()
        parts = consumer._parts()
        assert is_spotless(parts, lookup)
        for part in parts:
            assert isinstance(part, Slice)
            encoder.encode(part.records, lookup)
        rig.taken(consumer, parts)

    def setup() -> None:
        rig.renew(rows)

    benchmark.extra_info.update(items=ROWS, budget_us=0.2)
    benchmark.pedantic(flush, setup=setup, rounds=ROUNDS, warmup_rounds=3)
    assert consumer.rows[TRADE.name] == (ROUNDS + 3) * ROWS
