"""Daily partitions become hypertables in place; whatever is in the way is named first.

What needs TimescaleDB runs with FTS_TEST_TIMESCALE_DSN alone; how views and functions follow a
table that takes another's name is plain SQL, and so is every refusal.
"""

import json
import threading
from contextlib import suppress

import psycopg
import pytest
import uvloop

from control.cli.main import main
from engine.base.errors import DatabaseUnavailableError, MigrationError
from engine.data.slots import Slots
from engine.database.session import MIGRATION, session
from engine.start import to_hypertables
from engine.start.dependents import definitions, dependents, lock_views
from engine.writer.rows.slice import Batch
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.start.move_rig import SEEN, THEIRS, as_superuser, partitioned_url, partitions_url
from tests.engine.writer.conftest import START_NS, MakeSettings, MakeTrades, claim
from tests.engine.writer.sinks.postgres.test_sink import piece
from tests.stores import execute, select
from tests.waiting import wait_for

__all__ = ["partitioned_url", "partitions_url"]

pytestmark = pytest.mark.whole

_DAY_NS = 86_400_000_000_000


@pytest.mark.usefixtures("postgres")
def test_views_and_functions_follow_the_name_and_keep_all_they_are(database_url: str) -> None:
    execute(database_url, *THEIRS)
    views = "SELECT * FROM (" + SEEN.replace("ORDER BY 1", "") + ") AS s WHERE relname <> 'trade'"
    before = select(database_url, views)
    with session(database_url, MIGRATION) as connection, connection.transaction():
        [[table]] = connection.execute("SELECT 'trade'::regclass::oid").fetchall()
        found = list(dependents(connection, table))
        assert {"function count_of(integer)", "view dear", "view trades"} <= {
            each.text for each in found
        }
        assert not any(each.problem for each in found)
        lock_views(connection, found)
        follow = definitions(connection, found)
        connection.execute("ALTER TABLE trade RENAME TO was_trade")
        connection.execute("CREATE TABLE trade (LIKE was_trade)")
        for statement in follow:
            connection.execute(statement)
        connection.execute("DROP TABLE was_trade")
    assert select(database_url, views) == before
    execute(database_url, "INSERT INTO trade SELECT now(), 0, 1, 7, 0, 'B', 9, 1, 0, 1")
    assert select(database_url, "SELECT price FROM dearest") == [(9,)]
    assert select(database_url, "SELECT count_of(7)") == [(1,)]


@pytest.mark.usefixtures("postgres")
def test_whatever_cannot_follow_is_named_and_nothing_is_changed(
    database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        database_url,
        "SELECT make_day('trade', '2026-11-22')",
        "CREATE TABLE trade_rest PARTITION OF trade DEFAULT",
        "CREATE TABLE trade_1999 PARTITION OF trade FOR VALUES FROM (MINVALUE) TO ('2000-01-01')",
        "CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM trade",
        "CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER mine BEFORE INSERT ON trade FOR EACH ROW EXECUTE FUNCTION noop()",
        "CREATE FUNCTION price_of(trade) RETURNS bigint LANGUAGE sql AS 'SELECT $1.price'",
        "CREATE RULE quiet AS ON DELETE TO quote DO INSTEAD NOTHING",
        "ALTER TABLE funding ADD UNIQUE (time, stream_id)",
        "CREATE TABLE mark (time timestamptz, stream_id int,"
        " FOREIGN KEY (time, stream_id) REFERENCES funding (time, stream_id))",
        "ALTER TABLE book ENABLE ROW LEVEL SECURITY",
        "DROP TABLE liquidation CASCADE",
        "CREATE TABLE liquidation (LIKE trade) PARTITION BY LIST (side)",
    )
    problems = to_hypertables.plan(database_url).problems
    for told in (
        "trade: partition trade_rest is the default one",
        "trade: partition trade_1999 has no two ends",
        "trade: materialized view summary depends on it",
        "trade: trigger mine on table trade depends on it",
        "trade: function price_of(trade) depends on it",
        "quote: rule quiet on table quote depends on it",
        "funding: constraint funding_time_stream_id_key on table funding depends on it",
        "book: it has row security",
        "liquidation: it is partitioned by LIST (side)",
    ):
        assert [text for text in problems if told in text], (told, problems)
    assert [text for text in problems if "mark" in text]
    with pytest.raises(MigrationError, match="trade_rest is the default one"):
        to_hypertables.move(database_url)
    monkeypatch.setenv("FTS_DATABASE_URL", database_url)
    assert main(["migrate", "--to", "timescaledb", "--dry-run"]) == 1
    told = capsys.readouterr().out
    assert "in the way: trade: partition trade_rest" in told
    assert "trade: 3 partitions" in told
    assert main(["migrate", "--to", "timescaledb"]) == 1
    assert main(["migrate", "--dry-run"]) == 2
    kinds = "SELECT relkind::text FROM pg_class WHERE oid = 'trade'::regclass"
    assert select(database_url, kinds) == [("p",)]


@pytest.mark.parametrize(
    ("version", "available", "license_", "told"),
    [
        (None, None, None, ["not installed"]),
        ("2.20.3", "2.20.3", "timescale", ["2.20.3 has no attach_chunk"]),
        (None, "2.9.1", None, ["2.9.1 has no attach_chunk"]),
        (None, "2.21.0", None, []),
        (None, "2.29.2", "apache", ["timescaledb.license is apache"]),
    ],
)
def test_versions_and_licences_without_attach_chunk_are_refused(
    version: str | None, available: str | None, license_: str | None, told: list[str]
) -> None:
    row = (version, None, available, license_)
    found = list(to_hypertables.extension_problems(*row, has_attach=False))
    assert len(found) == len(told)
    assert all(each in text for each, text in zip(told, found, strict=True))


# -- with TimescaleDB ----------------------------------------------------------------------------


async def store(sink: PostgresSink, batch: Batch) -> None:
    """As the writer's loop: again after whatever time may cure."""
    while True:
        with suppress(DatabaseUnavailableError):
            await sink.take(batch, durable=False)
            return
        await sink.open({})


def test_rows_views_grants_and_indexes_are_there_afterwards(partitioned_url: str) -> None:
    url = partitioned_url
    execute(
        url,
        *(f"SELECT make_day('trade', '2026-11-{day}')" for day in (21, 22)),
        "INSERT INTO trade SELECT timestamptz '2026-11-21 00:00+00' + n * interval '1 s', 0, 1, 7,"
        " 0, 'B', n, 1, 0, n FROM generate_series(1, 100000) AS n",
        "CREATE INDEX trade_p20261121_stream ON trade_p20261121 (stream_id, time)",
        *THEIRS,
    )
    before, said = select(url, SEEN), list[str]()
    dry = to_hypertables.plan(url)
    assert (dry.problems, len(dry.moves)) == ([], 6)
    assert to_hypertables.move(url, said.append) == [
        "book", "quote", "funding", "open_interest", "liquidation", "trade",
    ]  # fmt: skip
    assert said[-1].startswith("trade is a hypertable: 2 chunks, ")
    assert select(url, SEEN) == before
    assert select(url, "SELECT count(*), max(price) FROM trade") == [(100_000, 100_000)]
    assert select(url, "SELECT price FROM dearest") == [(100_000,)]
    assert select(url, "SELECT count_of(7)") == [(100_000,)]
    assert select(url, "SELECT count(*) FROM trades WHERE time >= '2026-11-22'") == [(13_601,)]
    chunks = "SELECT chunk_name, range_start::text FROM timescaledb_information.chunks ORDER BY 1"
    assert select(url, chunks) == [
        ("trade_p20261121", "2026-11-21 00:00:00+00"),
        ("trade_p20261122", "2026-11-22 00:00:00+00"),
    ]
    indexes = "SELECT indexname FROM pg_indexes WHERE tablename LIKE 'trade%' ORDER BY 1"
    assert [name for (name,) in select(url, indexes)] == [
        "trade_p20261121_stream", "trade_p20261121_time_idx", "trade_p20261122_time_idx",
        "trade_time",
    ]  # fmt: skip
    assert select(url, "SELECT make_day('trade', '2026-11-23')") == [(False,)]
    for day in (22, 24):
        row = f"'2026-11-{day} 20:00+00', 0, 1, 7, 0, 'B', 9, 1, 0, 1"
        execute(url, f"INSERT INTO trade SELECT {row}")
    assert len(select(url, chunks)) == 3
    assert to_hypertables.move(url) == []
    assert to_hypertables.plan(url).moves == []


def test_a_writer_goes_on_through_it(
    partitioned_url: str,
    make_settings: MakeSettings,
    slots: Slots,
    trades: MakeTrades,
) -> None:
    """Its session saw partitions, and is older than the extension's first hypertable."""
    moved: list[str] = []
    mover = threading.Thread(target=lambda: moved.extend(to_hypertables.move(partitioned_url)))

    async def write() -> int:
        sink = PostgresSink(make_settings(database_url=partitioned_url), slots)
        await sink.open({})
        await claim(sink, "shard-0.trade")
        count, day = 0, 0
        while day < 3 or mover.is_alive():
            rows = trades(100, first_id=count)
            rows["ts_event"] = START_NS + day * _DAY_NS
            await store(sink, Batch([piece(rows, count)]))
            count, day = count + 100, day + 1
            if day == 1:
                mover.start()
        rows = trades(100, first_id=count)
        rows["ts_event"] = START_NS + 150 * _DAY_NS
        await store(sink, Batch([piece(rows, count)]))
        await sink.close()
        return count + 100

    count = uvloop.run(write())
    mover.join()
    assert len(moved) == 6
    found = select(partitioned_url, "SELECT count(*), count(DISTINCT trade_id) FROM trade")
    assert found == [(count, count)]
    size = "SELECT pg_relation_size('trade')"
    assert select(partitioned_url, size) == [(0,)], "rows are in chunks"


def test_a_copy_that_waited_for_the_lock_is_refused_and_not_lost(
    partitioned_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It means the old table, and its rows would be where no query finds them."""
    url = partitioned_url
    execute(url, "SELECT make_day('trade', '2026-11-22')")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'trade'::regclass"
    outcomes: list[object] = []

    def copy() -> None:
        with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
            try:
                with cursor.copy("COPY trade FROM STDIN") as rows:
                    rows.write("2026-11-22 03:00:00+00\t0\t1\t7\t0\tB\t9\t1\t0\t1\n")
                outcomes.append(None)
            except psycopg.Error as error:
                outcomes.append(error)

    with monkeypatch.context() as patched:
        patched.setattr(to_hypertables, "_open", lambda *_: None)  # as if it had died there
        mover = threading.Thread(target=to_hypertables.move, args=(url,))
        copier = threading.Thread(target=copy)
        with psycopg.connect(url) as reader:
            reader.execute("SELECT count(*) FROM trade")
            mover.start()
            wait_for(lambda: select(url, waiting)[0][0] >= 1, "the mover waits")
            copier.start()
            wait_for(lambda: select(url, waiting)[0][0] >= 2 or outcomes, "the copy waits, too")
        mover.join()
        copier.join()
    (outcome,) = outcomes
    assert outcome is None or isinstance(outcome, psycopg.errors.ObjectInUse), outcome
    stored = 1 if outcome is None else 0
    assert select(url, "SELECT count(*) FROM trade") == [(stored,)]
    assert select(url, "SELECT pg_relation_size('trade')") == [(0,)]
    guards = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%_is_being_moved'"
    assert select(url, guards) != [(0,)]
    execute(url, "INSERT INTO trade SELECT '2026-11-23 20:00+00', 0, 1, 7, 0, 'B', 9, 1, 0, 1")
    assert to_hypertables.move(url) == [], "the tables are done"
    assert select(url, guards) == [(0,)]
    execute(url, "INSERT INTO trade SELECT '2026-11-22 20:00+00', 0, 1, 7, 0, 'B', 9, 1, 0, 1")
    assert select(url, "SELECT count(*) FROM trade") == [(stored + 2,)]


def test_rows_are_refused_until_every_statement_is_over_that_had_begun(
    partitioned_url: str,
) -> None:
    """One of them may be a COPY that has not asked for the new table yet."""
    url, said, moved = partitioned_url, list[str](), list[str]()
    guards = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%_is_being_moved'"
    mover = threading.Thread(target=lambda: moved.extend(to_hypertables.move(url, said.append)))

    def work() -> None:
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(1)")

    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        worker = threading.Thread(target=work)
        worker.start()
        blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_for(lambda: select(url, blocked) == [(1,)], "somebody is in a statement")
        mover.start()
        waited = "book: statements that began before are waited for"
        wait_for(lambda: any(text.startswith(waited) for text in said), "it is waited for")
        assert select(url, guards) == [(1,)]
        holder.execute("SELECT pg_advisory_unlock(1)")
    worker.join()
    mover.join()
    assert len(moved) == 6
    assert select(url, guards) == [(0,)]


def test_an_interrupted_move_leaves_each_table_whole_and_is_finished_by_the_next(
    partitioned_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The connection dies after the second partition of the last table was attached."""
    execute(
        partitioned_url,
        *(f"SELECT make_day('trade', '2026-11-{day}')" for day in (20, 21, 22)),
        "INSERT INTO trade SELECT timestamptz '2026-11-20 00:00+00' + n * interval '1 hour', 0, 1,"
        " 7, 0, 'B', n, 1, 0, n FROM generate_series(0, 71) AS n",
    )
    execute(
        as_superuser(partitioned_url),
        "CREATE FUNCTION ticks.die() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT count(*) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhparent"
        " WHERE c.oid = to_regclass('ticks.trade') AND c.relkind = 'r') = 2 THEN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); END IF; END $$",
        "CREATE EVENT TRIGGER die ON ddl_command_start WHEN tag IN ('ALTER TABLE')"
        " EXECUTE FUNCTION ticks.die()",
    )
    with pytest.raises((DatabaseUnavailableError, MigrationError)):
        to_hypertables.move(partitioned_url)
    kinds = (
        "SELECT relname, relkind::text FROM pg_class WHERE relname IN ('book', 'trade') ORDER BY 1"
    )
    assert select(partitioned_url, kinds) == [("book", "r"), ("trade", "p")]
    assert select(partitioned_url, "SELECT count(*) FROM trades") == [(72,)]
    execute(as_superuser(partitioned_url), "DROP EVENT TRIGGER die")
    monkeypatch.setenv("FTS_DATABASE_URL", partitioned_url)
    assert main(["migrate", "--to", "timescaledb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"applied": [], "moved": ["trade"]}
    assert select(partitioned_url, kinds) == [("book", "r"), ("trade", "r")]
    assert select(partitioned_url, "SELECT count(*) FROM trades") == [(72,)]
