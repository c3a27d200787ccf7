"""What one frame of Coinbase costs in a shard: decode, sequence, put into the ring."""

import itertools
import json
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.bench_shard import FRAMES, ring, run_frames
from engine.data.kind import Kind
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.names import StreamKey, StreamKind
from engine.data.ring import RingProducer, RingReader
from engine.messages.streams import StreamSpec
from shards.feeds.book_rules import BookRule, by_arrival
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.pushed_books import UnchainedBook
from shards.feeds.trades import ContiguousTrades
from shards.venues import VENUES
from shards.venues.kit import Feeds, FrameDecoder
from tests.shards.doubles import Said

TIME = "2026-11-18T12:26:40.123456Z"


class Bench:
    """A decoder with one stream behind it."""

    def __init__(self, venue: str, kind: StreamKind, rows: Kind) -> None:
        self.producer: RingProducer
        self.reader: RingReader
        self.producer, self.reader = ring(rows)
        spec = StreamSpec(1, StreamKey(venue, "BTC-USD", kind))
        gaps = GapLedger(ring(GAP)[0])
        self.feed: ContiguousTrades | UnchainedBook
        if kind is StreamKind.TRADES:
            self.feed = ContiguousTrades(spec, self.producer, gaps, None)
        else:
            rule = BookRule(by_arrival)
            self.feed = UnchainedBook(spec, self.producer, gaps, None, rule, lambda _: None)
        self.feed.subscribed()
        feeds = Feeds()
        feeds.add(self.feed)
        self.decode: FrameDecoder = VENUES[venue].open_decoder(feeds, Said())


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def message(number: int, channel: str, event: object) -> bytes:
    head = {"channel": channel, "client_id": "", "timestamp": TIME, "sequence_num": number}
    return compact({**head, "events": [event]})


def market_trades(number: int, first_id: int, count: int) -> bytes:
    rows = [
        {"trade_id": str(first_id + n), "product_id": "BTC-USD", "price": "81234.50",
         "size": "0.00150000", "side": "BUY", "time": TIME}
        for n in range(count)
    ]  # fmt: skip
    return message(number, "market_trades", {"type": "update", "trades": rows})


@pytest.mark.parametrize(("per_frame", "budget_us"), [(1, 2.0), (10, 1.2)])
def test_advanced_trades_per_trade(
    benchmark: BenchmarkFixture, per_frame: int, budget_us: float
) -> None:
    on = Bench("coinbase", StreamKind.TRADES, TRADE)
    numbers = itertools.count()
    blocks = [
        [
            market_trades(number, 1 + number * per_frame, per_frame)
            for number in itertools.islice(numbers, FRAMES // per_frame)
        ]
        for _ in range(12)
    ]
    benchmark.extra_info.update(items=FRAMES, budget_us=budget_us)
    run_frames(benchmark, on.decode, blocks, on.producer, on.reader)
    assert on.feed.row_count == 12 * FRAMES


def matches(first_id: int) -> list[bytes]:
    order = "27fff20b-af29-4f45-8744-56dd1ef57dc0"
    return [
        compact(
            {
                "type": "match", "trade_id": trade_id, "maker_order_id": order,
                "taker_order_id": order, "side": "sell", "size": "0.0100", "price": "81234.50",
                "product_id": "BTC-USD", "sequence": 98000000123, "time": TIME,
            }
        )
        for trade_id in range(first_id, first_id + FRAMES)
    ]  # fmt: skip


def test_matches_of_the_exchange(benchmark: BenchmarkFixture) -> None:
    on = Bench("coinbase_exchange", StreamKind.TRADES, TRADE)
    blocks = [matches(1 + n * FRAMES) for n in range(12)]
    benchmark.extra_info.update(items=FRAMES, budget_us=1.2)
    run_frames(benchmark, on.decode, blocks, on.producer, on.reader)
    assert on.feed.row_count == 12 * FRAMES


def advanced_book(number: int, levels: int) -> bytes:
    updates = [
        {"side": "bid" if n < levels // 2 else "offer", "event_time": TIME,
         "price_level": f"{81234 + n}.50", "new_quantity": f"{0.001 * (n + 1):.8f}"}
        for n in range(levels)
    ]  # fmt: skip
    form = "update" if number else "snapshot"
    event = {"type": form, "product_id": "BTC-USD", "updates": updates}
    return message(number, "l2_data", event)


def exchange_book(number: int, levels: int) -> bytes:
    if not number:
        return compact({"type": "snapshot", "product_id": "BTC-USD", "bids": [], "asks": []})
    changes = [
        ["buy" if n < levels // 2 else "sell", f"{81234 + n}.50", f"{0.001 * (n + 1):.8f}"]
        for n in range(levels)
    ]
    return compact({"type": "l2update", "product_id": "BTC-USD", "changes": changes, "time": TIME})


@pytest.mark.parametrize(("levels", "events", "budget_us"), [(400, 200, 0.3), (6, 5000, 1.04)])
@pytest.mark.parametrize(
    ("venue", "write"), [("coinbase", advanced_book), ("coinbase_exchange", exchange_book)]
)
def test_book_per_level(
    benchmark: BenchmarkFixture,
    venue: str,
    write: Callable[[int, int], bytes],
    levels: int,
    events: int,
    budget_us: float,
) -> None:
    on = Bench(venue, StreamKind.L2_BOOK, BOOK)
    on.decode(write(0, 2), 1)
    numbers = itertools.count(1)
    blocks = [[write(next(numbers), levels) for _ in range(events)] for _ in range(12)]
    benchmark.extra_info.update(items=events * levels, budget_us=budget_us)
    run_frames(benchmark, on.decode, blocks, on.producer, on.reader)
    assert on.feed.row_count >= 12 * events * levels
