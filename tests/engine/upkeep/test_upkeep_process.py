"""The real process: what it does by itself, killed at work, asked to leave at work."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from engine.base.clock import DAY_NS, monotonic_s, wall_ns
from engine.data.layout import Layout
from engine.messages.pipes import Drain, Ready
from engine.messages.settings import LogSettings, Paths
from engine.messages.upkeep import DatabaseUpkeep, PauseUpkeep, UpkeepSettings, UpkeepStatus
from engine.process.child import Child
from engine.upkeep.tasks import TASKS
from tests.engine.upkeep.database_rig import open_writing, partition_name
from tests.waiting import until

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("postgres")]

CLOSED = wall_ns() // DAY_NS - 2
INDEX = f"{partition_name('trade', CLOSED)}_stream_time"


class Process:
    """A running upkeep, and what it said last."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.said: UpkeepStatus | None = None

    async def listen(self) -> None:
        while (message := await self.child.pipe.receive()) is not None:
            assert isinstance(message, Ready | UpkeepStatus)
            if isinstance(message, UpkeepStatus):
                self.said = message

    def did(self) -> dict[str, str]:
        if self.said is None:
            return {}
        done = [task for each in self.said.databases for task in each.tasks if task.done_ns]
        return {task.task: task.did for task in done}


def run(
    layout: Layout, url: str, scenario: Callable[[Process], Awaitable[None]], paused: bool = False
) -> None:
    async def main() -> None:
        settings = UpkeepSettings(
            paths=Paths.of(layout),
            log=LogSettings(str(layout.log_file), to_stderr=False),
            databases=[DatabaseUpkeep("database", url, keep={"trade": "30d"})],
            status_interval_s=0.05,
        )
        child = await Child.spawn("upkeep", "engine.upkeep.main:run", settings)
        if paused:
            child.pipe.send(PauseUpkeep("database", True))
        process = Process(child)
        listening = asyncio.create_task(process.listen())
        try:
            await scenario(process)
        finally:
            child.kill()
            await child.end(10)
            await listening

    asyncio.run(main())


def indexes(url: str) -> list[bool]:
    """Whether the index of the day that is over is valid; none: it is not there."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT x.indisvalid FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid"
            " WHERE c.relname = %s",
            (INDEX,),
        )
        return [row[0] for row in found.fetchall()]


def make_closed_day(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            f"CREATE TABLE {partition_name('trade', CLOSED)} PARTITION OF trade FOR VALUES FROM"
            f" (timestamptz 'epoch' + {CLOSED} * interval '1 day')"
            f" TO (timestamptz 'epoch' + {CLOSED + 1} * interval '1 day')".encode()
        )


def test_it_does_all_that_there_is_to_do_and_says_so(layout: Layout, database_url: str) -> None:
    make_closed_day(database_url)

    async def scenario(process: Process) -> None:
        await until(lambda: len(process.did()) == len(TASKS))
        assert process.did()["days_ahead"].startswith("made ")
        assert process.did()["day_index"] == f"indexed {partition_name('trade', CLOSED)}"
        assert process.said is not None
        assert process.said.rss_bytes > 0
        (database,) = process.said.databases
        assert {"trade", "gap"} <= {each.table for each in database.tables}
        assert database.disk_free_bytes
        assert psutil.Process(process.child.pid).nice() == 10
        process.child.pipe.send(Drain(1.0))
        assert await process.child.wait(10) == 0

    run(layout, database_url, scenario)
    assert indexes(database_url) == [True]


def test_it_is_killed_at_work_and_the_next_one_mends_it(layout: Layout, database_url: str) -> None:
    make_closed_day(database_url)

    async def kill_at_work(process: Process) -> None:
        await until(lambda: indexes(database_url) == [False])
        process.child.kill()

    async def mend(process: Process) -> None:
        await until(lambda: indexes(database_url) == [True])

    with open_writing(database_url, partition_name("trade", CLOSED)):
        run(layout, database_url, kill_at_work)
        assert indexes(database_url) == [False]
    run(layout, database_url, mend)


def test_it_leaves_at_once_whatever_it_is_at(layout: Layout, database_url: str) -> None:
    make_closed_day(database_url)

    async def scenario(process: Process) -> None:
        await until(lambda: indexes(database_url) == [False])
        began_s = monotonic_s()
        process.child.pipe.send(Drain(1.0))
        assert await process.child.wait(10) == 0
        assert monotonic_s() - began_s < 5  # it takes 0.3 s; the index would wait for ten minutes

    with open_writing(database_url, partition_name("trade", CLOSED)):
        run(layout, database_url, scenario)
    assert "Traceback" not in Path(layout.log_file).read_text()


def test_it_pauses_while_the_writer_is_behind(layout: Layout, database_url: str) -> None:
    make_closed_day(database_url)

    async def scenario(process: Process) -> None:
        await until(lambda: "days_ahead" in process.did() and "retention" in process.did())
        await until(lambda: process.said is not None and process.said.databases[0].is_paused)
        assert "day_index" not in process.did()
        assert indexes(database_url) == []
        process.child.pipe.send(PauseUpkeep("database", False))
        await until(lambda: indexes(database_url) == [True])

    run(layout, database_url, scenario, paused=True)
