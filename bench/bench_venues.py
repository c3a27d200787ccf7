"""What a frame of the other venues costs in a shard: decode, sequence, put into the ring."""

import itertools
import json

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from bench.bench_shard import FRAMES, ring, run_frames
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.names import StreamKey, StreamKind
from engine.messages.streams import StreamSpec
from shards.feeds.book_rules import BookRule, by_one
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.pushed_books import PushedBook
from shards.feeds.trades import UnorderedTrades
from shards.venues import VENUES
from shards.venues.kit import Feeds
from tests.shards.doubles import Said

TS_MS = 1_795_000_000_324


def bybit_trades(per_frame: int, rng: np.random.Generator) -> list[bytes]:
    """As many frames as it takes for `FRAMES` trades, whose ids are UUIDs."""

    def row() -> str:
        digits = rng.bytes(16).hex()
        number = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return (
            f'{{"T":{TS_MS},"s":"BTCUSDT","S":"Buy","v":"0.010","p":"81234.50",'
            f'"L":"ZeroPlusTick","i":"{number}","BT":false,"RPI":false,"seq":530400001240}}'
        )

    head = f'{{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":{TS_MS},"data":['
    return [
        f"{head}{','.join(row() for _ in range(per_frame))}]}}".encode()
        for _ in range(FRAMES // per_frame)
    ]


def run_bybit_trades(benchmark: BenchmarkFixture, per_frame: int, budget_us: float) -> None:
    producer, reader = ring(TRADE)
    spec = StreamSpec(1, StreamKey("bybit_linear", "BTCUSDT", StreamKind.TRADES))
    feed = UnorderedTrades(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["bybit_linear"].open_decoder(feeds, Said())
    rng = np.random.default_rng(1)
    blocks = [bybit_trades(per_frame, rng) for _ in range(8)]
    benchmark.extra_info.update(items=FRAMES, budget_us=budget_us)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.row_count == 8 * FRAMES


def test_bybit_trade_alone_in_its_frame(benchmark: BenchmarkFixture) -> None:
    run_bybit_trades(benchmark, per_frame=1, budget_us=2.5)


def test_bybit_trades_of_20_per_trade(benchmark: BenchmarkFixture) -> None:
    run_bybit_trades(benchmark, per_frame=20, budget_us=1.5)


def bybit_delta(seq: int, levels: int) -> bytes:
    bids = [[f"{81234.5 - i:.2f}", f"{0.001 * (i + 1):.3f}"] for i in range(levels // 2)]
    asks = [[f"{81235.5 + i:.2f}", f"{0.001 * (i + 1):.3f}"] for i in range(levels // 2)]
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": seq, "seq": 530400001234}
    form = "snapshot" if seq == 1 else "delta"
    message = {"topic": "orderbook.1000.BTCUSDT", "type": form, "ts": TS_MS, "data": data}
    return json.dumps({**message, "cts": TS_MS}, separators=(",", ":")).encode()


def run_bybit_deltas(
    benchmark: BenchmarkFixture, levels: int, events: int, budget_us: float
) -> None:
    producer, reader = ring(BOOK)
    spec = StreamSpec(1, StreamKey("bybit_linear", "BTCUSDT", StreamKind.L2_BOOK))
    gaps = GapLedger(ring(GAP)[0])
    feed = PushedBook(spec, producer, gaps, None, BookRule(by_one), lambda _: None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["bybit_linear"].open_decoder(feeds, Said())
    sequence = itertools.count(1)
    blocks = [[bybit_delta(next(sequence), levels) for _ in range(events)] for _ in range(12)]
    benchmark.extra_info.update(items=events * levels, budget_us=budget_us)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.is_synced


def test_bybit_delta_of_400_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_bybit_deltas(benchmark, levels=400, events=200, budget_us=0.2)


def test_bybit_delta_of_6_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_bybit_deltas(benchmark, levels=6, events=5000, budget_us=0.8)
