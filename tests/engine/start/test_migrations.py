"""Migrations are applied once, in order, and never guessed."""

import threading
from pathlib import Path

import psycopg
import pytest

from engine.base.errors import DatabaseUnavailableError, MigrationError
from engine.data.flags import GapReason, GapState
from engine.data.kinds import KINDS
from engine.start.migrations import load_migrations, migrate, pending, sql_dir
from tests.conftest import Databases


def _folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name}.sql").write_text(text)
    return tmp_path


def _one(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def test_all_files_are_applied_once(empty_database_url: str) -> None:
    names = [m.file_name for m in load_migrations(sql_dir())]
    said: list[str] = []
    assert pending(empty_database_url) == names
    assert migrate(empty_database_url, said.append) == names
    assert [text for text in said if text.startswith("applied")] == [f"applied {n}" for n in names]
    assert migrate(empty_database_url) == []
    assert pending(empty_database_url) == []


@pytest.mark.fault("N41")
def test_completeness_of_a_stream_reads_its_own_gaps_alone(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO gap SELECT now(), 0, 0, n % 500, 2, 4, 0, 0, n, n, -1"
            " FROM generate_series(1, 20000) AS n"
        )
        connection.execute("ANALYZE gap")
        plan = connection.execute("EXPLAIN SELECT * FROM gaps WHERE stream_id = 7").fetchall()
    assert "Seq Scan on gap g" not in str(plan), plan


def test_pending_changes_nothing(empty_database_url: str) -> None:
    pending(empty_database_url)
    assert _one(empty_database_url, "SELECT to_regclass('schema_version') IS NULL") is True


def test_engines_that_start_together_migrate_once(empty_database_url: str) -> None:
    applied: list[str] = []
    threads = [
        threading.Thread(target=lambda: applied.extend(migrate(empty_database_url)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [m.file_name for m in load_migrations(sql_dir())]


def test_a_changed_file_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, **{"0001_a": "CREATE TABLE a ()"})
    migrate(empty_database_url, folder=folder)
    _folder(tmp_path, **{"0001_a": "CREATE TABLE b ()"})
    with pytest.raises(MigrationError, match=r"0001_a\.sql changed"):
        migrate(empty_database_url, folder=folder)
    with pytest.raises(MigrationError, match=r"0001_a\.sql changed"):
        pending(empty_database_url, folder=folder)


def test_a_newer_database_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, **{"0001_a": "SELECT 1", "0002_b": "SELECT 2"})
    migrate(empty_database_url, folder=folder)
    (folder / "0002_b.sql").unlink()
    with pytest.raises(MigrationError, match="newer"):
        migrate(empty_database_url, folder=folder)


def test_a_failing_file_leaves_nothing_behind(empty_database_url: str, tmp_path: Path) -> None:
    folder = _folder(
        tmp_path, **{"0001_a": "CREATE TABLE a ()", "0002_b": "CREATE TABLE b (); SELECT 1/0"}
    )
    with pytest.raises(MigrationError, match="0002_b"):
        migrate(empty_database_url, folder=folder)
    assert pending(empty_database_url, folder=folder) == ["0002_b.sql"]
    assert _one(empty_database_url, "SELECT to_regclass('b') IS NULL") is True


@pytest.mark.parametrize("names", [("0002_a",), ("0001_a", "0003_b"), ("0001_a", "0001_b")])
def test_numbers_have_no_holes_and_no_twins(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = _folder(tmp_path, **dict.fromkeys(names, ""))
    with pytest.raises(MigrationError, match="not numbered"):
        load_migrations(folder)


def test_no_connection_is_worth_another_try_and_tells_no_password() -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        migrate("postgresql://fts:hunter2@127.0.0.1:1/fts")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].columns])
def test_tables_have_the_columns_of_the_records(database_url: str, kind: str) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT attname, atttypid::regtype::text FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
            (kind,),
        ).fetchall()
    names = {
        "int8": "bigint",
        "int4": "integer",
        "int2": "smallint",
        "char": '"char"',
        "timestamptz": "timestamp with time zone",
    }
    assert rows == [(c.name, names[c.pg_type]) for c in KINDS[kind].columns]


@pytest.mark.parametrize(("table", "members"), [("gap_reason", GapReason), ("gap_state", GapState)])
def test_look_up_tables_say_what_the_enums_say(
    database_url: str, table: str, members: type[GapReason] | type[GapState]
) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(f"SELECT * FROM {table} ORDER BY 1".encode()).fetchall()
    assert rows == [(int(m), m.name.lower()) for m in members]


def test_ticks_are_hypertables_with_timescaledb(
    database_url: str, timescale: Databases | None
) -> None:
    query = "SELECT relkind::text FROM pg_class WHERE oid = 'trade'::regclass"
    assert _one(database_url, query) == ("p" if timescale is None else "r")
    query = "SELECT count(*) FROM timescaledb_information.hypertables"
    assert timescale is None or _one(database_url, query) == 6


def test_a_timescaledb_without_columns_is_named_at_every_start(
    empty_database_url: str, timescale: Databases | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if timescale is None:
        pytest.skip("FTS_TEST_TIMESCALE_DSN names no server with TimescaleDB")
    said: list[str] = []
    migrate(empty_database_url, said.append)
    assert not any("no columnstore" in text for text in said), "this one has them"
    monkeypatch.setattr("engine.database.timescale.COLUMNS_FROM", (99,))
    for _ in range(2):
        said.clear()
        migrate(empty_database_url, said.append)
        assert any("is older than 99: no columnstore and no policies" in text for text in said)
