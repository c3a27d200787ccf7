"""What does a trade cost from a socket to a committed row, beside what most people write?

One process each, fed by one sender on schedule; the figure is CPU time, the collector's and that of
the database's process together.
"""

from typing import Final

import msgspec
import psycopg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers.collectors import COLLECTORS
from bench.peers.conftest import Figure
from bench.peers.frames import said_by
from bench.peers.meters import Took
from bench.peers.others import installed
from bench.peers.processes import received

COUNT: Final = 20_000
RATE: Final = 10_000.0
ROUNDS: Final = 2


def stored(url: str) -> tuple[int, ...]:
    """Rows, and sums of prices in cents, sizes in thousandths and ids."""
    with psycopg.connect(url) as connection:
        query = b"SELECT count(*), sum(price), sum(qty), sum(trade_id) FROM trade"
        row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(map(int, row))


@pytest.mark.parametrize("name", COLLECTORS)
@pytest.mark.benchmark(group="from a socket to a committed row")
def test_collector(benchmark: BenchmarkFixture, figure: Figure, server: str, name: str) -> None:
    if name != "ours":
        installed("websockets")
    decode, took = msgspec.json.Decoder(Took).decode, []
    said = [said_by(number) for number in range(1, COUNT + 1)]
    expected = (
        COUNT,
        sum(int(each.price.scaleb(2)) for each in said),
        sum(int(each.qty.scaleb(3)) for each in said),
        sum(each.id for each in said),
    )
    for _ in range(ROUNDS):
        took.append(decode(received("collectors", [name, server], COUNT, RATE)))
        assert stored(server) == expected
    figure([each.cpu_s for each in took])
    best = min(took)
    told = best.told(COUNT, "row") | {"rows_per_cpu_s": round(COUNT / best.cpu_s)}
    benchmark.extra_info.update(items=COUNT, **told)
