"""What does a trade cost until it is in a Redis stream, beside an XADD for each with redis-py?

A private Valkey; ours puts the trades of a flush into one entry a stream and moves a cursor with
them. The figure is CPU time, ours and the server's; afterwards each trade is there, to the digit.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import redis.asyncio
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers.conftest import Figure
from bench.peers.meters import Took, metered
from engine.data.flags import Side
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import SourceKey, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.servers.valkey import PrivateValkey
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.redis.sink import RedisSink

STREAMS: Final = 10
ROUNDS: Final = 5
FLUSHES: Final = {"50 a flush": (50, 40), "5000 a flush": (5_000, 2)}
"""Trades of a flush, and flushes of a round."""
Found = Counter[tuple[str, int, float, float]]
"""Stream, id, price and size of each trade; floats, for that is what all were given."""


def trades(count: int) -> RecordArray:
    """Of ten streams in turn, each with a price and a size of its own."""
    numbers = np.arange(count)
    rows = np.zeros(count, TRADE.dtype)
    rows["stream"] = numbers % STREAMS
    rows["side"] = Side.BUY
    rows["ts_event"] = 1_795_000_000_000_000_000 + numbers * 13_007
    rows["ts_recv"] = rows["ts_event"] + 1_000_000
    rows["trade_id"] = numbers
    rows["price"] = (8_100_000 + numbers) / 100
    rows["qty"] = (1 + numbers) / 1000
    return rows


class Ours:
    """The writer's sink."""

    def __init__(self, url: str, directory: Path) -> None:
        layout = open_layout(directory / "state", directory / "shm")
        slots = Slots(layout.slots)
        slots.assign_all([StreamKey("bench", f"S{n}", StreamKind.TRADES) for n in range(STREAMS)])
        paths, logs = Paths.of(layout), LogSettings("")
        self._sink = RedisSink(WriterSettings(paths, [], -1, logs, redis_url=url), slots)
        self._source, self._seq = SourceKey("bench.trade", 1), 0

    async def open(self) -> None:
        """Connect, and begin."""
        await self._sink.open({})
        await self._sink.cursors({self._source: 0})
        await self._sink.tend()

    async def flush(self, rows: RecordArray) -> None:
        """As a consumer does."""
        part = Slice.whole(self._source, TRADE, self._seq, rows)
        taken = await self._sink.take(Batch([part]), durable=False)
        assert taken.rows[TRADE.name] == len(rows)
        self._seq += len(rows)

    async def close(self) -> None:
        """Let go of the server."""
        await self._sink.close()

    @staticmethod
    def trades(fields: dict[bytes, bytes]) -> list[tuple[int, float, float]]:
        """Of an entry."""
        return [(t["id"], t["price"], t["qty"]) for t in json.loads(fields[b"events"])]


class Pipeline:
    """redis-py: a pipeline of XADDs, one a trade, without a transaction and without a cursor."""

    def __init__(self, url: str, directory: Path) -> None:
        del directory
        self._redis: Any = redis.asyncio.from_url(url)

    async def open(self) -> None:
        """Connect."""
        await self._redis.ping()

    async def flush(self, rows: RecordArray) -> None:
        """The rows as Python's numbers first: a collector without numpy has them so."""
        pipeline = self._redis.pipeline(transaction=False)
        names = ("stream", "trade_id", "ts_event", "ts_recv", "side", "price", "qty")
        columns = [rows[name].tolist() for name in names]
        for slot, number, event_ns, recv_ns, side, price, qty in zip(*columns, strict=True):
            fields = {
                "id": number, "time": event_ns, "recv": recv_ns,
                "side": "buy" if side == Side.BUY else "sell", "price": price, "qty": qty,
            }  # fmt: skip
            pipeline.xadd(f"fts:trades:bench:S{slot}", fields, maxlen=10_000, approximate=True)
        replies = await pipeline.execute()
        assert len(replies) == len(rows)

    async def close(self) -> None:
        """Let go of the server."""
        await self._redis.aclose()

    @staticmethod
    def trades(fields: dict[bytes, bytes]) -> list[tuple[int, float, float]]:
        """Of an entry."""
        return [(int(fields[b"id"]), float(fields[b"price"]), float(fields[b"qty"]))]


WAYS: Final[dict[str, type[Ours] | type[Pipeline]]] = {
    "ours": Ours,
    "redis-py, an XADD a trade": Pipeline,
}


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """A private server."""
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as folder:
        server = PrivateValkey(Path(folder), "bench")
        try:
            yield server.start()
        finally:
            server.stop()


async def measure(url: str, way: Ours | Pipeline, size: int, times: int) -> list[Took]:
    """Some rounds; what the last has put there is looked at."""
    rows, took = trades(size), []
    await way.open()
    async with redis.asyncio.from_url(url) as server:
        pid = (await server.info("server"))["process_id"]

        async def flushes() -> None:
            for _ in range(times):
                await way.flush(rows)

        for _ in range(ROUNDS):
            for slot in range(STREAMS):
                await server.delete(f"fts:trades:bench:S{slot}")
            took.append(await metered(flushes, pid))
        assert await _found(server, way) == _expected(rows, times)
        await server.flushdb()
    await way.close()
    return took


async def _found(server: Any, way: Ours | Pipeline) -> Found:
    found: Found = Counter()
    for slot in range(STREAMS):
        for _, fields in await server.xrange(f"fts:trades:bench:S{slot}"):
            found.update((f"S{slot}", *trade) for trade in way.trades(fields))
    return found


def _expected(rows: RecordArray, times: int) -> Found:
    names = ("stream", "trade_id", "price", "qty")
    columns = [rows[name].tolist() for name in names]
    return Counter({(f"S{slot}", *said): times for slot, *said in zip(*columns, strict=True)})


@pytest.mark.parametrize("flush", FLUSHES)
@pytest.mark.parametrize("name", WAYS)
def test_redis(
    benchmark: BenchmarkFixture, figure: Figure, valkey: str, name: str, flush: str, tmp_path: Path
) -> None:
    size, times = FLUSHES[flush]
    benchmark.group = f"publish a trade in Redis, {flush}"
    way: Callable[[str, Path], Ours | Pipeline] = WAYS[name]
    took = uvloop.run(measure(valkey, way(valkey, tmp_path), size, times))
    figure([each.cpu_s for each in took])
    benchmark.extra_info.update(items=size * times, **min(took).told(size * times, "row"))
