"""Rings with producers and the delivery behind them, for tests of what is refused."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import uvloop

from engine.data.kinds import RecordArray, RecordKind, RecordSpec
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


class Bench:
    """One shard's rings, each with a producer of the test's own."""

    def __init__(
        self,
        layout: Layout,
        *specs: RecordSpec,
        capacity: int = 1 << 14,
        readers: Readers = DATABASE,
    ) -> None:
        self._layout = layout
        self._segments: list[Segment] = []
        self._producers: dict[RecordKind, RingProducer] = {}
        self.specs = specs
        self.sources = Sources(layout, 1 << 20, readers)
        self.sources.open([RingSettings(f"shard-0.{s.table}", s.table, capacity) for s in specs])
        for spec in specs:
            path = layout.ring_path(f"shard-0.{spec.table}")
            self._segments.append(attach_segment(path, writable=True))
            memory = memoryview(self._segments[-1].memory)
            self._producers[spec.kind] = RingProducer(memory, spec)

    def put(self, rows: RecordArray) -> None:
        """Receive rows; their layout tells the kind."""
        (kind,) = (spec.kind for spec in self.specs if spec.dtype == rows.dtype)
        producer = self._producers[kind]
        start = 0
        for view in producer.views(producer.reserve(len(rows)), len(rows)):
            view[:] = rows[start : start + len(view)]
            start += len(view)
        producer.publish()
        for source in self.sources:
            source.pump()

    def delivery(self, settings: WriterSettings, **options: Any) -> EveryRow:
        """A writer's way to the database; several after one another are restarts."""
        sink = PostgresSink(settings, Slots(self._layout.slots))
        return EveryRow(self.sources, sink, KnobTable(settings), **options)

    def close(self) -> None:
        """Let go; what is undelivered stays in the journal."""
        for producer in self._producers.values():
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


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    while not condition():
        await asyncio.sleep(0.005)


def all_delivered(*deliveries: EveryRow) -> Callable[[], Awaitable[None]]:
    """A body that waits for an empty backlog."""

    async def body() -> None:
        await until(lambda: all(each.backlog_rows == 0 for each in deliveries))

    return body


def select(url: str, query: str, values: Sequence[Any] = ()) -> list[Any]:
    """Ask the database."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values or None).fetchall()


def execute(url: str, query: str) -> None:
    """Change the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(query.encode())
