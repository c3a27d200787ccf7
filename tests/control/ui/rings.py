"""Rings as a shard writes them, for tests of what reads them."""

from collections.abc import Sequence

import numpy as np

from engine.data.flags import Flag, Side
from engine.data.instrument import Instrument
from engine.data.kinds import KINDS
from engine.data.layout import Layout, ring_name
from engine.data.names import StreamKey, StreamKind
from engine.data.ring import RingProducer, RingReader, format_ring, ring_bytes
from engine.data.segment import Segment, create_segment
from engine.data.slots import Slots
from shards.feeds.book_rows import BookEvent, Level, put_event

NOW_NS = 1_780_000_000_000_000_000


class ShardRing:
    """The producer's end of one ring, with the file it lives in. Everything is released at once:
    these tests have no writer.
    """

    def __init__(
        self, layout: Layout, kind: str, *, shard: int = 0, capacity: int = 1 << 14,
        epoch: int = 1,
    ) -> None:  # fmt: skip
        spec = KINDS[kind]
        path = layout.ring_path(ring_name(f"shard-{shard}", kind))
        self._segment: Segment = create_segment(path, ring_bytes(spec, capacity))
        memory = memoryview(self._segment.memory)
        format_ring(memory, spec, capacity, epoch)
        self.producer = RingProducer(memory, spec)
        self._reader = RingReader(memoryview(self._segment.memory), spec)
        self._last_seq = 0

    def trade(
        self, slot: int, price: float, qty: float = 1.0, *, side: Side = Side.BUY,
        trade_id: int = 1, flags: int = 0, ts_event: int = NOW_NS,
    ) -> None:  # fmt: skip
        """One trade, published."""
        seq = self.producer.reserve()
        row = self.producer.views(seq, 1)[0]
        row[0] = (slot, flags, side, 0, ts_event, ts_event, 0, trade_id, price, qty)
        self._publish()

    def put(self, slot: int, **fields: float) -> None:
        """One record of any kind, by field, published."""
        seq = self.producer.reserve()
        row = self.producer.views(seq, 1)[0]
        row[:] = np.zeros(1, row.dtype)
        for name, value in {
            "stream": slot,
            "ts_event": NOW_NS,
            "ts_recv": NOW_NS,
            **fields,
        }.items():
            row[name] = value
        self._publish()

    def trades(self, slot: int, count: int, price: float = 1.0) -> None:
        """Many trades at once."""
        seq = self.producer.reserve(count)
        assert seq >= 0
        done = 0
        for view in self.producer.views(seq, count):
            view["stream"], view["side"], view["price"], view["qty"] = slot, Side.BUY, price, 1.0
            view["trade_id"] = range(done, done + len(view))
            done += len(view)
        self._publish()

    def book(
        self, slot: int, bids: Sequence[Level], asks: Sequence[Level], *, snapshot: bool = False,
        after_gap: bool = False,
    ) -> None:  # fmt: skip
        """One book event, published."""
        self._last_seq += 1
        event = BookEvent(self._last_seq, self._last_seq - 1, NOW_NS, NOW_NS, bids, asks, snapshot)
        seq = self.producer.reserve(event.row_count)
        assert seq >= 0
        put_event(self.producer, seq, slot, event, int(Flag.AFTER_GAP) if after_gap else 0)
        self._publish()

    def _publish(self) -> None:
        self.producer.publish()
        self._reader.release(self.producer.next_seq)

    def close(self, *, remove: bool = False) -> None:
        """Let go of the file; `remove` as a new engine does before it makes its own."""
        self.producer.close()
        self._reader.close()
        self._segment.close()
        if remove:
            self._segment.unlink()


def describe(layout: Layout, symbols: Sequence[tuple[str, StreamKind]], decimals: int = 2) -> None:
    """Give these streams slots 0, 1, … and say how many decimals their prices have."""
    slots = Slots(layout.slots)
    for symbol, kind in symbols:
        entry = slots.assign(StreamKey("binance_linear", symbol, kind))
        instrument = Instrument("binance_linear", symbol, decimals, 3, tick_size="0.01")
        slots.describe(entry.slot, instrument)
