"""What a frame of OKX costs in a shard, to be held against Binance's in `bench_shard.py`."""

import itertools
import json

from pytest_benchmark.fixture import BenchmarkFixture

from bench.bench_shard import FRAMES, TS_RECV, ring, run_frames
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.names import StreamKey, StreamKind
from engine.messages.streams import StreamSpec
from shards.feeds.book_rules import BookRule, by_previous_or_reset
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.pushed_books import PushedBook
from shards.feeds.trades import ContiguousTrades
from shards.venues import VENUES
from shards.venues.kit import Feeds
from tests.shards.doubles import Said

SYMBOL = "BTC-USDT-SWAP"


def trades(first_id: int, count: int) -> list[bytes]:
    return [
        b'{"arg":{"channel":"trades","instId":"BTC-USDT-SWAP"},"data":[{"instId":"BTC-USDT-SWAP",'
        b'"tradeId":"%d","px":"81234.5","sz":"3","side":"buy","ts":"1795000000321","count":"1",'
        b'"source":"0","seqId":7700012345}]}' % trade_id
        for trade_id in range(first_id, first_id + count)
    ]


def test_okx_trade_decode_sequence_ring(benchmark: BenchmarkFixture) -> None:
    producer, reader = ring(TRADE)
    spec = StreamSpec(1, StreamKey("okx", SYMBOL, StreamKind.TRADES))
    feed = ContiguousTrades(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["okx"].open_decoder(feeds, Said())
    blocks = [trades(1 + i * FRAMES, FRAMES) for i in range(12)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.row_count == 12 * FRAMES


def book(seq: int, levels: int, *, whole: bool = False) -> bytes:
    bids = [[f"{81234.5 - i:.1f}", f"{i + 1}", "0", "3"] for i in range(levels // 2)]
    asks = [[f"{81235.5 + i:.1f}", f"{i + 1}", "0", "3"] for i in range(levels // 2)]
    row = {
        "asks": asks, "bids": bids, "ts": "1795000000128", "checksum": 0, "seqId": seq,
        "prevSeqId": -1 if whole else seq - 1,
    }  # fmt: skip
    message = {
        "arg": {"channel": "books", "instId": SYMBOL},
        "action": "snapshot" if whole else "update",
        "data": [row],
    }
    return json.dumps(message, separators=(",", ":")).encode()


def run_books(benchmark: BenchmarkFixture, levels: int, events: int, budget_us: float) -> None:
    producer, reader = ring(BOOK)
    spec = StreamSpec(1, StreamKey("okx", SYMBOL, StreamKind.L2_BOOK))
    gaps, rule = GapLedger(ring(GAP)[0]), BookRule(by_previous_or_reset)
    feed = PushedBook(spec, producer, gaps, None, rule, lambda _: None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["okx"].open_decoder(feeds, Said())
    decode(book(1, 2, whole=True), TS_RECV)
    sequence = itertools.count(2)
    blocks = [[book(next(sequence), levels) for _ in range(events)] for _ in range(12)]
    benchmark.extra_info.update(items=events * levels, budget_us=budget_us)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.is_synced


def test_okx_book_of_400_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_books(benchmark, levels=400, events=200, budget_us=0.2)


def test_okx_book_of_6_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_books(benchmark, levels=6, events=5000, budget_us=1.0)
