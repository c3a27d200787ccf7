"""What a message costs in a shard, venue by venue: decoded, sequenced, put into the ring.

    .venv/bin/python -m bench.decoding [--venues okx,deribit] [--rounds 30] [--json]

Every venue is held against Binance, like against like: a trade alone in its message, and one of a
message of many, against Binance's trade; a level of a message of n against a level of Binance's of
n. All take turns in one process, some milliseconds each; CPU time counts, that of the fastest turn:
so ratios stay what they are when the machine has other work.
"""

import argparse
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import thread_time
from typing import Any, Final

from bench.frames import Market, markets
from engine.data.instrument import Instrument
from engine.data.kind import Kind
from engine.data.kinds import KINDS
from engine.data.names import StreamKey, StreamKind
from engine.data.ring import HEADER_BYTES, RingProducer, RingReader, format_ring, ring_bytes
from engine.messages.streams import StreamSpec
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook
from shards.feeds.feed import Feed
from shards.session.make_feed import FeedMaker
from shards.session.rings import ShardRings
from shards.venues import VENUES
from shards.venues.kit import Feeds
from tests.shards.doubles import Said

SIZES: Final = (1, 6, 20, 100)
"""Levels of a message."""
ROWS: Final = 2000
"""Of a turn."""
TS_RECV: Final = 1_795_000_000_000_000_000


class Rings:
    """Rings in memory that was touched once, as a live ring's."""

    def __init__(self) -> None:
        self.readers: dict[str, RingReader] = {}
        self.rings = ShardRings({name: self._ring(kind) for name, kind in KINDS.items()})

    def _ring(self, kind: Kind) -> RingProducer:
        capacity = 1 << 13 if kind.is_fast else 64
        memory = memoryview(bytearray(b"\1" * ring_bytes(kind, capacity)))
        memory[:HEADER_BYTES] = bytes(HEADER_BYTES)
        format_ring(memory, kind, capacity, 1)
        self.readers[kind.name] = RingReader(memory, kind)
        return RingProducer(memory, kind)


class Lane:
    """Messages of one size about a stream, with all that takes them."""

    def __init__(self, market: Market, kind: StreamKind, size: int) -> None:
        self.venue, self.kind, self.size = market.venue, kind, size
        self._frame_count = max(ROWS // size, 1)
        self.rings = Rings()
        venue = VENUES[market.venue]
        spec = StreamSpec(
            1, StreamKey(market.venue, market.symbol, kind),
            instrument=Instrument(market.venue, market.symbol, 1, 8),
        )  # fmt: skip
        maker = FeedMaker(venue, self.rings.rings, Path("/nowhere"), lambda _: None)
        self.feed: Feed = maker.make(spec)
        self.feed.subscribed()
        feeds = Feeds()
        feeds.add(self.feed)
        self.decode = venue.open_decoder(feeds, Said())
        self._messages = self._said(market, kind)
        self.best_us = float("inf")

    def _said(self, market: Market, kind: StreamKind) -> Iterator[bytes]:
        number = 1
        if kind is StreamKind.L2_BOOK:
            self.decode(market.book(1, 2), TS_RECV)
            if isinstance(self.feed, DeltaBook):
                self.feed.on_snapshot(BookEvent(12, 0, 1, 1, [], [], is_snapshot=True))
            number = 2
        while True:
            if kind is StreamKind.L2_BOOK:
                yield market.book(number, self.size)
                number += 1
            else:
                yield market.trades(number, self.size)
                number += self.size

    def __str__(self) -> str:
        return f"{self.venue}-{self.kind}-{self.size}"

    @property
    def row_count(self) -> int:
        """Of a turn."""
        return self._frame_count * self.size

    def supply(self) -> list[bytes]:
        """The messages of a turn, and room for their rows."""
        self.rings.readers[self.feed.kind.name].release(self.feed.ring.next_seq)
        return [next(self._messages) for _ in range(self._frame_count)]

    def take(self, frames: list[bytes]) -> None:
        """What a shard does when a socket was read."""
        decode = self.decode
        for frame in frames:
            decode(frame, TS_RECV)
        self.feed.ring.publish()

    def turn(self) -> None:
        """Take some messages, and remember the time if it is the shortest."""
        frames, before = self.supply(), self.feed.row_count
        began_s = thread_time()
        self.take(frames)
        took_s = thread_time() - began_s
        assert self.feed.row_count - before == self.row_count, (str(self), self.feed.status())
        assert not self.feed.gap_count, (str(self), self.feed.status())
        self.best_us = min(self.best_us, took_s / self.row_count * 1e6)


Costs = dict[tuple[str, StreamKind, int], float]


def lanes_of(market: Market) -> list[Lane]:
    """Trades alone and together, books of all sizes."""
    trades = sorted({1, market.batch})
    sizes = [size for size in SIZES if size <= market.levels_max]
    return [
        *(Lane(market, StreamKind.TRADES, count) for count in trades),
        *(Lane(market, StreamKind.L2_BOOK, size) for size in sizes),
    ]


def measure(chosen: Sequence[Market], rounds: int) -> Costs:
    """µs a row, by lane."""
    lanes = [lane for market in chosen for lane in lanes_of(market)]
    gc.disable()
    for _ in range(rounds):
        for lane in lanes:
            lane.turn()
    gc.enable()
    return {(lane.venue, lane.kind, lane.size): lane.best_us for lane in lanes}


def table(chosen: Sequence[Market], costs: Costs) -> str:
    """µs a row, and how many times Binance's that is."""
    base = chosen[0].venue
    heads = ["trade alone", "of many", *(f"level of {size}" for size in SIZES)]
    lines = [f"{'µs a row (times Binance)':<20}" + "".join(f"{head:>16}" for head in heads)]

    def cell(market: Market, kind: StreamKind, size: int, against: int) -> str:
        cost = costs.get((market.venue, kind, size))
        if cost is None:
            return f"{'-':>16}"
        return f"{cost:8.3f} ({cost / costs[base, kind, against]:5.2f})"

    for market in chosen:
        cells = [cell(market, StreamKind.TRADES, 1, 1)]
        many = market.batch if market.batch > 1 else 0
        cells.append(cell(market, StreamKind.TRADES, many, 1))
        cells += [cell(market, StreamKind.L2_BOOK, size, size) for size in SIZES]
        lines.append(f"{market.venue:<20}" + "".join(f"{text:>16}" for text in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--venues", help="names with commas; Binance is always measured")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    known = markets()
    names = options.venues.split(",") if options.venues else [each.venue for each in known]
    chosen = [known[0], *(each for each in known[1:] if each.venue in names)]
    costs = measure(chosen, options.rounds)
    if options.json:
        rows: list[dict[str, Any]] = [
            {"venue": venue, "kind": str(kind), "rows": size, "us": round(cost, 4)}
            for (venue, kind, size), cost in costs.items()
        ]
        print(json.dumps(rows))
    else:
        print(table(chosen, costs))


if __name__ == "__main__":
    main(sys.argv[1:])
