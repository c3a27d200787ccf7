"""The writer's first moments."""

import os
from pathlib import Path
from typing import cast

import uvloop

from engine.data.kinds import TRADE
from engine.data.layout import Layout, open_layout
from engine.data.positions import Position, read_position
from engine.data.ring import RingProducer, format_ring, ring_bytes
from engine.data.segment import create_segment
from engine.messages.pipes import FromChild, Ready, ToChild
from engine.messages.settings import LogSettings, Paths, RingSettings, WriterSettings
from engine.process.pipe import Pipe
from engine.writer.main import Writer

RING = "shard-0.trade"


class Supervisor:
    """The other end of the writer's pipe; it is gone once the writer is ready."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.found: Position | None = None

    def send(self, message: FromChild) -> None:
        if isinstance(message, Ready):  # what a shard would read that is started now
            self.found = read_position(self._layout.positions_dir, TRADE.name, 3)

    async def receive(self) -> ToChild | None:
        return None

    async def flush(self) -> None:
        pass


def leave_a_row_behind(layout: Layout) -> None:
    """An engine that was killed before its writer saw the row."""
    segment = create_segment(layout.ring_path(RING), ring_bytes(TRADE, 64))
    with memoryview(segment.memory) as memory:
        format_ring(memory, TRADE, 64, 1)
    producer = RingProducer(memoryview(segment.memory), TRADE)
    (row,) = producer.views(producer.reserve(1), 1)
    row["stream"], row["trade_id"], row["ts_event"], row["ts_recv"] = 3, 4711, 5, 6
    producer.publish()
    del row
    producer.close()
    segment.close()


def test_shards_are_let_in_only_when_old_rings_are_in_the_positions(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state", shm_root=tmp_path / "shm")
    leave_a_row_behind(layout)
    supervisor = Supervisor(layout)

    async def main() -> None:
        doorbell_fd = os.eventfd(0, os.EFD_NONBLOCK)
        settings = WriterSettings(
            Paths.of(layout), [RingSettings(RING, "trade", 64)], doorbell_fd, LogSettings("")
        )
        await Writer(settings, cast("Pipe[ToChild]", supervisor)).run()
        os.close(doorbell_fd)

    uvloop.run(main())
    assert supervisor.found is not None
    assert supervisor.found.id == 4711
