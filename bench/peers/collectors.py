"""Whole collectors of trades, from a socket to rows in the product's table, each in one process:

    python -m bench.peers.collectors usual DATABASE_URL ws://127.0.0.1:8765/ws 20000

`usual` is what most people write: websockets, json, an INSERT of 500 rows. `ours` is the way of the
product without its journal and other processes: a shard's socket, decoder, feed and ring, and every
50 ms a commit of the writer's sink.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import psycopg
import uvloop

from bench.frames import BEGIN_MS
from bench.peers.meters import Took, metered
from bench.peers.others import installed
from bench.peers.receivers import ShardSocket
from bench.peers.rows import Known, Row
from bench.peers.ways import INSERT_ROWS, insert
from engine.data.flags import Side
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE

SLOT: Final = 1
"""Of the stream that a `ShardSocket` has."""
_FLUSH_EVERY_S: Final = 0.05


def first_row() -> RecordArray:
    """A row of the stream on the day of all the others: with it the database knows the stream, and
    has a partition.
    """
    rows = np.zeros(1, TRADE.dtype)
    rows["stream"], rows["side"] = SLOT, Side.BUY
    rows["ts_event"] = rows["ts_recv"] = BEGIN_MS * 1_000_000
    rows["price"] = rows["qty"] = 1.0
    return rows


async def ours(known: Known, url: str, count: int) -> Took:
    """Decode into a ring, and commit what is there."""
    shard = ShardSocket(count)
    socket = await shard.connect(url)

    async def work() -> None:
        while not shard.done.is_set():
            await asyncio.sleep(_FLUSH_EVERY_S)
            if shard.waiting:
                await known.take(shard.take())
        if shard.waiting:
            await known.take(shard.take())

    assert known.sink._connection is not None
    took = await metered(work, known.sink._connection.info.backend_pid)
    await socket.end()
    return took


async def usual(known: Known, url: str, count: int) -> Took:
    """A list of rows that becomes an INSERT when it is long enough."""
    stream_id = int(known.sink._tables.streams.lookup.stream_id[SLOT])
    async with (
        installed("websockets").connect(url, compression=None) as socket,
        await psycopg.AsyncConnection.connect(known.url, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):

        async def work() -> None:
            rows: list[Row] = []
            for _ in range(count):
                rows.append(_row(json.loads(await socket.recv()), stream_id))
                if len(rows) == INSERT_ROWS:
                    await insert(cursor, rows)
                    rows.clear()
            if rows:
                await insert(cursor, rows)

        return await metered(work, connection.info.backend_pid)


def _row(said: dict[str, Any], stream_id: int) -> Row:
    return (
        datetime.fromtimestamp(said["T"] / 1000, UTC),
        0,
        time.perf_counter_ns(),
        stream_id,
        0,
        "S" if said["m"] else "B",
        round(float(said["p"]) * 100),
        round(float(said["q"]) * 1000),
        0,
        said["a"],
    )


COLLECTORS: Final[dict[str, Callable[[Known, str, int], Awaitable[Took]]]] = {
    "ours": ours,
    "usual": usual,
}


async def collect(name: str, database_url: str, url: str, count: int) -> Took:
    """With one of them, into an empty table."""
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as directory:
        known = Known(database_url, Path(directory))
        await known.open(first_row())
        try:
            return await COLLECTORS[name](known, url, count)
        finally:
            await known.sink.close()


if __name__ == "__main__":
    name, database_url, url, count = sys.argv[1:]
    took = uvloop.run(collect(name, database_url, url, int(count)))
    print(json.dumps(msgspec.to_builtins(took)))
