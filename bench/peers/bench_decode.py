"""What does it cost to read a venue's message, beside cryptofeed, ccxt pro and parsers of JSON?

The same messages in the same run, none of which comes over a network; CPU time of this thread.
"""

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.frames import binance_book
from bench.peers.decoders import DECODERS, Decoder, Message, Ours, as_read
from bench.peers.frames import SYMBOL, levels_of, said_by, trade
from engine.data.names import StreamKind

ROUNDS: Final = 40
TRADES: Final = 500
"""Of a round."""
BOOKS: Final = {20: 100, 100: 40}
"""Messages of a round, by their levels."""

pytestmark = pytest.mark.benchmark(timer=time.thread_time)


def turns(benchmark: BenchmarkFixture, decoder: Decoder, supply: Iterator[list[Message]]) -> None:
    """Fresh messages each time."""

    def setup() -> tuple[tuple[list[Message]], dict[str, Any]]:
        if isinstance(decoder, Ours):
            decoder.make_room()
        return (next(supply),), {}

    benchmark.pedantic(decoder.take, setup=setup, rounds=ROUNDS, warmup_rounds=1)


@pytest.mark.parametrize("name", DECODERS)
def test_trades(benchmark: BenchmarkFixture, name: str) -> None:
    decoder = DECODERS[name](StreamKind.TRADES, 1)
    begins = iter(range(1, 1 << 30, TRADES))

    def supply() -> Iterator[list[Message]]:
        for first in begins:
            numbers = range(first, first + TRADES)
            yield [as_read(name, trade(n), f"{SYMBOL.lower()}@aggTrade") for n in numbers]

    benchmark.group = "decode a trade"
    benchmark.extra_info["items"] = TRADES
    turns(benchmark, decoder, supply())
    last = next(begins) - TRADES
    assert decoder.trades() == [said_by(number) for number in range(last, last + TRADES)]


@pytest.mark.parametrize("size", BOOKS)
@pytest.mark.parametrize("name", DECODERS)
def test_book(benchmark: BenchmarkFixture, name: str, size: int) -> None:
    decoder = DECODERS[name](StreamKind.L2_BOOK, size)
    count = BOOKS[size]
    begins = iter(range(2, 1 << 30, count))

    def supply() -> Iterator[list[Message]]:
        for first in begins:
            frames = (binance_book(number, size) for number in range(first, first + count))
            yield [as_read(name, frame, f"{SYMBOL.lower()}@depth@100ms") for frame in frames]

    benchmark.group = f"decode a level of {size}"
    benchmark.extra_info["items"] = count * size
    turns(benchmark, decoder, supply())
    assert decoder.levels() == levels_of(json.loads(binance_book(next(begins) - 1, size)))
    assert decoder.level_count() in (count * size, 0)
