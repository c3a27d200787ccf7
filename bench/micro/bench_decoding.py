"""What one message costs in a shard (`bench.decoding` shows the same as a table beside Binance)."""

from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.decoding import Lane, lanes_of
from bench.frames import Market, binance_book, binance_trades, markets
from engine.data.names import StreamKind

ROUNDS: Final = 12
BUDGETS_US: Final = {
    (StreamKind.TRADES, 1): 2.0,
    (StreamKind.TRADES, 10): 1.2,
    (StreamKind.L2_BOOK, 1): 4.0,
    (StreamKind.L2_BOOK, 6): 1.04,
    (StreamKind.L2_BOOK, 20): 1.0,
    (StreamKind.L2_BOOK, 100): 0.4,
}
"""Of a row, by the rows of its message."""


def run(benchmark: BenchmarkFixture, lane: Lane, budget_us: float) -> None:
    """Each round takes fresh messages, as one read of the socket would deliver them."""

    def setup() -> tuple[tuple[list[bytes]], dict[str, Any]]:
        return (lane.supply(),), {}

    benchmark.extra_info.update(items=lane.row_count, budget_us=budget_us)
    benchmark.pedantic(lane.take, setup=setup, rounds=ROUNDS)
    assert lane.feed.row_count >= ROUNDS * lane.row_count
    assert not lane.feed.gap_count


LANES: Final = [lane for market in markets() for lane in lanes_of(market)]


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_decode(benchmark: BenchmarkFixture, lane: Lane) -> None:
    run(benchmark, lane, BUDGETS_US[lane.kind, lane.size])


@pytest.mark.parametrize("venue", ["binance_linear", "binance_spot"])
def test_quote(benchmark: BenchmarkFixture, venue: str) -> None:
    head = b'"e":"bookTicker",' if venue == "binance_linear" else b""
    tail = b',"T":1795000000128,"E":1795000000129,"st":1' if head else b""

    def quote(number: int, _: int) -> bytes:
        return (
            b'{%b"u":%d,"s":"BTCUSDT","b":"81234.40000000","B":"1.20000000","a":"81234.60000000",'
            b'"A":"0.80000000"%b}' % (head, number, tail)
        )

    market = Market(venue, "BTCUSDT", quote, binance_book)
    run(benchmark, Lane(market, StreamKind.TICKER, 1), 1.2)


def test_trade_of_inverse_contracts(benchmark: BenchmarkFixture) -> None:
    market = Market("binance_inverse", "BTCUSDT", binance_trades, binance_book)
    run(benchmark, Lane(market, StreamKind.TRADES, 1), 1.2)
