"""A sink of one file keeps what is asked of all, and a whole writer's consumer works with it."""

import shutil
from pathlib import Path

import pytest
import uvloop

from engine.data.kinds import TRADE
from engine.data.layout import Layout
from engine.writer.every_row import EveryRow
from engine.writer.rows.knob_table import KnobTable
from engine.writer.sinks.sink import Promise, Sink
from engine.writer.sources.source import Readers
from tests.engine.writer.bench import Bench, run
from tests.engine.writer.conftest import MakeSettings, MakeTrades
from tests.engine.writer.sinks.suite import SinkRig, SinkSuite
from tests.toys.sink import ToySink, lines
from tests.waiting import until


class FileRig(SinkRig):
    """A file in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path, self._away = folder / "here" / "toy.jsonl", folder / "away"
        self._backup = folder / "backup"
        self.path.parent.mkdir()

    def make(self) -> Sink:
        return ToySink(self.path)

    def ids(self) -> list[int]:
        found = [each for each in lines(self.path.read_bytes()) if each.kind == TRADE.name]
        return [each for line in found for each in line.ids]

    def go_away(self) -> None:
        self.path.parent.rename(self._away)

    def come_back(self) -> None:
        self._away.rename(self.path.parent)

    def save(self) -> None:
        shutil.copy(self.path, self._backup)

    def restore(self) -> None:
        shutil.copy(self._backup, self.path)


@pytest.fixture
def rig(tmp_path: Path) -> FileRig:
    """The place to bring rows to."""
    return FileRig(tmp_path)


class TestToy(SinkSuite):
    """All of it."""

    promise = Promise.EVERY_ROW

    def test_half_a_line_is_nothing(self, rig: FileRig) -> None:
        rig.path.write_bytes(b'{"ring": "here/shard-0.tr')
        uvloop.run(ToySink(rig.path).open({}))
        assert rig.path.read_bytes() == b""


def test_every_row_gets_there_through_outages_and_successors(
    layout: Layout, rig: FileRig, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    bench = Bench(layout, TRADE, readers=Readers(every_row=("toy",)))
    settings = make_settings(flush_interval_s=0.001)
    try:
        for number in range(3):
            consumer = EveryRow(bench.sources, rig.make(), KnobTable(settings))

            async def body(consumer: EveryRow = consumer, number: int = number) -> None:
                bench.put(trades(50, first_id=100 * number))
                await until(lambda: consumer.rows["trade"] >= 50)
                rig.go_away()
                bench.put(trades(50, first_id=100 * number + 50))
                await until(lambda: consumer.trouble.state == "down")
                rig.come_back()
                if number == 2:  # the others leave it to their successor
                    await consumer.finish()

            run(consumer, body)
    finally:
        bench.close()
    assert rig.ids() == list(range(300))
