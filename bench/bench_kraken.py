"""What one frame of Kraken costs in a shard: decode, sequence, put into the ring; of spot with the
checksum of the book.
"""

import itertools
from typing import NamedTuple

from pytest_benchmark.fixture import BenchmarkFixture

from bench.bench_shard import FRAMES, TS_RECV, ring, run_frames
from engine.data.instrument import Instrument
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.names import StreamKey, StreamKind, Transport
from engine.data.ring import RingProducer, RingReader
from engine.messages.streams import StreamSpec
from shards.feeds.book_rows import BookEvent, Level
from shards.feeds.book_rules import BookRule, KeptBook
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.feed import Feed
from shards.feeds.pushed_books import PushedBook, UnnumberedBook
from shards.feeds.trades import ContiguousTrades
from shards.venues import VENUES
from shards.venues.kit import Channel, Feeds, FrameDecoder
from tests.shards.doubles import Said

ROUNDS = 8
LEVELS = 1000


class Book(NamedTuple):
    """A stream of books, its ring, and how its messages chain."""

    feed: PushedBook
    producer: RingProducer
    reader: RingReader
    rule: BookRule


def decoder_of(feed: Feed) -> FrameDecoder:
    feeds = Feeds()
    feeds.add(feed)
    return VENUES[feed.key.venue].open_decoder(feeds, Said())


def trades(venue: str, symbol: str) -> tuple[FrameDecoder, RingProducer, RingReader]:
    producer, reader = ring(TRADE)
    spec = StreamSpec(1, StreamKey(venue, symbol, StreamKind.TRADES))
    feed = ContiguousTrades(spec, producer, GapLedger(ring(GAP)[0]), None)
    return decoder_of(feed), producer, reader


def spot_trade(trade_id: int) -> str:
    return (
        '{"symbol":"BTC/USD","side":"buy","price":81234.1,"qty":0.01250000,"ord_type":"market",'
        f'"trade_id":{trade_id},"timestamp":"2026-11-22T10:00:00.{trade_id % 1000:03d}456Z"}}'
    )


def spot_trades(first: int, count: int) -> bytes:
    rows = ",".join(spot_trade(first + n) for n in range(count))
    return b'{"channel":"trade","type":"update","data":[%b]}' % rows.encode()


def test_spot_trade_alone(benchmark: BenchmarkFixture) -> None:
    ids = itertools.count(1)
    blocks = [[spot_trades(next(ids), 1) for _ in range(FRAMES)] for _ in range(ROUNDS)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    decode, producer, reader = trades("kraken_spot", "BTC/USD")
    run_frames(benchmark, decode, blocks, producer, reader)
    assert producer.next_seq == ROUNDS * FRAMES


def test_spot_trades_of_10_per_trade(benchmark: BenchmarkFixture) -> None:
    ids = itertools.count(1, 10)
    frames = FRAMES // 10
    blocks = [[spot_trades(next(ids), 10) for _ in range(frames)] for _ in range(ROUNDS)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    decode, producer, reader = trades("kraken_spot", "BTC/USD")
    run_frames(benchmark, decode, blocks, producer, reader)
    assert producer.next_seq == ROUNDS * FRAMES


def test_futures_trade(benchmark: BenchmarkFixture) -> None:
    ids = itertools.count(1)
    frame = (
        b'{"feed":"trade","product_id":"PF_XBTUSD","uid":"05af78ac-a774-478c-a50c-8b9c234e071e",'
        b'"side":"sell","type":"fill","seq":%d,"time":1795000000111,"qty":0.5,"price":81230.0}'
    )
    blocks = [[frame % next(ids) for _ in range(FRAMES)] for _ in range(ROUNDS)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    decode, producer, reader = trades("kraken_futures", "PF_XBTUSD")
    run_frames(benchmark, decode, blocks, producer, reader)
    assert producer.next_seq == ROUNDS * FRAMES


def book_of(kind: type[PushedBook], venue: str, symbol: str) -> Book:
    producer, reader = ring(BOOK)
    channel = VENUES[venue].channels[StreamKind.L2_BOOK, Transport.WS]
    assert isinstance(channel, Channel)
    assert channel.book is not None
    key = StreamKey(venue, symbol, StreamKind.L2_BOOK)
    spec = StreamSpec(1, key, instrument=Instrument(venue, symbol, 1, 8))
    gaps = GapLedger(ring(GAP)[0])
    feed = kind(spec, producer, gaps, None, channel.book, lambda _: None)
    return Book(feed, producer, reader, channel.book)


class SpotBook:
    """Messages about a book with the checksums that they have."""

    def __init__(self, rule: BookRule) -> None:
        self._kept = KeptBook(rule, 1, 8)
        self._number = 0

    def message(self, form: str, bids: list[Level], asks: list[Level]) -> bytes:
        self._number += 1
        checksum = self._kept.apply(BookEvent(0, 0, 0, 0, bids, asks))
        sides = [
            ",".join(f'{{"price":{price:.1f},"qty":{qty:.8f}}}' for price, qty in side)
            for side in (bids, asks)
        ]
        return (
            f'{{"channel":"book","type":"{form}","data":[{{"symbol":"BTC/USD","bids":[{sides[0]}],'
            f'"asks":[{sides[1]}],"checksum":{checksum},'
            f'"timestamp":"2026-11-22T10:00:{self._number // 100_000:02d}.'
            f'{self._number % 100_000:06d}Z"}}]}}'
        ).encode()

    def change(self, levels: int) -> bytes:
        """So many levels a side, most of them near the touch."""
        n, width = self._number, 12 if levels < 12 else LEVELS
        depths = [(n * 7 + i * i) % width for i in range(levels)]
        bids = [(81234.1 - 0.1 * d, 0.125 + 0.00000001 * (n % 1000)) for d in depths]
        asks = [(81234.2 + 0.1 * d, 0.25 + 0.00000001 * (n % 1000)) for d in depths]
        return self.message("update", rounded(bids), rounded(asks))


def rounded(levels: list[Level]) -> list[Level]:
    return [(round(price, 1), round(qty, 8)) for price, qty in levels]


def run_spot_book(benchmark: BenchmarkFixture, levels: int, events: int, budget_us: float) -> None:
    feed, producer, reader, rule = book_of(UnnumberedBook, "kraken_spot", "BTC/USD")
    decode, market = decoder_of(feed), SpotBook(rule)
    sides = [[(81234.1 + s * 0.1 * (i + (s > 0)), 1.0 + i) for i in range(LEVELS)] for s in (-1, 1)]
    decode(market.message("snapshot", *map(rounded, sides)), TS_RECV)
    blocks = [[market.change(levels) for _ in range(events)] for _ in range(ROUNDS)]
    benchmark.extra_info.update(items=events * 2 * levels, budget_us=budget_us)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.is_synced


def test_spot_book_of_6_levels_with_checksum_per_level(benchmark: BenchmarkFixture) -> None:
    run_spot_book(benchmark, levels=3, events=2000, budget_us=1.04)


def test_spot_book_of_400_levels_with_checksum_per_level(benchmark: BenchmarkFixture) -> None:
    run_spot_book(benchmark, levels=200, events=100, budget_us=0.2)


def test_futures_book_of_1_level(benchmark: BenchmarkFixture) -> None:
    feed, producer, reader, _ = book_of(PushedBook, "kraken_futures", "PF_XBTUSD")
    decode, ids = decoder_of(feed), itertools.count(501)
    decode(
        b'{"feed":"book_snapshot","product_id":"PF_XBTUSD","timestamp":1795000000111,"seq":500,'
        b'"tickSize":null,"bids":[],"asks":[]}', TS_RECV,
    )  # fmt: skip
    frame = (
        b'{"feed":"book","product_id":"PF_XBTUSD","side":"buy","seq":%d,"price":81230.0,'
        b'"qty":6.385,"timestamp":1795000000112}'
    )
    blocks = [[frame % next(ids) for _ in range(FRAMES)] for _ in range(ROUNDS)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.3)
    run_frames(benchmark, decode, blocks, producer, reader)
    assert feed.is_synced
