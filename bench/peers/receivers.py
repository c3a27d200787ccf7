"""Who reads a socket of trades, each in a process of its own that says what it took:

    python -m bench.peers.receivers ours ws://127.0.0.1:8765/ws 20000

All run on uvloop. CPU time counts from the handshake to the last message.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import uvloop

from bench.decoding import TS_RECV, Lane
from bench.peers.decoders import Cryptofeed
from bench.peers.frames import MARKET, said_by
from bench.peers.others import installed
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.names import StreamKind
from shards.transport.socket import Socket, connect
from shards.venues import VENUES
from shards.venues.kit import FrameDecoder

_KEPT_ROWS: Final = 2048
"""Rows that stay in the ring before they are taken out; it holds four times as many."""


class Result(msgspec.Struct):
    """Of a receiver. The sums say whether it has all trades, as the venue said them."""

    cpu_s: float
    wall_s: float
    count: int
    price_sum: str
    qty_sum: str

    def is_right(self) -> bool:
        """Whether these are the first trades that a sender sends."""
        said = [said_by(number) for number in range(1, self.count + 1)]
        sums = sum(each.price for each in said), sum(each.qty for each in said)
        return (Decimal(self.price_sum), Decimal(self.qty_sum)) == sums


class Meter:
    """Runs since it was made."""

    def __init__(self) -> None:
        self._cpu_s, self._began_s = time.process_time(), time.perf_counter()

    def result(self, prices: list[Any], qtys: list[Any]) -> Result:
        """All have been received, and then added up for nothing."""
        cpu_s = time.process_time() - self._cpu_s
        wall_s = time.perf_counter() - self._began_s
        sums = [str(sum(Decimal(str(each)) for each in values)) for values in (prices, qtys)]
        return Result(cpu_s, wall_s, len(prices), *sums)


class ShardSocket:
    """The socket, decoder, feed and ring of a shard. `done` is set when `count` rows are there."""

    def __init__(self, count: int) -> None:
        self._lane = Lane(MARKET, StreamKind.TRADES, 1)
        self._ring = self._lane.feed.ring
        self._reader = self._lane.rings.readers[TRADE.name]
        self._taken_seq, self._count = 0, count
        self.done = asyncio.Event()

    async def connect(self, url: str) -> Socket:
        """Begin to receive."""
        group = next(iter(VENUES[MARKET.venue].groups.values()))
        return await connect(url, group, self, self._publish)

    def opened(self, socket: Socket) -> FrameDecoder:
        """Its owner is told."""
        del socket
        return self._lane.decode

    def bad_frame(self, error: Exception, payload: bytes) -> None:
        """There are none here."""
        raise AssertionError((error, payload))

    def _publish(self) -> None:
        self._ring.publish()
        if self._ring.next_seq >= self._count:
            self.done.set()

    @property
    def waiting(self) -> int:
        """Rows that nobody has taken out."""
        return self._ring.next_seq - self._taken_seq

    def take(self) -> RecordArray:
        """A copy of what waits, which leaves the ring."""
        found = [np.zeros(0, TRADE.dtype)]
        while self._taken_seq < self._reader.head:
            found.append(self._reader.poll(self._taken_seq).copy())
            self._taken_seq += len(found[-1])
        self._reader.release(self._taken_seq)
        return np.concatenate(found)


class _Emptied(ShardSocket):
    """Without a writer."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.rows: list[RecordArray] = []

    def _publish(self) -> None:
        super()._publish()
        if self.waiting >= _KEPT_ROWS:
            self.rows.append(self.take())


async def ours(url: str, count: int) -> Result:
    """A shard's."""
    shard = _Emptied(count)
    socket = await shard.connect(url)
    meter = Meter()
    await shard.done.wait()
    rows = np.concatenate([*shard.rows, shard.take()])
    result = meter.result(rows["price"].tolist(), rows["qty"].tolist())
    await socket.end()
    return result


def plain(parser: str) -> Callable[[str, int], Awaitable[Result]]:
    """The library websockets, and dicts of floats."""

    async def receive(url: str, count: int) -> Result:
        loads = installed(parser).loads
        async with installed("websockets").connect(url, compression=None) as socket:
            trades: list[dict[str, Any]] = []
            meter = Meter()
            async for text in socket:
                said = loads(text)
                trade = {"id": said["a"], "price": float(said["p"]), "qty": float(said["q"])}
                trades.append({**trade, "time": said["T"], "recv": time.perf_counter_ns()})
                if len(trades) == count:
                    break
            return meter.result([t["price"] for t in trades], [t["qty"] for t in trades])

    return receive


async def cryptofeed(url: str, count: int) -> Result:
    """What it does: websockets, and its handler. Its envelope is put around what has come."""
    feed = Cryptofeed(StreamKind.TRADES)
    async with installed("websockets").connect(url, compression=None) as socket:
        meter = Meter()
        async for text in socket:
            message = f'{{"stream":"btcusdt@aggTrade","data":{text}}}'
            await feed.handle(message, None, TS_RECV / 1e9)
            if len(feed.found) == count:
                break
        return meter.result([t.price for t in feed.found], [t.amount for t in feed.found])


RECEIVERS: Final[dict[str, Callable[[str, int], Awaitable[Result]]]] = {
    "ours": ours,
    "websockets, orjson": plain("orjson"),
    "websockets, json": plain("json"),
    "websockets, cryptofeed": cryptofeed,
}


async def receive(name: str, url: str, count: int) -> Result:
    """With one of them."""
    return await RECEIVERS[name](url, count)


if __name__ == "__main__":
    result = uvloop.run(receive(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    print(json.dumps(msgspec.to_builtins(result)))
