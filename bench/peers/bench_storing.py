"""What does a row cost until it is in PostgreSQL, beside the usual ways to bring it there?

The product's own table, partitioned and indexed, on a private server; every way stores the same
rows, in one transaction, and the sums of all columns must be right afterwards. The figure is CPU
time, ours and that of the server's process together.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers.conftest import Figure
from bench.peers.meters import Took, metered
from bench.peers.rows import Known, agree, as_tuples, expected_sums, trades
from bench.peers.ways import WAYS, Stock

ROWS: Final = 20_000
ROUNDS: Final = 3


async def measure(url: str, name: str, directory: Path) -> list[Took]:
    """Some rounds of a way; the rows of the last are looked at."""
    known, records, took = Known(url, directory), trades(ROWS), []
    lookup = await known.open(records)
    way = WAYS[name]()
    try:
        rows = as_tuples(records, lookup)
        stock = Stock.of(rows, records, lookup, directory / "rows.copy")
        await way.open(known)
        for _ in range(ROUNDS):
            await asyncio.to_thread(known.clear)
            took.append(await metered(lambda: way.store(stock), way.pid))
        assert agree(known.sums(), expected_sums(rows))
        known.clear()
    finally:
        await way.close()
        await known.sink.close()
    return took


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.benchmark(group="store a trade in PostgreSQL")
def test_storing(benchmark: BenchmarkFixture, figure: Figure, server: str, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as directory:
        Path(directory).chmod(0o711)  # the server reads a file there
        took = uvloop.run(measure(server, name, Path(directory)))
    figure([each.cpu_s for each in took])
    benchmark.extra_info.update(items=ROWS, **min(took).told(ROWS, "row"))
