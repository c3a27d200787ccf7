"""How long does it take to turn records into COPY rows, and to look at them first?"""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.data.kind import Kind, RecordArray
from engine.data.kinds import BOOK, KINDS, TRADE
from engine.writer.rows.copy import CopyEncoder, StreamLookup
from engine.writer.rows.screen import is_clean

STREAM_COUNT = 500


def records(spec: Kind, count: int) -> RecordArray:
    """Exact prices and sizes on 500 streams, in random order."""
    random = np.random.default_rng(1)
    rows = np.zeros(count, spec.dtype)
    rows["stream"] = random.integers(0, STREAM_COUNT, count)
    rows["side"] = ord("B")
    rows["ts_event"] = 1_780_000_000_000_000_000 + np.arange(count) * 13_007
    rows["ts_recv"] = rows["ts_event"] + 1_000_000
    rows[spec.id_field] = np.arange(count)
    rows["price"] = random.integers(8_000_000, 8_200_000, count) / 100
    rows["qty"] = random.integers(1, 10**6, count) / 1000
    return rows


def lookup(*, mixed: bool) -> StreamLookup:
    """All streams with 2 and 3 decimals, or with decimals of their own."""
    found = StreamLookup()
    for slot in range(STREAM_COUNT):
        found.set(slot, slot + 1, 2 + slot % 5 * mixed, 3 + slot % 3 * mixed)
    return found


@pytest.mark.parametrize("count", [10_000, 100_000])
@pytest.mark.parametrize("mixed", [False, True], ids=["same-decimals", "mixed-decimals"])
@pytest.mark.parametrize("spec", [TRADE, BOOK], ids=["trade", "book"])
def test_encode(benchmark: BenchmarkFixture, spec: Kind, mixed: bool, count: int) -> None:
    encoder = CopyEncoder(spec, count)
    benchmark.extra_info.update(items=count, budget_us=0.05)
    payload = benchmark(encoder.encode, records(spec, count), lookup(mixed=mixed))
    assert len(payload) == count * encoder.row_bytes


@pytest.mark.parametrize("kind", ["trade", "book"])
def test_screen(benchmark: BenchmarkFixture, kind: str) -> None:
    spec = next(s for s in KINDS.values() if s.name == kind)
    benchmark.extra_info.update(items=100_000, budget_us=0.02)
    assert benchmark(is_clean, records(spec, 100_000), spec, lookup(mixed=True))
