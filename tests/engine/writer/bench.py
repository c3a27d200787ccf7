"""Rings with producers and the delivery behind them, for tests of what is refused."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from engine.data.kind import Kind, RecordArray
from engine.data.layout import Layout
from engine.data.ring import RingProducer
from engine.data.segment import Segment, attach_segment
from engine.data.slots import Slots
from engine.messages.settings import RingSettings, WriterSettings
from engine.writer.every_row import EveryRow
from engine.writer.rows.knob_table import KnobTable
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sources.source import Readers
from engine.writer.sources.sources import Sources
from tests.engine.writer.conftest import DATABASE
from tests.waiting import until


class Bench:
    """One shard's rings, each with a producer of the test's own."""

    def __init__(
        self,
        layout: Layout,
        *specs: Kind,
        capacity: int = 1 << 14,
        readers: Readers = DATABASE,
    ) -> None:
        self._layout = layout
        self._segments: list[Segment] = []
        self.rings: dict[str, RingProducer] = {}
        self.specs = specs
        self.sources = Sources(layout, 1 << 20, readers)
        self.sources.open([RingSettings(f"shard-0.{s.name}", s.name, capacity) for s in specs])
        for spec in specs:
            path = layout.ring_path(f"shard-0.{spec.name}")
            self._segments.append(attach_segment(path, writable=True))
            memory = memoryview(self._segments[-1].memory)
            self.rings[spec.name] = RingProducer(memory, spec)

    def put(self, rows: RecordArray) -> None:
        """Receive rows; their layout tells the kind."""
        (kind,) = (spec.name for spec in self.specs if spec.dtype == rows.dtype)
        producer = self.rings[kind]
        start = 0
        for view in producer.views(producer.reserve(len(rows)), len(rows)):
            view[:] = rows[start : start + len(view)]
            start += len(view)
        self.publish()

    def publish(self) -> None:
        """Show what the rings hold, and journal it."""
        for producer in self.rings.values():
            producer.publish()
        for source in self.sources:
            source.pump()

    def delivery(self, settings: WriterSettings, **options: Any) -> EveryRow:
        """A writer's way to the database; several after one another are restarts."""
        sink = PostgresSink(settings, Slots(self._layout.slots))
        return EveryRow(self.sources, sink, KnobTable(settings), **options)

    def close(self) -> None:
        """Let go; what is undelivered stays in the journal."""
        for producer in self.rings.values():
            producer.close()
        for segment in self._segments:
            segment.close()
        self.sources.remove_all()


def run(delivery: EveryRow, body: Callable[[], Awaitable[None]]) -> None:
    """Deliver while `body` runs."""

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


def all_delivered(*deliveries: EveryRow) -> Callable[[], Awaitable[None]]:
    """A body that waits for an empty backlog."""

    async def body() -> None:
        await until(lambda: all(each.backlog_rows == 0 for each in deliveries))

    return body
