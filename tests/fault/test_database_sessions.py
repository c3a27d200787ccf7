"""Databases as operators make them: odd encodings, hostile roles, pools, servers that hang."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import uvloop

from engine.base.clock import monotonic_s
from engine.base.errors import DatabaseUnavailableError, MigrationError
from engine.data.instrument import Instrument
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import SourceKey
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.database import session
from engine.database.words import unavailable
from engine.messages.listings import StoreListing
from engine.servers.postgres import PrivatePostgres
from engine.start.addresses import Secret
from engine.start.migrations import migrate
from engine.start.schema_keeper import SchemaKeeper
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.listing_store import ListingStore
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.conftest import Databases
from tests.engine.writer.conftest import (
    MakeSettings,
    MakeTrades,
    claim,
    layout,
    make_settings,
    slots,
    trades,
)
from tests.flow.processes import Fts
from tests.flow.rig import Rig, assert_equation
from tests.waiting import until

__all__ = ["layout", "make_settings", "slots", "trades"]

MakeDatabase = Callable[[str], str]
_FAR_NAME = "币安人生USDT"


def database_name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def query(url: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def store_rows(url: str, slots: Slots, make_settings: MakeSettings, rows: MakeTrades) -> int:
    """Forty trades through the writer's sink, ten to a commit; how many it says it stored."""

    async def main() -> int:
        sink, stored = PostgresSink(make_settings(database_url=url), slots), 0
        await sink.open({})
        at = await claim(sink, "shard-0/trade", 1, 0)
        for start in range(at, 40, 10):
            piece = Slice.whole(SourceKey("shard-0/trade", 1), TRADE, start, rows(10, start))
            stored += (await sink.take(Batch([piece]), durable=True)).rows["trade"]
        await sink.close()
        return stored

    return uvloop.run(main())


# -- N14: encodings ------------------------------------------------------------------------------


@pytest.mark.fault("N14")
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "WIN1251", "EUC_JP"])
def test_a_listed_name_outside_the_encoding_stops_nobody(
    make_database: MakeDatabase,
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
    encoding: str,
) -> None:
    url = make_database(f"ENCODING '{encoding}' LOCALE 'C'")
    migrate(url)
    saved: list[int] = []
    listed = [Instrument("acme", name, 2, 3, base=name) for name in ("A", _FAR_NAME, "Z")]

    async def main() -> None:
        listings = ListingStore(
            make_settings(database_url=url), lambda message: saved.append(message.loaded_ns)
        )
        task = asyncio.create_task(listings.run())
        listings.take(StoreListing("acme", listed, [], 1))
        listings.take(StoreListing("acme", listed, [], 2))
        await until(lambda: len(saved) >= 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    uvloop.run(main())
    names = [name for (name,) in query(url, "SELECT symbol FROM instrument ORDER BY 1")]
    escaped = "\\u5e01\\u5b89\\u4eba\\u751fUSDT"
    assert sorted(map(str, names)) == sorted(
        ["A", _FAR_NAME if encoding == "SQL_ASCII" else escaped, "Z"]
    ), "each once: the second listing found them all"
    slot = slots.assign(StreamKey("acme", _FAR_NAME, StreamKind.TRADES)).slot

    def rows(count: int, first_id: int = 0) -> RecordArray:
        made = trades(count, first_id)
        made["stream"][0] = slot
        return made

    assert store_rows(url, slots, make_settings, rows) == 40
    assert query(url, "SELECT count(*), count(DISTINCT symbol) FROM trades") == [(40, 5)]


# -- N15: what a role brings with it -------------------------------------------------------------

_TIMEOUTS = (
    "statement_timeout = '1ms'", "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
)  # fmt: skip


@pytest.mark.fault("N15")
def test_timeouts_of_a_role_stop_no_migration_and_no_row(
    make_database: MakeDatabase,
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    url = make_database("")
    role = f"ALTER ROLE fts IN DATABASE {database_name(url)} SET "
    query(url, ";".join(role + each for each in _TIMEOUTS))  # at once: the next session has them
    assert len(migrate(url)) >= 12
    assert store_rows(url, slots, make_settings, trades) == 40


@pytest.mark.fault("N15")
def test_a_migration_waits_for_a_lock_by_trying_again(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = make_database("")
    query(url, f"ALTER DATABASE {database_name(url)} SET statement_timeout = '10ms'")
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a ()")
    migrate(url, folder=tmp_path)
    (tmp_path / "0002_b.sql").write_text("ALTER TABLE a ADD COLUMN b int")
    said: list[str] = []
    with psycopg.connect(url, options="-c statement_timeout=0") as holder:
        holder.execute("LOCK TABLE a")
        thread = threading.Thread(target=lambda: migrate(url, said.append, tmp_path))
        thread.start()
        while not any("trying again" in text for text in said):
            assert thread.is_alive(), said
            time.sleep(0.05)
    thread.join(30)
    assert said[-1] == "applied 0002_b.sql"
    assert any("another session holds a lock" in text for text in said)


@pytest.mark.fault("N15")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (psycopg.errors.QueryCanceled("canceling statement"), "the database answers and refuses"),
        (psycopg.errors.TooManyConnections("no slots"), "the database answers and refuses"),
        (psycopg.OperationalError("Connection refused"), "the database cannot be reached"),
        (psycopg.OperationalError("FATAL:  role is gone"), "the database answers and refuses"),
    ],
)
def test_only_who_does_not_answer_cannot_be_reached(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(url: str) -> list[str]:
        raise unavailable(error, url)

    async def main() -> str:
        keeper = SchemaKeeper(Secret("postgresql://x@127.0.0.1/x"), refuse)
        await keeper.first_attempt()
        problem = keeper.problem
        await keeper.close()
        return problem

    assert uvloop.run(main()).startswith(told)
    assert told in caplog.text


# -- N16, N17: TimescaleDB where operators put it ------------------------------------------------


def needs_timescale(timescale: Databases | None) -> None:
    if timescale is None:
        pytest.skip("FTS_TEST_TIMESCALE_DSN names no server with TimescaleDB")


@pytest.mark.fault("N16")
def test_timescaledb_may_live_in_any_schema(
    make_database: MakeDatabase, timescale: Databases | None
) -> None:
    needs_timescale(timescale)
    url = make_database("")
    query(url, 'CREATE SCHEMA "odd name"')
    query(url, 'CREATE EXTENSION timescaledb SCHEMA "odd name"')
    migrate(url)
    hypertables = "SELECT count(*) FROM timescaledb_information.hypertables"
    assert query(url, hypertables) == [(6,)]


@pytest.mark.fault("N16")
def test_files_see_the_schema_of_an_extension_that_an_earlier_file_made(
    make_database: MakeDatabase, tmp_path: Path, postgres: PrivatePostgres
) -> None:
    """Played by an extension that every server has, under the name that is looked for."""
    del postgres
    url = make_database("")
    (tmp_path / "0001_a.sql").write_text(
        "CREATE SCHEMA ts; CREATE FUNCTION ts.by_range() RETURNS int LANGUAGE sql AS 'SELECT 7';"
        "UPDATE pg_extension SET extname = 'timescaledb', extnamespace = 'ts'::regnamespace"
        " WHERE extname = 'plpgsql'"
    )
    (tmp_path / "0002_b.sql").write_text("CREATE TABLE b AS SELECT by_range() AS n")
    migrate(url, folder=tmp_path)
    assert query(url, "SELECT n FROM public.b") == [(7,)]


@pytest.mark.fault("N17")
def test_an_unprivileged_owner_gets_the_hypertables_he_may_have(
    make_database: MakeDatabase, timescale: Databases | None
) -> None:
    needs_timescale(timescale)
    url = make_database("")
    with owner_of(url) as own_url:
        said: list[str] = []
        migrate(own_url, said.append)
        assert query(url, "SELECT count(*) FROM timescaledb_information.hypertables") == [(6,)]
        assert "hypertables" in said[0]


@pytest.mark.fault("N17")
def test_who_may_not_have_hypertables_is_told_why(
    make_database: MakeDatabase, timescale: Databases | None
) -> None:
    needs_timescale(timescale)
    url = make_database("")
    said: list[str] = []
    with owner_of(url) as own_url:
        query(url, f"ALTER DATABASE {database_name(url)} OWNER TO fts")
        query(url, f"GRANT CREATE ON SCHEMA public TO coll_{os.getpid()}")
        migrate(own_url, said.append)
    assert "permission denied to create extension" in said[0]
    assert "ticks go into partitions" in said[0]
    assert query(url, "SELECT relkind::text FROM pg_class WHERE relname = 'trade'") == [("p",)]


@contextmanager
def owner_of(url: str) -> Iterator[str]:
    """Address of the same database for a role that owns it and may nothing else."""
    role = f"coll_{os.getpid()}"
    query(url, f"CREATE ROLE {role} LOGIN")
    query(url, f"ALTER DATABASE {database_name(url)} OWNER TO {role}")
    try:
        yield f"{url}&options=-crole%3D{role}"
    finally:
        query(url, f"ALTER DATABASE {database_name(url)} OWNER TO fts")
        query(url, f"REASSIGN OWNED BY {role} TO fts")
        query(url, f"DROP OWNED BY {role}")
        query(url, f"DROP ROLE {role}")


# -- N18: pools ----------------------------------------------------------------------------------


def pgbouncer_of(url: str, folder: Path, mode: str) -> "tuple[subprocess.Popen[bytes], str]":
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    host, name = parse_qs(urlsplit(url).query)["host"][0], database_name(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "users").write_text('"fts" ""\n')
    (folder / "pool.ini").write_text(
        f"[databases]\n{name} = host={host} user=fts\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n"
        f"auth_file = {folder}/users\nlogfile = {folder}/pool.log\nmax_client_conn = 50\n"
    )
    folder.chmod(0o777)
    if os.geteuid() == 0:  # the pool refuses root, and the server knows root alone
        [(rules,)] = query(url, "SHOW ident_file")
        with Path(str(rules)).open("a", encoding="utf-8") as file:
            file.write("engine postgres fts\n")
        query(url, "SELECT pg_reload_conf()")
    arguments = [program, str(folder / "pool.ini")]
    account = {"user": "postgres"} if os.geteuid() == 0 else {}
    pool = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, **account)  # type: ignore[call-overload]
    return pool, f"postgresql://fts@127.0.0.1:{port}/{name}"


@pytest.fixture
def pooled(postgres: PrivatePostgres, database_url: str) -> Iterator[Callable[[str], str]]:
    """`pooled("transaction")`: the database behind a PgBouncer."""
    del postgres
    pools: list[subprocess.Popen[bytes]] = []
    folders: list[Path] = []

    def make(mode: str) -> str:
        folders.append(Path(f"/tmp/fts-pool-{os.getpid()}-{len(folders)}"))
        folders[-1].mkdir()
        pool, url = pgbouncer_of(database_url, folders[-1], mode)
        pools.append(pool)
        ends_s = monotonic_s() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), 1).close()
                return url
            except OSError:
                assert monotonic_s() < ends_s
                time.sleep(0.02)

    yield make
    for pool in pools:
        pool.terminate()
        pool.wait(10)
    for folder in folders:
        shutil.rmtree(folder)


@pytest.mark.fault("N18")
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pool_of_transactions_is_told_with_the_setting_to_change(
    pooled: Callable[[str], str],
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
    tmp_path: Path,
    mode: str,
) -> None:
    url = pooled(mode)
    for attempt in (
        lambda: store_rows(url, slots, make_settings, trades),
        lambda: migrate(url),
    ):
        with pytest.raises(DatabaseUnavailableError, match="session pool"):
            attempt()
    doctor = Fts("doctor", "--state-dir", str(tmp_path / "s"), FTS_DATABASE_URL=url)
    code, output = doctor.end()
    assert code == 1
    assert "pool_mode = session" in output


@pytest.mark.fault("N18")
def test_a_pool_of_sessions_works(
    pooled: Callable[[str], str],
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    url = pooled("session")
    assert migrate(url) == []
    assert store_rows(url, slots, make_settings, trades) == 40


# -- N25, N49: servers that do not answer --------------------------------------------------------


@pytest.fixture
def replicated(server_dir: Path, tmp_path: Path) -> Iterator[str]:
    """A migrated database on a server that can wait for standbys."""
    folder = server_dir / f"replicated-{tmp_path.name}"
    folder.mkdir(mode=0o700)
    server = PrivatePostgres(folder, "replicated", {"wal_level": "replica", "max_wal_senders": "2"})
    url = server.start()
    migrate(url)
    yield url
    server.stop()


@pytest.mark.fault("N25")
def test_a_commit_that_waits_for_a_standby_is_red_with_the_servers_own_word(
    replicated: str,
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.writer.sinks.postgres.overdue._LATE_AFTER_S", 0.5)
    monkeypatch.setattr("engine.writer.sinks.postgres.overdue._LOOK_EVERY_S", 0.1)
    url = replicated
    query(url, "ALTER SYSTEM SET synchronous_standby_names = 'gone'")

    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=url), slots)
        await sink.open({})
        await claim(sink, "shard-0/trade", 1, 0)
        await sink.take(Batch([_piece(trades, 0)]), durable=True)
        await asyncio.to_thread(query, url, "SELECT pg_reload_conf()")
        await asyncio.sleep(0.2)  # the backends read it when they next look
        task = asyncio.create_task(sink.take(Batch([_piece(trades, 10)]), durable=True))
        async with asyncio.timeout(30):
            while "SyncRep" not in sink.overdue:
                assert not task.done()
                await asyncio.sleep(0.02)
        assert "synchronous_standby_names" in sink.overdue
        await asyncio.to_thread(query, url, "ALTER SYSTEM RESET synchronous_standby_names")
        await asyncio.to_thread(query, url, "SELECT pg_reload_conf()")
        assert (await task).rows["trade"] == 10
        async with asyncio.timeout(30):
            while sink.overdue:
                await asyncio.sleep(0.02)
        await sink.close()

    uvloop.run(main())
    assert query(url, "SELECT count(*) FROM trade") == [(20,)]


def _piece(trades: MakeTrades, start: int) -> Slice:
    return Slice.whole(SourceKey("shard-0/trade", 1), TRADE, start, trades(10, start))


@pytest.mark.fault("N25")
def test_what_became_of_a_commit_that_was_given_up_is_read_from_the_cursor(
    replicated: str,
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    hasty = {**session.WRITER.settings, "lock_timeout": "500ms"}
    hasty_writer = replace(session.WRITER, settings=hasty)
    monkeypatch.setattr("engine.writer.sinks.postgres.sink.WRITER", hasty_writer)
    query(replicated, "ALTER SYSTEM SET synchronous_standby_names = 'gone'")

    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=replicated, answer_within_s=1.0), slots)
        await sink.open({})
        await claim(sink, "shard-0/trade", 1, 0)
        await sink.take(Batch([_piece(trades, 0)]), durable=True)
        await asyncio.to_thread(query, replicated, "SELECT pg_reload_conf()")
        await asyncio.sleep(0.2)
        with pytest.raises(DatabaseUnavailableError, match="no answer for 1 s"):
            await sink.take(Batch([_piece(trades, 10)]), durable=True)
        await sink.open({})
        assert await claim(sink, "shard-0/trade", 1, 0) == 20, "on disk, if on one machine alone"
        await sink.take(Batch([_piece(trades, 20)]), durable=False)
        await sink.close()

    uvloop.run(main())
    found = query(replicated, "SELECT count(*), count(DISTINCT trade_id) FROM trade")
    assert found == [(30, 30)]


@pytest.mark.flow
@pytest.mark.timeout(240)
@pytest.mark.fault("N25")
def test_log_and_health_are_one_verdict_while_no_standby_answers(replicated: str) -> None:
    directory = Path(tempfile.mkdtemp(prefix="fts-rig-"))
    rig = Rig(directory, replicated, rate="400", symbols=1)
    try:
        engine = rig.start()
        names = query(
            replicated,
            "SELECT split_part(application_name, '-', 1), split_part(application_name, '-', 2)"
            " FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()",
        )
        assert ("fts", "writer") in names
        assert {owner for owner, _ in names} == {"fts"}, "all of them came through the door"
        assert len(names) <= 6, "as many as doctor says that an engine opens"
        query(replicated, "ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        query(replicated, "SELECT pg_reload_conf()")
        engine.wait_for("red (the database is down: no answer for")
        assert "SyncRep" in engine.log
        health = Fts("health", "--state-dir", str(directory / "state"))
        code, output = health.end()
        assert (code, output.count("the database is down: no answer for")) >= (1, 1)
        assert "SyncRep" in output
        query(replicated, "ALTER SYSTEM RESET synchronous_standby_names")
        query(replicated, "SELECT pg_reload_conf()")
        engine.wait_for("database: it answers again")
        assert_equation(rig.finish())
    finally:
        rig.close()
        shutil.rmtree(directory)


@contextmanager
def standing_still(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.fault("N49")
def test_a_cancelled_commit_comes_back_at_once_from_a_hung_server(
    postgres: PrivatePostgres,
    database_url: str,
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    async def main() -> float:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await sink.open({})
        await claim(sink, "shard-0/trade", 1, 0)
        await sink.take(Batch([_piece(trades, 0)]), durable=True)
        [(backend,)] = query(database_url, "SELECT backend_pid FROM ingest_cursor")
        assert postgres.pid is not None
        assert isinstance(backend, int)
        with standing_still(backend, postgres.pid):
            began_s = monotonic_s()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await sink.take(Batch([_piece(trades, 10)]), durable=True)
            seconds = monotonic_s() - began_s
        await sink.open({})
        at = await claim(sink, "shard-0/trade", 1, 0)
        for start in range(at, 20, 10):
            await sink.take(Batch([_piece(trades, start)]), durable=True)
        await sink.close()
        return seconds

    assert uvloop.run(main()) < 3
    assert query(database_url, "SELECT count(*), max(trade_id) FROM trade") == [(20, 19)]


@pytest.mark.fault("N49")
def test_a_hung_server_is_red_and_left_after_a_while(
    postgres: PrivatePostgres,
    database_url: str,
    slots: Slots,
    make_settings: MakeSettings,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    monkeypatch.setattr("engine.writer.sinks.postgres.overdue._LATE_AFTER_S", 0.5)
    monkeypatch.setattr("engine.writer.sinks.postgres.overdue._LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("engine.database.session._ASK_WITHIN_S", 0.5)

    async def main() -> None:
        settings = make_settings(database_url=database_url, answer_within_s=4.0)
        sink = PostgresSink(settings, slots)
        await sink.open({})
        await claim(sink, "shard-0/trade", 1, 0)
        backend = (await _backend(database_url),)
        assert postgres.pid is not None
        with standing_still(*backend, postgres.pid):
            began_s = monotonic_s()
            with pytest.raises(DatabaseUnavailableError, match="hangs, or is cut off"):
                await sink.take(Batch([_piece(trades, 0)]), durable=True)
            assert monotonic_s() - began_s < 15

    uvloop.run(main())


async def _backend(url: str) -> int:
    [(backend,)] = await asyncio.to_thread(query, url, "SELECT backend_pid FROM ingest_cursor")
    assert isinstance(backend, int)
    return backend


@pytest.mark.fault("N15")
def test_a_schema_that_is_not_ours_still_stops_the_start() -> None:
    def refuse(url: str) -> list[str]:
        raise MigrationError("made by a newer one")

    async def main() -> None:
        with pytest.raises(MigrationError, match="newer"):
            await SchemaKeeper(Secret("postgresql://x@127.0.0.1/x"), refuse).first_attempt()

    uvloop.run(main())
