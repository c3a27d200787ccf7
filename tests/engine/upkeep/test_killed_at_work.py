"""The real process and its server, killed where a day is half gone: nothing lost, nothing twice.

One that is killed while it indexes a day is in `test_upkeep_process.py`, an export by itself in
`lake`, and many tasks at many instants in `tests/flow/test_thirty_days.py`.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from engine.base.clock import DAY_NS, wall_ns
from engine.data.layout import Layout
from engine.messages.settings import LogSettings, Paths
from engine.messages.upkeep import DatabaseUpkeep, UpkeepSettings
from engine.process.child import Child
from engine.servers.postgres import PrivatePostgres
from engine.start.migrations import migrate
from tests.columnar import columnar_server
from tests.engine.upkeep.database_rig import moment, open_reading, partition_name, put_trades
from tests.engine.upkeep.lake.lake_rig import bring_back, problems
from tests.stores import execute, select
from tests.waiting import until, wait_for

pytestmark = pytest.mark.whole

OLD = wall_ns() // DAY_NS - 40
COUNT = 5_000
SUMS = "SELECT count(*), count(DISTINCT trade_id), sum(trade_id), min(time), max(time) FROM trade"


def at_work(
    layout: Layout, url: str, lake: Path, scenario: Callable[[Child], Awaitable[object]]
) -> None:
    """A process that archives and drops what is older than 30 days, until the scenario is over;
    then it is killed.
    """

    async def main() -> None:
        wanted = DatabaseUpkeep(
            "database", url, keep={"trade": "30d"}, archive="parquet", archive_to=str(lake)
        )
        log = LogSettings(str(layout.log_file), to_stderr=False)
        settings = UpkeepSettings(Paths.of(layout), log, [wanted], status_interval_s=3600)
        child = await Child.spawn("upkeep", "engine.upkeep.main:run", settings)
        try:
            await scenario(child)
        finally:
            child.kill()
            await child.end(10)

    asyncio.run(main())


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Nobody reads it meanwhile."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table}".encode())
        yield


@pytest.mark.usefixtures("postgres")
class TestPartitions:
    """A day that is to be archived and dropped."""

    @pytest.fixture
    def old_day(self, database_url: str) -> str:
        """Its URL."""
        execute(
            database_url,
            "INSERT INTO instrument VALUES (1, 'acme', 'BTC', 1, 'BTC', 'USD', 2, 3, 0.01, 0.001,"
            " 0.1, 0.001, 1, 'on', '2024-01-01')",
            "INSERT INTO stream VALUES (1, 1, 'Trades', 'Ws')",
            f"SELECT make_day('trade', '{moment(OLD).date()}')",
        )
        with psycopg.connect(database_url) as connection:
            put_trades(connection, OLD, COUNT)
        return database_url

    @pytest.mark.parametrize("is_detaching", [False, True])
    def test_killed_as_it_archives_and_as_it_detaches(
        self,
        old_day: str,
        other_database_url: str,
        layout: Layout,
        tmp_path: Path,
        is_detaching: bool,
    ) -> None:
        before, lake = select(old_day, SUMS), tmp_path / "lake"
        pending = "SELECT FROM pg_inherits WHERE inhdetachpending"

        async def half_done(_: Child) -> None:
            with ExitStack() as trades, locked(old_day, "coverage"):
                # The rows are in the lake, and what goes beside them is not.
                await until(lambda: list(lake.glob("_manifest/kind=trade/**/*.json")))
                if not is_detaching:
                    return
                trades.enter_context(open_reading(old_day, "trade"))
                half_detached.enter_context(trades.pop_all())
            await until(lambda: select(old_day, pending))

        async def done(_: Child) -> None:
            await until(lambda: select(old_day, "SELECT to_regclass(%s)", [name]) == [(None,)])

        name = partition_name("trade", OLD)
        with ExitStack() as half_detached:
            at_work(layout, old_day, lake, half_done)
            assert len(select(old_day, pending)) == is_detaching
            assert select(old_day, f"SELECT count(*) FROM {name}") == [(COUNT,)]
        at_work(layout, old_day, lake, done)
        assert select(old_day, "SELECT count(*) FROM trade") == [(0,)]
        assert problems(lake) == []
        assert [path for path in lake.rglob("*") if path.name.endswith(".tmp")] == []
        bring_back(other_database_url, lake)
        assert select(other_database_url, SUMS) == before


@pytest.fixture(scope="module")
def columnar(server_dir: Path) -> Iterator[PrivatePostgres]:
    """A server with TimescaleDB that the test may kill."""
    server = columnar_server(server_dir, "columnar", "none was killed while it compresses")
    migrate(server.start())
    yield server
    server.stop()


def test_a_server_is_killed_while_it_compresses(columnar: PrivatePostgres) -> None:
    url = columnar.start()
    execute(
        url,
        "SELECT _timescaledb_functions.stop_background_workers()",
        "ALTER TABLE trade SET (timescaledb.enable_columnstore,"
        " timescaledb.segmentby = 'stream_id', timescaledb.orderby = 'time, trade_id')",
    )
    with psycopg.connect(url) as connection:
        put_trades(connection, OLD, COUNT)
    before = select(url, SUMS)
    ((chunk,),) = select(url, "SELECT show_chunks('trade')::text")
    compress = f"CALL convert_to_columnstore('{chunk}')"
    state = "SELECT is_compressed FROM timescaledb_information.chunks"
    waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = %s"

    def compress_in_vain() -> None:
        with suppress(psycopg.OperationalError):
            execute(url, compress)

    # It waits for the reader with all rows in columns, and none taken out of the chunk yet.
    with suppress(psycopg.OperationalError), open_reading(url, chunk):
        working = threading.Thread(target=compress_in_vain)
        working.start()
        wait_for(lambda: select(url, waits, [compress]))
        assert columnar.pid is not None
        os.kill(columnar.pid, signal.SIGKILL)
        working.join()
    columnar.stop()
    columnar.start()
    assert (select(url, SUMS), select(url, state)) == (before, [(False,)])
    execute(url, compress)
    assert (select(url, SUMS), select(url, state)) == (before, [(True,)])
