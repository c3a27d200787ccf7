"""Rows in a journal of small segments, to be damaged; and the delivery of what is left.

As a program it delivers until everything is stored, for the tests to kill: arguments are the state
directory, the shared-memory root, the database URL and the rows a commit.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from engine.base.clock import wall_ns
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import Layout, open_layout
from engine.data.ring import RingProducer
from engine.data.segment import attach_segment
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, RingSettings, WriterSettings
from engine.writer.every_row import EveryRow
from engine.writer.rows.knob_table import KnobTable
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sources.sources import Sources
from tests.engine.writer.conftest import DATABASE

RING = "shard-0.trade"
SEGMENT_BYTES = 2000
_CAPACITY = 64
_BLOCK_ROWS = 8


def fresh(rows: RecordArray) -> RecordArray:
    """The same, as if received from now on."""
    shift_ns = wall_ns() - int(rows["ts_event"][0])
    rows["ts_event"] += shift_ns
    rows["ts_recv"] += shift_ns
    return rows


def receive(layout: Layout, rows: RecordArray, *, ring_stays: bool, ring: str = RING) -> int:
    """Take rows through a ring into its journal, with no database at hand. Returns the epoch.

    Afterwards the writer is gone: killed, so that the ring stays, or at the end of a clean stop.
    """
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([RingSettings(ring, "trade", _CAPACITY)])
    source = next(source for source in sources if source.is_live and source.name == ring)
    segment = attach_segment(layout.ring_path(ring), writable=True)
    producer = RingProducer(memoryview(segment.memory), TRADE)
    for start in range(0, len(rows), _BLOCK_ROWS):
        _put(producer, rows[start : start + _BLOCK_ROWS])
        source.pump()
    producer.close()
    segment.close()
    epoch = source.epoch
    if ring_stays:
        source.close()
    else:
        sources.remove_all()
    return epoch


def _put(producer: RingProducer, rows: RecordArray) -> None:
    done = 0
    for view in producer.views(producer.reserve(len(rows)), len(rows)):
        view[:] = rows[done : done + len(view)]
        done += len(view)
    producer.publish()


def journal_segments(layout: Layout, epoch: int) -> list[Path]:
    """Its files, oldest first."""
    return sorted((layout.journal_dir / RING / str(epoch)).glob("*.seg"))


def deliver(
    layout: Layout,
    url: str,
    *,
    rows_per_commit: int = 100,
    on_loss: Callable[[RecordArray], None] | None = None,
) -> EveryRow:
    """Bring everything there is into the database, as the next start would; remove it after."""
    settings = WriterSettings(
        Paths.of(layout), [], -1, LogSettings(""), database_url=url,
        flush_interval_s=0.001, max_rows_per_copy=rows_per_commit,
    )  # fmt: skip
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    sink = PostgresSink(settings, Slots(layout.slots))
    delivery = EveryRow(sources, sink, KnobTable(settings), on_loss)

    async def main() -> None:
        task = asyncio.create_task(delivery.run())
        while any(source.pump() for source in sources):
            pass
        try:
            async with asyncio.timeout(30):
                await delivery.finish()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await sink.close()

    uvloop.run(main())
    assert sources.remove_all() == 0
    return delivery


if __name__ == "__main__":
    state_dir, shm_root, database_url, row_count = sys.argv[1:]
    deliver(
        open_layout(Path(state_dir), Path(shm_root)),
        database_url,
        rows_per_commit=int(row_count),
    )
