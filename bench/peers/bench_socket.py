"""What does a message cost from the socket on, beside the library websockets and cryptofeed?

One sender on loopback, on schedule; each receiver is a process of its own, and the figure is its
CPU time, the kernel's part for it included.
"""

from typing import Final

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers.conftest import Figure
from bench.peers.others import installed
from bench.peers.processes import received
from bench.peers.receivers import RECEIVERS, Result

COUNT: Final = 20_000
RATE: Final = 10_000.0
ROUNDS: Final = 2


@pytest.mark.parametrize("name", RECEIVERS)
@pytest.mark.benchmark(group="receive and decode a trade")
def test_socket(benchmark: BenchmarkFixture, figure: Figure, name: str) -> None:
    for module in ("websockets", "orjson", "cryptofeed"):
        if module in name:
            installed(module)
    decode = msgspec.json.Decoder(Result).decode
    results = [decode(received("receivers", [name], COUNT, RATE)) for _ in range(ROUNDS)]
    assert all(each.count == COUNT and each.is_right() for each in results)
    figure([each.cpu_s for each in results])
    benchmark.extra_info.update(
        items=COUNT, messages_per_s=round(COUNT / min(each.wall_s for each in results))
    )
