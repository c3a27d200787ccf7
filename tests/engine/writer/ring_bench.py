"""Rings with a producer, for the deliveries behind them."""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from engine.data.kind import Kind, RecordArray
from engine.data.kinds import GAP, TRADE
from engine.data.layout import Layout
from engine.data.ring import RingProducer
from engine.data.segment import attach_segment
from engine.messages.settings import RingSettings
from engine.writer.consumer import Consumer
from engine.writer.live import Live
from engine.writer.sources.source import Readers, Source
from engine.writer.sources.sources import Sources


class Bench:
    """A ring of trades and one of gaps, pumped whenever rows are put."""

    def __init__(self, layout: Layout, capacity: int = 1 << 12) -> None:
        self.sources = Sources(layout, 1 << 20, Readers(("database",), ("redis",)))
        self.sources.open(
            [RingSettings(f"shard-0.{kind}", kind, capacity) for kind in ("trade", "gap")]
        )
        self._producers: dict[str, RingProducer] = {}
        self._segments = []
        for spec in (TRADE, GAP):
            path = layout.ring_path(f"shard-0.{spec.name}")
            self._segments.append(attach_segment(path, writable=True))
            memory = memoryview(self._segments[-1].memory)
            self._producers[spec.name] = RingProducer(memory, spec)

    @property
    def trades(self) -> Source:
        """The source of the trades."""
        return next(source for source in self.sources if source.spec is TRADE)

    @property
    def wants_doorbell(self) -> bool:
        """Whether the writer sleeps, for all that its producers know."""
        return all(producer.publish() for producer in self._producers.values())

    def put(self, rows: RecordArray, spec: Kind = TRADE) -> None:
        """Receive these rows."""
        producer = self._producers[spec.name]
        seq = producer.reserve(len(rows))
        start = 0
        for view in producer.views(seq, len(rows)):
            view[:] = rows[start : start + len(view)]
            start += len(view)
        producer.publish()
        for source in self.sources:
            source.pump()

    def close(self) -> None:
        """Remove everything."""
        for producer in self._producers.values():
            producer.close()
        for segment in self._segments:
            segment.close()
        self.sources.remove_all()


def deliver(delivery: Consumer, body: Callable[[], Awaitable[None]]) -> None:
    """Run the delivery beside `body`, until that has ended."""

    async def main() -> None:
        task = asyncio.create_task(delivery.run())
        try:
            async with asyncio.timeout(30):
                await body()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await delivery.sink.close()

    uvloop.run(main())


def assert_counted_once(delivery: Live, received: int) -> None:
    """The equation, for trades."""
    counted = sum(
        rows["trade"] for rows in (delivery.rows, delivery.missed_rows, delivery.withheld_rows)
    )
    assert counted + delivery.backlog_rows == received
