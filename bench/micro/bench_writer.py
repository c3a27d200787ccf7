"""What one row costs in the writer before it meets a server: ring poll, journal append."""

import itertools
from pathlib import Path

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from engine.data.kinds import TRADE
from engine.data.positions import Positions
from engine.data.ring import RingProducer, RingReader, format_ring, ring_bytes
from engine.writer.sources.journal import Journal

ROWS = 50_000


def test_ring_poll_and_release_of_50000(benchmark: BenchmarkFixture) -> None:
    capacity = 1 << 16
    memory = memoryview(bytearray(ring_bytes(TRADE, capacity)))
    format_ring(memory, TRADE, capacity, 1)
    producer, reader = RingProducer(memory, TRADE), RingReader(memory, TRADE)

    def poll() -> None:
        seq = producer.reserve(ROWS)
        producer.publish()
        while seq < reader.head:
            seq += len(reader.poll(seq))
        reader.release(seq)

    benchmark.extra_info.update(items=ROWS, budget_us=0.01)
    benchmark(poll)


def test_journal_append_of_50000(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", TRADE, 1, 64 << 20)
    rows = np.zeros(ROWS, TRADE.dtype)
    starts = itertools.count(0, ROWS)

    def append() -> None:
        seq = next(starts)
        journal.append(seq, rows)
        journal.trim(seq)

    benchmark.extra_info.update(items=ROWS, budget_us=0.1)
    benchmark.pedantic(append, rounds=100, warmup_rounds=2)
    journal.close()


def test_positions_of_50000_rows_in_500_streams(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    positions = Positions(tmp_path, TRADE)
    rows = np.zeros(ROWS, TRADE.dtype)
    rows["stream"] = np.random.default_rng(1).integers(0, 500, ROWS)
    benchmark.extra_info.update(items=ROWS, budget_us=0.05)
    benchmark(positions.advance, rows)
    positions.close()
