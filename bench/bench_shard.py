"""What one frame costs in a shard: decode, sequence, put into the ring."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.data.kind import Kind
from engine.data.kinds import BOOK, GAP, QUOTE, TRADE
from engine.data.names import StreamKey, StreamKind
from engine.data.ring import HEADER_BYTES, RingProducer, RingReader, format_ring, ring_bytes
from engine.messages.streams import StreamSpec
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook, SnapshotBook
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades, HistoryTrades
from shards.venues import VENUES
from shards.venues.kit import Feeds, FrameDecoder
from tests.shards.doubles import Said

FRAMES = 20_000
TS_RECV = 1_795_000_000_000_000_000


def ring(spec: Kind) -> tuple[RingProducer, RingReader]:
    capacity = 1 << 17 if spec is not GAP else 64
    # Touched once: a live ring's pages are mapped before the first frame (MAP_POPULATE).
    memory = memoryview(bytearray(b"\1" * ring_bytes(spec, capacity)))
    memory[:HEADER_BYTES] = bytes(HEADER_BYTES)
    format_ring(memory, spec, capacity, 1)
    return RingProducer(memory, spec), RingReader(memory, spec)


def run_frames(
    benchmark: BenchmarkFixture, decode: FrameDecoder, blocks: list[list[bytes]],
    producer: RingProducer, reader: RingReader,
) -> None:  # fmt: skip
    """Each round decodes a fresh block of frames, as one read of the socket would deliver them."""
    supply = itertools.chain(blocks)

    def setup() -> tuple[tuple[list[bytes]], dict[str, Any]]:
        reader.release(producer.next_seq)
        return (next(supply),), {}

    def take(frames: list[bytes]) -> None:
        for frame in frames:
            decode(frame, TS_RECV)
        producer.publish()

    benchmark.pedantic(take, setup=setup, rounds=len(blocks))
    assert reader.dropped_count == 0


def agg_trades(first_id: int, count: int) -> list[bytes]:
    return [
        b'{"e":"aggTrade","E":1795000000120,"s":"BTCUSDT","a":%d,"p":"81234.50","q":"0.250",'
        b'"nq":"0.200","f":8100000101,"l":8100000104,"T":1795000000015,"m":true,"st":1}' % trade_id
        for trade_id in range(first_id, first_id + count)
    ]


def test_binance_agg_trade_decode_sequence_ring(benchmark: BenchmarkFixture) -> None:
    producer, reader = ring(TRADE)
    spec = StreamSpec(1, StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES))
    feed = ContiguousTrades(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["binance_linear"].open_decoder(feeds, Said())
    blocks = [agg_trades(1 + i * FRAMES, FRAMES) for i in range(12)]
    benchmark.extra_info.update(items=FRAMES, budget_us=0.8)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.row_count == 12 * FRAMES


def test_binance_quote_decode_sequence_ring(benchmark: BenchmarkFixture) -> None:
    producer, reader = ring(QUOTE)
    spec = StreamSpec(1, StreamKey("binance_linear", "BTCUSDT", StreamKind.TICKER))
    feed = Quotes(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["binance_linear"].open_decoder(feeds, Said())
    numbers = itertools.count(9_700_000_000_150)
    frame = (
        b'{"e":"bookTicker","u":%d,"s":"BTCUSDT","ps":"BTCUSDT","b":"81234.40","B":"1.200",'
        b'"a":"81234.60","A":"0.800","T":1795000000128,"E":1795000000129,"st":1}'
    )
    blocks = [[frame % next(numbers) for _ in range(FRAMES)] for _ in range(12)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.row_count == 12 * FRAMES


@pytest.mark.parametrize("venue", ["binance_spot", "binance_inverse"])
def test_trade_of_binances_other_markets(benchmark: BenchmarkFixture, venue: str) -> None:
    producer, reader = ring(TRADE)
    spec = StreamSpec(1, StreamKey(venue, "BTCUSDT", StreamKind.TRADES))
    feed = ContiguousTrades(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES[venue].open_decoder(feeds, Said())
    blocks = [agg_trades(1 + i * FRAMES, FRAMES) for i in range(12)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.row_count == 12 * FRAMES


def test_binance_spot_quote_decode_sequence_ring(benchmark: BenchmarkFixture) -> None:
    producer, reader = ring(QUOTE)
    spec = StreamSpec(1, StreamKey("binance_spot", "BTCUSDT", StreamKind.TICKER))
    feed = Quotes(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["binance_spot"].open_decoder(feeds, Said())
    numbers = itertools.count(1_127_645_101)
    frame = (
        b'{"u":%d,"s":"BTCUSDT","b":"81234.40000000","B":"0.14245900","a":"81234.60000000",'
        b'"A":"0.03120100"}'
    )
    blocks = [[frame % next(numbers) for _ in range(FRAMES)] for _ in range(12)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.row_count == 12 * FRAMES


def test_binance_spot_depth_6_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_depth(benchmark, levels=6, events=5000, budget_us=1.0, venue="binance_spot")


def depth(seq: int, levels: int) -> bytes:
    bids = [[f"{81234.5 - i:.2f}", f"{0.001 * (i + 1):.3f}"] for i in range(levels // 2)]
    asks = [[f"{81235.5 + i:.2f}", f"{0.001 * (i + 1):.3f}"] for i in range(levels // 2)]
    message = {
        "e": "depthUpdate", "E": 1795000000130, "T": 1795000000128, "s": "BTCUSDT",
        "U": seq * 10, "u": seq * 10 + 9, "pu": seq * 10 - 1, "b": bids, "a": asks, "st": 1,
    }  # fmt: skip
    return json.dumps(message, separators=(",", ":")).encode()


def run_depth(
    benchmark: BenchmarkFixture,
    levels: int,
    events: int,
    budget_us: float,
    venue: str = "binance_linear",
) -> None:
    producer, reader = ring(BOOK)
    spec = StreamSpec(1, StreamKey(venue, "BTCUSDT", StreamKind.L2_BOOK))
    feed = DeltaBook(spec, producer, GapLedger(ring(GAP)[0]), None, lambda _: None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES[venue].open_decoder(feeds, Said())
    decode(depth(1, 2), TS_RECV)
    feed.on_snapshot(BookEvent(12, 0, 1, 1, [], [], is_snapshot=True))
    assert feed.is_synced
    sequence = itertools.count(2)
    blocks = [[depth(next(sequence), levels) for _ in range(events)] for _ in range(12)]
    benchmark.extra_info.update(items=events * levels, budget_us=budget_us)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.is_synced


def test_binance_depth_400_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_depth(benchmark, levels=400, events=200, budget_us=0.15)


def test_binance_depth_6_levels_per_level(benchmark: BenchmarkFixture) -> None:
    run_depth(benchmark, levels=6, events=5000, budget_us=0.8)


def test_hyperliquid_trades_of_20_per_trade(benchmark: BenchmarkFixture) -> None:
    producer, reader = ring(TRADE)
    spec = StreamSpec(1, StreamKey("hyperliquid_perp", "BTC", StreamKind.TRADES))
    feed = HistoryTrades(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["hyperliquid_perp"].open_decoder(feeds, Said())
    rng = np.random.default_rng(1)

    def frame() -> bytes:
        rows = ",".join(
            '{"coin":"BTC","side":"B","px":"81234.0","sz":"0.01250","time":1795000000123,'
            f'"hash":"0x{"0" * 64}","tid":{tid},"users":["0x{"a" * 40}","0x{"b" * 40}"]}}'
            for tid in rng.integers(0, 2**50, 20)
        )
        return b'{"channel":"trades","data":[' + rows.encode() + b"]}"

    frames = FRAMES // 20
    blocks = [[frame() for _ in range(frames)] for _ in range(8)]
    benchmark.extra_info.update(items=FRAMES, budget_us=2.5)
    run_frames(benchmark, decode, blocks, producer, reader)


def test_hyperliquid_book_of_40_per_level(benchmark: BenchmarkFixture) -> None:
    producer, reader = ring(BOOK)
    spec = StreamSpec(1, StreamKey("hyperliquid_perp", "BTC", StreamKind.L2_BOOK))
    feed = SnapshotBook(spec, producer, GapLedger(ring(GAP)[0]), None)
    feeds = Feeds()
    feeds.add(feed)
    decode = VENUES["hyperliquid_perp"].open_decoder(feeds, Said())
    clock = itertools.count(1_795_000_000_000)

    def frame() -> bytes:
        sides = [
            [{"px": f"{81234 + i}.0", "sz": "1.25000", "n": 4} for i in range(20)] for _ in "ba"
        ]
        data = {"coin": "BTC", "time": next(clock), "levels": sides}
        return json.dumps({"channel": "l2Book", "data": data}, separators=(",", ":")).encode()

    blocks = [[frame() for _ in range(500)] for _ in range(10)]
    benchmark.extra_info.update(items=500 * 40, budget_us=0.4)
    run_frames(benchmark, decode, blocks, producer, reader)
