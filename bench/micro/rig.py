"""Rings of a shard with a producer, and the writer's sources on them, without a server."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from engine.data.flags import Side
from engine.data.kind import RecordArray
from engine.data.kinds import KINDS, TRADE
from engine.data.layout import Layout, SourceKey
from engine.data.names import StreamKey, StreamKind
from engine.data.ring import RingProducer
from engine.data.segment import attach_segment
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, RingSettings, WriterSettings
from engine.writer.consumer import Consumer
from engine.writer.rows.slice import Batch, Part
from engine.writer.sinks.sink import Cursor, Promise, Sink, Taken
from engine.writer.sources.source import Readers
from engine.writer.sources.sources import Sources

STREAMS: Final = 10


class Taking(Sink):
    """A sink that has everything at once."""

    def __init__(self, promise: Promise) -> None:
        self.name = "database" if promise is Promise.EVERY_ROW else "redis"
        self.promise = promise

    async def open(self, drained: Mapping[SourceKey, int]) -> Sequence[SourceKey]:
        return ()

    async def cursors(self, starts: Mapping[SourceKey, int]) -> Mapping[SourceKey, Cursor]:
        return {key: Cursor(seq) for key, seq in starts.items()}

    async def take(self, batch: Batch, *, durable: bool) -> Taken:
        taken = Taken()
        for part in batch.slices:
            taken.rows[part.spec.name] += len(part.records)
        return taken

    async def close(self) -> None:
        pass


class Rig:
    """Rings of every kind of a shard; trades come."""

    def __init__(self, layout: Layout, capacity: int = 1 << 12) -> None:
        self.slots = Slots(layout.slots)
        names = [StreamKey("bench", f"S{n}", StreamKind.TRADES) for n in range(STREAMS)]
        self.slots.assign_all(names)
        self.settings = WriterSettings(
            Paths.of(layout), [], -1, LogSettings(""), redis_url="redis://127.0.0.1"
        )
        self.sources = Sources(layout, 1 << 20, Readers(("database",), ("redis",)))
        self.sources.open([RingSettings(f"shard-0.{kind}", kind, capacity) for kind in KINDS])
        self._segment = attach_segment(layout.ring_path("shard-0.trade"), writable=True)
        self.producer = RingProducer(memoryview(self._segment.memory), TRADE)

    def put(self, rows: RecordArray) -> None:
        """They arrive."""
        seq, start = self.producer.reserve(len(rows)), 0
        assert seq >= 0
        for view in self.producer.views(seq, len(rows)):
            view[:] = rows[start : start + len(view)]
            start += len(view)
        self.producer.publish()

    def pump(self) -> int:
        """As the writer does."""
        return sum(source.pump() for source in self.sources)

    def let_go(self) -> None:
        """Every sink has everything."""
        for source in self.sources:
            source.advance("database", source.head_seq, durable=True)
            source.progress("redis").seq = source.head_seq
        self.pump()

    def renew(self, rows: RecordArray, *, pumped: bool = False) -> None:
        """Every sink has everything but these, which arrive."""
        self.let_go()
        self.put(rows)
        if pumped:
            self.pump()

    @staticmethod
    def claim(consumer: Consumer) -> None:
        """It begins where its sink says."""
        asyncio.run(consumer._open())

    @staticmethod
    def taken(consumer: Consumer, parts: Sequence[Part]) -> None:
        """Its sink has these."""
        batch, taken = Batch(parts), Taken()
        for part in batch.slices:
            taken.rows[part.spec.name] += len(part.records)
        consumer._taken(batch, taken, durable=False)

    def close(self) -> None:
        """Remove everything."""
        self.producer.close()
        self._segment.close()
        self.sources.remove_all()


def trades(count: int) -> RecordArray:
    """Of ten streams in turn."""
    numbers = np.arange(count)
    rows = np.zeros(count, TRADE.dtype)
    rows["stream"], rows["side"] = numbers % STREAMS, Side.BUY
    rows["ts_event"] = 1_795_000_000_000_000_000 + numbers
    rows["ts_recv"], rows["trade_id"] = rows["ts_event"] + 1_000_000, numbers
    rows["price"], rows["qty"] = 81234.5, 0.25
    return rows
