"""The database sink when processes die, servers restart and locks are held: still exactly once."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import uvloop

from engine.base.clock import monotonic_s
from engine.base.errors import DatabaseUnavailableError, EngineError
from engine.data.kinds import TRADE
from engine.data.layout import Layout, SourceKey
from engine.data.slots import Slots
from engine.servers.postgres import PrivatePostgres
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.conftest import crash
from tests.engine.writer.conftest import MakeSettings, MakeTrades, claim
from tests.engine.writer.sinks.postgres.sink_process import RING, numbered_trades, store

_PROGRAM = Path(__file__).with_name("sink_process.py")
_ROOT = Path(__file__).parents[5]


@contextmanager
def _writer(layout: Layout, url: str, *arguments: object) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, str(_PROGRAM), str(layout.state_dir), url, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _assert_exactly_once(url: str, row_count: int) -> None:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(*), count(DISTINCT trade_id), min(trade_id), max(trade_id) FROM trade"
        ).fetchone()
        cursor = connection.execute("SELECT sequence FROM ingest_cursor").fetchone()
    assert found == (row_count, row_count, 0, row_count - 1)
    assert cursor == (row_count,)


@pytest.mark.fault("W01")
def test_a_writer_killed_at_any_instant_stores_every_row_once(
    layout: Layout, slots: Slots, database_url: str
) -> None:
    row_count, kills = 500_000, 0
    chance = random.Random(20261122)
    for _ in range(15):
        with _writer(layout, database_url, row_count, 5_000, 0) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            try:
                process.wait(chance.uniform(0.02, 0.25))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
    else:
        with _writer(layout, database_url, row_count, 5_000, 0) as process:
            process.wait(60)
    assert kills > 0
    _assert_exactly_once(database_url, row_count)


def _wait_for_commit_under_way(connection: "psycopg.Connection[tuple[int]]") -> bool:
    """Whether a COMMIT of rows was seen waiting. Streams and partitions are committed before."""
    deadline = monotonic_s() + 5
    while monotonic_s() < deadline:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid) "
            "WHERE datname = current_database() AND application_name LIKE 'fts-writer-%' "
            "AND query ILIKE 'COMMIT%' AND state = 'active' "
            "AND relation = 'trade'::regclass AND mode = 'RowExclusiveLock'"
        ).fetchone()
        if found and found[0]:
            return True
    return False


@pytest.mark.fault("W02")
def test_a_successor_waits_for_the_commit_of_a_killed_writer(
    layout: Layout, slots: Slots, database_url: str, make_settings: MakeSettings
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as connection:
        for setting in ("commit_delay = 60000", "commit_siblings = 0"):
            connection.execute(f"ALTER DATABASE {name} SET {setting}".encode())
        seen = 0
        for step in range(1, 9):
            with _writer(layout, database_url, 10_000_000, 2_000, 1) as process:
                assert process.stdout is not None
                process.stdout.readline()
                seen += _wait_for_commit_under_way(connection)
                process.send_signal(signal.SIGKILL)
                # At once: the COMMIT is still under way in the server.
                sink = PostgresSink(make_settings(database_url=database_url), slots)
                uvloop.run(_finish(sink, step * 100_000))
        assert seen == 8
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT sequence FROM ingest_cursor").fetchone()
        assert row is not None
    _assert_exactly_once(database_url, row[0])


async def _finish(sink: PostgresSink, row_count: int) -> None:
    """Store what is missing up to `row_count`, in one go."""
    await store(sink, row_count, 50_000, durable=False)
    await sink.close()


@pytest.mark.fault("P01")
@pytest.mark.parametrize("way", ["fast", "immediate"])
def test_a_server_that_restarts_under_load_loses_and_doubles_nothing(
    postgres: PrivatePostgres,
    database_url: str,
    slots: Slots,
    make_settings: MakeSettings,
    way: str,
) -> None:
    row_count = 300_000
    restarts = 0

    async def main() -> int:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        failures = 0
        while True:
            try:
                # Durable: this test has no journal to send again what a crash takes back.
                await store(sink, row_count, 2_000, durable=True)
                await sink.close()
                return failures
            except EngineError as error:
                assert error.retriable
                failures += 1
                await asyncio.sleep(0.02)

    outcome: list[int] = []
    thread = threading.Thread(target=lambda: outcome.append(uvloop.run(main())))
    thread.start()
    while thread.is_alive() and restarts < 3:
        time.sleep(0.3)
        postgres.stop() if way == "fast" else crash(postgres)
        postgres.start()
        restarts += 1
    thread.join()
    assert outcome[0] > 0
    _assert_exactly_once(database_url, row_count)


@pytest.mark.fault("P02")
def test_a_killed_backend_is_survived(
    database_url: str, slots: Slots, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await store(sink, 1000, 1000, durable=False)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(backend_pid) FROM ingest_cursor")
        with pytest.raises(DatabaseUnavailableError):
            await sink.take(Batch([_numbered(1000, 10)]), durable=False)
        await store(sink, 2000, 1000, durable=False)
        await sink.close()

    uvloop.run(main())
    _assert_exactly_once(database_url, 2000)


def test_a_predecessor_that_hangs_on_to_its_cursor_is_ended(
    database_url: str, slots: Slots, make_settings: MakeSettings
) -> None:
    async def main() -> None:
        settings = make_settings(database_url=database_url)
        sink = PostgresSink(settings, slots)
        await store(sink, 10, 10, durable=False)
        name = f"fts-writer-{settings.paths.instance}"
        stuck = psycopg.connect(database_url, application_name=name)
        stuck.execute("UPDATE ingest_cursor SET backend_pid = pg_backend_pid()")
        stuck.commit()
        stuck.execute("UPDATE ingest_cursor SET sequence = sequence + 1000")
        assert await claim(sink, RING, 1, 0) == 10  # after the lock timeout
        with pytest.raises(psycopg.OperationalError):
            stuck.execute("SELECT 1")
        stuck.close()
        await sink.close()

    uvloop.run(main())


def test_a_locked_table_is_a_matter_of_time(
    database_url: str, slots: Slots, make_settings: MakeSettings
) -> None:
    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await store(sink, 10, 10, durable=False)
        with psycopg.connect(database_url) as connection:
            connection.execute("LOCK TABLE trade")
            with pytest.raises(DatabaseUnavailableError, match="55P03"):
                await sink.take(Batch([_numbered(10, 10)]), durable=False)
        await store(sink, 20, 10, durable=False)
        await sink.close()

    uvloop.run(main())
    _assert_exactly_once(database_url, 20)


def test_cancelling_anywhere_leaves_nothing_half_done(
    database_url: str, slots: Slots, make_settings: MakeSettings
) -> None:
    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await store(sink, 10, 10, durable=False)
        for turns in range(0, 60, 3):
            task = asyncio.create_task(store(sink, 400_000, 5_000, durable=False))
            await asyncio.sleep(turns / 1000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store(sink, 400_000, 50_000, durable=False)
        await sink.close()

    uvloop.run(main())
    _assert_exactly_once(database_url, 400_000)


_REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'refused' USING ERRCODE = (SELECT state FROM refusal);
    END $$;
    CREATE TABLE refusal AS SELECT '00000'::text AS state;
    CREATE TRIGGER refuse BEFORE INSERT ON trade FOR EACH ROW
    WHEN (NEW.trade_id % 100 = 7) EXECUTE FUNCTION refuse();
"""
_OF_THE_SERVER = (
    *("53000", "53100", "53200", "53300", "57P01", "57P02", "57P03", "57014", "40001", "40P01"),
    *("25006", "25P03", "55P03", "55006", "58030", "58P01", "08006", "28000", "42501", "42P01"),
    *("42703", "3F000", "XX001", "XX002", "72000"),
)


@pytest.mark.fault("P06")
def test_no_row_is_blamed_for_the_state_of_the_server(
    database_url: str, layout: Layout, slots: Slots, make_settings: MakeSettings
) -> None:
    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(_REFUSE)
            for state in _OF_THE_SERVER:
                connection.execute("UPDATE refusal SET state = %s", (state,))
                with pytest.raises(DatabaseUnavailableError, match=state):
                    await store(sink, 1000, 1000, durable=False)
            connection.execute("DROP TRIGGER refuse ON trade")
            name = database_url.partition("?")[0].rpartition("/")[2]
            read_only = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
            connection.execute(read_only.encode())
            with pytest.raises(DatabaseUnavailableError, match="25006"):
                await store(sink, 1000, 1000, durable=False)
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(read_only.replace("= on", "= off").encode())
        await store(sink, 1000, 100, durable=False)
        await sink.close()

    uvloop.run(main())
    _assert_exactly_once(database_url, 1000)
    assert not layout.quarantine_dir.exists()


@pytest.mark.fault("P07")
def test_errors_tell_no_password(slots: Slots, make_settings: MakeSettings) -> None:
    async def main() -> None:
        url = "postgresql://fts:hunter2@127.0.0.1:1/fts?connect_timeout=2"
        sink = PostgresSink(make_settings(database_url=url), slots)
        with pytest.raises(DatabaseUnavailableError) as caught:
            await sink.open({})
        assert "hunter2" not in str(caught.value)
        with pytest.raises(DatabaseUnavailableError, match="not connected"):
            await claim(sink, RING, 1, 0)

    uvloop.run(main())


def _numbered(seq: int, count: int) -> Slice:
    return Slice.whole(SourceKey(RING, 1), TRADE, seq, numbered_trades(seq, count))
