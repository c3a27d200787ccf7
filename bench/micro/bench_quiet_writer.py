"""What does a wake-up of the writer cost that brings few rows? No server is involved.

A quiet engine has hundreds of these a second, each with a handful of rows of ten streams: what is
paid for each wake-up, source and stream counts there, and not what a row costs.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hiredis
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.rig import Rig, Taking, trades
from engine.base.redis_link import Command
from engine.data.kinds import TRADE
from engine.data.layout import SourceKey, open_layout
from engine.writer.every_row import EveryRow
from engine.writer.live import Live
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.redis.sink import RedisSink
from engine.writer.sinks.sink import Promise

pytestmark = pytest.mark.benchmark(group="a wake-up of a quiet writer", timer=time.thread_time)


class Answering:
    """A Redis that does as it is told, at once. What is sent is packed."""

    is_closed = False

    async def ask(self, commands: Sequence[Command], deadline_s: float) -> list[Any]:
        del deadline_s
        packed: Any = b"".join(hiredis.pack_command(each) for each in commands)  # type: ignore[arg-type]
        assert packed
        ends = next((each[2:] for each in commands if each[0] == "HSET"), ())
        count = len(commands) - 4
        outcomes = [b"1-0"] * (count - bool(ends)) + [1] * bool(ends)
        values = [str(value).encode() for value in ends[1::2]]
        return [b"OK", *[b"QUEUED"] * count, outcomes, b"OK", values]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A state directory of its own."""
    rig = Rig(open_layout(tmp_path / "state", tmp_path / "shm"), capacity=1 << 15)
    yield rig
    rig.close()


def turns(benchmark: BenchmarkFixture, act: Callable[[], Any], prepare: Callable[[], Any]) -> None:
    """Each on rows that have just come."""

    def setup() -> None:
        prepare()

    benchmark.pedantic(act, setup=setup, rounds=300, warmup_rounds=20)


def test_pump_of_empty_rings(benchmark: BenchmarkFixture, rig: Rig) -> None:
    rig.put(trades(50))
    rig.pump()
    turns(benchmark, rig.pump, rig.let_go)


@pytest.mark.parametrize("count", [4, 50])
def test_pump(benchmark: BenchmarkFixture, rig: Rig, count: int) -> None:
    rows = trades(count)
    turns(benchmark, rig.pump, lambda: rig.renew(rows))


@pytest.mark.parametrize("count", [4, 50])
def test_redis_take(benchmark: BenchmarkFixture, rig: Rig, count: int) -> None:
    sink = RedisSink(rig.settings, rig.slots)
    sink._link = Answering()  # type: ignore[assignment]
    batch = Batch([Slice.whole(SourceKey("bench.trade", 1), TRADE, 0, trades(count))])

    def take() -> None:
        waiting = sink.take(batch, durable=False)
        try:
            waiting.send(None)
        except StopIteration as end:
            assert end.value.rows[TRADE.name] == count
        else:
            raise AssertionError("it waits for something")

    turns(benchmark, take, lambda: None)


@pytest.mark.parametrize("count", [4, 50])
@pytest.mark.parametrize("promise", list(Promise))
def test_consumer(benchmark: BenchmarkFixture, rig: Rig, promise: Promise, count: int) -> None:
    """All but what the sink does: choose the rows, and account for them."""
    knobs, sink = KnobTable(rig.settings), Taking(promise)
    made = Live if promise is Promise.LIVE else EveryRow
    consumer: Live | EveryRow = made(rig.sources, sink, knobs)
    rig.claim(consumer)
    rows = trades(count)

    def flush() -> None:
        parts = consumer._slices() if isinstance(consumer, Live) else consumer._parts()
        rig.taken(consumer, parts)

    turns(benchmark, flush, lambda: rig.renew(rows, pumped=True))
    assert consumer.rows[TRADE.name] == 320 * count
