"""What one frame of Deribit costs in a shard, beside those in `bench.bench_shard`."""

import itertools
import json

from pytest_benchmark.fixture import BenchmarkFixture

from bench.bench_shard import FRAMES, TS_RECV, ring, run_frames
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.names import StreamKey, StreamKind
from engine.messages.streams import StreamSpec
from shards.feeds.book_rules import BookRule, by_previous
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.pushed_books import PushedBook
from shards.feeds.trades import ContiguousTrades
from shards.venues import VENUES
from shards.venues.kit import Feeds
from tests.shards.doubles import Said

SYMBOL = "BTC-PERPETUAL"
HEAD = '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"%s","data":'


def trades(first_seq: int, count: int) -> bytes:
    rows = ",".join(
        f'{{"trade_seq":{seq},"trade_id":"{seq}","timestamp":1795000000222,"tick_direction":1,'
        '"price":81234.5,"mark_price":81236.1,"instrument_name":"BTC-PERPETUAL",'
        '"index_price":81240.2,"direction":"buy","contracts":5.0,"amount":50.0}'
        for seq in range(first_seq, first_seq + count)
    )
    return f"{HEAD % 'trades.BTC-PERPETUAL.100ms'}[{rows}]}}}}".encode()


def run_trades(benchmark: BenchmarkFixture, per_frame: int, budget_us: float) -> None:
    producer, reader = ring(TRADE)
    spec = StreamSpec(1, StreamKey("deribit", SYMBOL, StreamKind.TRADES))
    feed = ContiguousTrades(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["deribit"].open_decoder(feeds, Said())
    seqs = itertools.count(1, per_frame)
    blocks = [
        [trades(next(seqs), per_frame) for _ in range(FRAMES // per_frame)] for _ in range(12)
    ]
    benchmark.extra_info.update(items=FRAMES, budget_us=budget_us)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.row_count == 12 * FRAMES


def test_deribit_trades_of_1_per_trade(benchmark: BenchmarkFixture) -> None:
    run_trades(benchmark, per_frame=1, budget_us=2.0)


def test_deribit_trades_of_5_per_trade(benchmark: BenchmarkFixture) -> None:
    run_trades(benchmark, per_frame=5, budget_us=1.2)


def book(change_id: int, levels: int) -> bytes:
    data = {
        "type": "change" if change_id else "snapshot", "timestamp": 1795000000500,
        "instrument_name": SYMBOL, "change_id": change_id + 1, "prev_change_id": change_id,
        "bids": [["change", 81234.5 - i / 2, 10.0 * (i + 1)] for i in range(levels // 2)],
        "asks": [["change", 81235.0 + i / 2, 10.0 * (i + 1)] for i in range(levels // 2)],
    }  # fmt: skip
    text = json.dumps(data, separators=(",", ":"))
    return f"{HEAD % 'book.BTC-PERPETUAL.100ms'}{text}}}}}".encode()


def run_books(benchmark: BenchmarkFixture, levels: int, events: int, budget_us: float) -> None:
    producer, reader = ring(BOOK)
    spec = StreamSpec(1, StreamKey("deribit", SYMBOL, StreamKind.L2_BOOK))
    rule = BookRule(by_previous)
    feed = PushedBook(spec, producer, GapLedger(ring(GAP)[0]), None, rule, lambda _: None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["deribit"].open_decoder(feeds, Said())
    decode(book(0, 2), TS_RECV)
    ids = itertools.count(1)
    blocks = [[book(next(ids), levels) for _ in range(events)] for _ in range(12)]
    benchmark.extra_info.update(items=events * levels, budget_us=budget_us)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.gap_count == 0


def test_deribit_book_400_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_books(benchmark, levels=400, events=200, budget_us=0.2)


def test_deribit_book_6_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_books(benchmark, levels=6, events=5000, budget_us=1.0)
