"""What every sink owes its consumer, whatever it is. A sink's own tests subclass this, with a rig.

Rows are trades whose ids are their sequences, so that a list of ids says what is there.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import uvloop

from engine.base.errors import EngineError, FencedError
from engine.data.kind import RecordArray
from engine.data.kinds import GAP, TRADE
from engine.data.layout import SourceKey
from engine.writer.rows.slice import Batch, Loss, Slice
from engine.writer.rows.withheld import WithheldSpan
from engine.writer.sinks.sink import Promise, Sink
from tests.engine.writer.conftest import MakeTrades

KEY = SourceKey("here/shard-0.trade", 7)
UNKNOWN_SLOT = 4711
STEPS = 40
"""Turns of the loop after which a writer is killed, from 0 on."""


class SinkRig(ABC):
    """A place to bring rows to, and ways to break it."""

    @abstractmethod
    def make(self) -> Sink:
        """Another writer's sink, to the same place."""

    @abstractmethod
    def ids(self) -> list[int]:
        """Of the trades that are there, in order."""

    @abstractmethod
    def go_away(self) -> None:
        """Take the place away: whoever uses it fails."""

    @abstractmethod
    def come_back(self) -> None:
        """Put it back as it was."""

    @abstractmethod
    def save(self) -> None:
        """Make a backup."""

    @abstractmethod
    def restore(self) -> None:
        """Set the place back to the backup."""


def run(body: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own."""
    uvloop.run(body)


async def begin(sink: Sink) -> int:
    """A session; returned is where it goes on."""
    await sink.open({})
    cursors = await sink.cursors({KEY: 0})
    await sink.tend()
    return cursors[KEY].seq or 0


class SinkSuite:
    """Tests of any sink; `rig` and `trades` are fixtures."""

    promise: ClassVar[Promise]

    @pytest.fixture(autouse=True)
    def _rows(self, trades: MakeTrades) -> Iterator[None]:
        self.trades = trades
        yield

    def rows(self, start: int, stop: int) -> RecordArray:
        return self.trades(stop - start, first_id=start)

    def part(self, start: int, stop: int) -> Slice:
        return Slice.whole(KEY, TRADE, start, self.rows(start, stop))

    async def end(self, *sinks: Sink) -> None:
        for sink in sinks:
            await sink.close()

    def test_it_goes_on_where_it_was(self, rig: SinkRig) -> None:
        async def body() -> None:
            first, second = rig.make(), rig.make()
            assert await begin(first) == 0
            taken = await first.take(Batch([self.part(0, 40)]), durable=False)
            assert taken.rows == {"trade": 40}
            assert not taken.refused
            await first.take(Batch([self.part(40, 50), self.part(50, 60)]), durable=True)
            await first.close()
            assert await begin(second) == 60
            await self.end(second)

        run(body())
        assert rig.ids() == list(range(60))

    def test_an_outage_loses_and_doubles_nothing(self, rig: SinkRig) -> None:
        async def body() -> None:
            sink = rig.make()
            await begin(sink)
            await sink.take(Batch([self.part(0, 10)]), durable=True)
            await asyncio.to_thread(rig.go_away)
            for _ in range(3):
                with pytest.raises(EngineError) as failed:
                    await sink.take(Batch([self.part(10, 20)]), durable=False)
                assert failed.value.retriable
            await asyncio.to_thread(rig.come_back)
            assert await begin(sink) == 10
            await sink.take(Batch([self.part(10, 20)]), durable=False)
            await self.end(sink)

        run(body())
        assert rig.ids() == list(range(20))

    def test_a_writer_that_was_overtaken_is_stopped(self, rig: SinkRig) -> None:
        async def body() -> None:
            old, new = rig.make(), rig.make()
            await begin(old)
            await old.take(Batch([self.part(0, 10)]), durable=False)
            assert await begin(new) == 10
            await new.take(Batch([self.part(10, 30)]), durable=False)
            with pytest.raises(FencedError):
                await old.take(Batch([self.part(10, 20)]), durable=False)
            assert await begin(old) == 30
            await self.end(old, new)

        run(body())
        assert rig.ids() == list(range(30))

    def test_killed_between_any_two_steps_each_row_is_there_once(self, rig: SinkRig) -> None:
        async def body() -> None:
            for steps in range(STEPS):
                sink = rig.make()
                seq = await begin(sink)
                task = asyncio.create_task(
                    sink.take(Batch([self.part(seq, seq + 10)]), durable=steps % 2 == 0)
                )
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await sink.close()
            last = rig.make()
            self.reached = await begin(last)
            await self.end(last)

        run(body())
        assert rig.ids() == list(range(self.reached))

    def test_a_restored_backup_is_filled_from_its_own_cursor(self, rig: SinkRig) -> None:
        async def body() -> None:
            sink = rig.make()
            await begin(sink)
            await sink.take(Batch([self.part(0, 10)]), durable=True)
            await asyncio.to_thread(rig.save)
            await sink.take(Batch([self.part(10, 30)]), durable=True)
            await sink.close()
            await asyncio.to_thread(rig.restore)
            again = rig.make()
            assert await begin(again) == 10
            await again.take(Batch([self.part(10, 30)]), durable=True)
            await self.end(again)

        run(body())
        assert rig.ids() == list(range(30))

    def test_a_row_that_it_refuses_keeps_nothing_else_from_it(self, rig: SinkRig) -> None:
        async def body() -> None:
            sink = rig.make()
            await begin(sink)
            rows = self.rows(0, 20)
            rows["stream"][3] = UNKNOWN_SLOT
            taken = await sink.take(Batch([Slice.whole(KEY, TRADE, 0, rows)]), durable=False)
            assert (taken.rows, taken.refused) == ({"trade": 19}, {"trade": 1})
            assert await begin(sink) == 20
            await self.end(sink)

        run(body())
        assert rig.ids() == [each for each in range(20) if each != 3]

    def test_what_a_knob_withholds_is_passed(self, rig: SinkRig) -> None:
        async def body() -> None:
            sink = rig.make()
            await begin(sink)
            part = self.part(0, 20)
            kept = part.keeping(part.records["stream"] != 2)
            span = WithheldSpan(2, 5, 1, 2, kept.withheld_count)
            spans = [span] if self.promise is Promise.EVERY_ROW else []
            await sink.take(Batch([kept], withheld=spans), durable=False)
            assert await begin(sink) == 20
            await self.end(sink)

        run(body())
        assert rig.ids() == [each for each in range(20) if each % 4 != 2]

    def test_what_is_lost_is_passed(self, rig: SinkRig) -> None:
        if self.promise is Promise.LIVE:
            pytest.skip("it is told of rows that are there, and counts the others as missed")

        async def body() -> None:
            sink = rig.make()
            await begin(sink)
            gaps = np.zeros(1, GAP.dtype)
            gaps["ts_event"] = gaps["ts_recv"] = 1
            lost = Loss(KEY, TRADE.name, 0, 10, gaps)
            taken = await sink.take(Batch([lost, self.part(10, 20)]), durable=False)
            assert +taken.rows == {"trade": 10}, "a declaration is no row of a ring"
            assert await begin(sink) == 20
            assert (await sink.cursors({KEY: 0}))[KEY].last_recv_ns == self.rows(19, 20)["ts_recv"]
            await self.end(sink)

        run(body())
        assert rig.ids() == list(range(10, 20))

    def test_to_make_sure_of_what_is_there_needs_no_rows(self, rig: SinkRig) -> None:
        async def body() -> None:
            sink = rig.make()
            await begin(sink)
            await sink.take(Batch([self.part(0, 5)]), durable=False)
            await sink.take(Batch(), durable=True)
            assert await begin(sink) == 5
            await self.end(sink)

        run(body())
        assert rig.ids() == list(range(5))
