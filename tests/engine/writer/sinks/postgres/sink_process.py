"""A writer for the fault tests to kill: stores rows until it has stored enough.

Arguments: state directory, database URL, number of rows, rows a commit, durable (0 or 1). Row n of
the ring has trade id n, so the table tells what is missing and what is there twice.
"""

import asyncio
import sys
from pathlib import Path

import numpy as np

from engine.base.errors import EngineError
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import SourceKey, open_layout
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.writer.conftest import claim

RING = "shard-0.trade"


def numbered_trades(first_id: int, count: int) -> RecordArray:
    """Rows whose ids are their sequence numbers."""
    rows = np.zeros(count, TRADE.dtype)
    rows["trade_id"] = np.arange(first_id, first_id + count)
    rows["stream"] = rows["trade_id"] % 4
    rows["side"] = ord("B")
    rows["ts_event"] = 1_780_000_000_000_000_000 + rows["trade_id"] * 1000
    rows["price"] = 1.25
    rows["qty"] = 0.5
    return rows


async def store(sink: PostgresSink, row_count: int, batch_rows: int, durable: bool) -> None:
    """Connect, read the cursor, store from there to the end. Raises as the sink does."""
    await sink.open({})
    seq = await claim(sink, RING, 1, 0)
    while seq < row_count:
        rows = numbered_trades(seq, min(batch_rows, row_count - seq))
        await sink.take(Batch([Slice.whole(SourceKey(RING, 1), TRADE, seq, rows)]), durable=durable)
        seq += len(rows)


async def _main(arguments: list[str]) -> None:
    state_dir, url, row_count, batch_rows, durable = arguments
    layout = open_layout(Path(state_dir), Path(state_dir) / "shm")
    settings = WriterSettings(Paths.of(layout), [], -1, LogSettings(""), database_url=url)
    sink = PostgresSink(settings, Slots(layout.slots))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        try:
            await store(sink, int(row_count), int(batch_rows), durable == "1")
        except EngineError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(0.02)
        else:
            break
    await sink.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
