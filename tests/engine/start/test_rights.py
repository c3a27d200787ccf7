"""Owner, writer and reader: what `sql/roles.sql` gives suffices, and what it withholds holds."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
import uvloop

from control.cli.commands.doctor_database import database_findings
from control.cli.findings import Finding
from control.cli.stores.psql import connection_environment
from engine.base.errors import DatabaseUnavailableError
from engine.data.flags import Side
from engine.data.kinds import KINDS
from engine.data.layout import SourceKey
from engine.data.slots import Slots
from engine.database.condition.rights import WRITER_RIGHTS, Rights, read_rights
from engine.database.session import DOCTOR, session
from engine.servers.postgres import client_program
from engine.start.addresses import Secret
from engine.start.config import load
from engine.start.migrations import load_migrations, migrate, pending, sql_dir
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.writer.conftest import START_NS, MakeSettings, claim
from tests.stores import execute, select

pytestmark = pytest.mark.whole
_NAMES = {name: f"{name[0]} {name}_{os.getpid()}" for name in ("owner", "writer", "reader")}


def name_of(which: str) -> str:
    return _NAMES[which]


def as_role(url: str, which: str) -> str:
    role = quote(_NAMES[which].replace(" ", "\\ "))
    return f"{url}{'&' if url.partition('?')[2] else '?'}options=-crole%3D{role}"


def run_roles(url: str, schema: str = "public") -> None:
    program = client_program()
    assert program is not None
    variables = {**_NAMES, "schema": schema}
    words = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
    environment = connection_environment(Secret(url))
    files = [int(path.rpartition("/")[2]) for path in environment.values() if "/fd/" in path]
    done = subprocess.run(
        [program, "-X", "-q", *words, "-f", sql_dir() / "roles.sql"],
        env={**os.environ, **environment}, pass_fds=files, check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def roles(url: str) -> Iterator[None]:
    """Afterwards the server has none of them."""
    try:
        yield
    finally:
        for name in _NAMES.values():
            with suppress(psycopg.errors.UndefinedObject):
                execute(url, f'DROP OWNED BY "{name}" CASCADE', f'DROP ROLE "{name}"')


@pytest.fixture
def shared_url(database_url: str) -> Iterator[str]:
    """A database that the roles share."""
    with roles(database_url):
        run_roles(database_url)
        yield database_url


def rights_of(url: str) -> Rights:
    with session(url, DOCTOR) as connection:
        found = read_rights(connection)
    assert found is not None
    return found


def doctors_lines(url: str, owner_url: str = "") -> list[Finding]:
    """What `fts doctor` says of rights; there is no problem but these."""
    loaded = load(None, {"FTS_DATABASE_URL": url, "FTS_DATABASE_OWNER_URL": owner_url})
    findings = list(database_findings(loaded, url))
    rights = [each for each in findings if each.topic == "rights"]
    assert [each for each in findings if each.level == "problem" and each not in rights] == []
    return rights


def store_every_kind(url: str, make_settings: MakeSettings, slots: Slots, seq: int = 0) -> None:
    """One row of each, of a day that nobody had rows of."""

    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=url), slots)
        await sink.open({})
        parts = []
        for name, spec in KINDS.items():
            row = np.zeros(1, spec.dtype)
            for field, value in (("ts_event", START_NS), ("ts_recv", START_NS), ("side", Side.BUY)):
                if field in (row.dtype.names or ()):
                    row[field] = value
            await claim(sink, f"s.{name}")
            parts.append(Slice.whole(SourceKey(f"s.{name}", 1), spec, seq, row))
        taken = await sink.take(Batch(parts), durable=True)
        await sink.close()
        assert not taken.refused
        stored = {name for name, spec in KINDS.items() if spec.columns}
        assert {name: taken.rows[name] for name in stored} == dict.fromkeys(stored, 1)

    uvloop.run(main())


def test_a_writer_without_rights_to_the_schema_stores_every_kind_of_a_new_day(
    shared_url: str, make_settings: MakeSettings, slots: Slots
) -> None:
    url = as_role(shared_url, "writer")
    assert migrate(url) == [], "there is nothing to do, and so nothing that it may not"
    store_every_kind(url, make_settings, slots)
    assert select(shared_url, "SELECT count(*) FROM trades") == [(1,)]
    for statement in ("DELETE FROM trade", "UPDATE trade SET qty = 0", "CREATE TABLE x ()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(url, statement)


def test_a_reader_reads_all_and_writes_nothing(
    shared_url: str, make_settings: MakeSettings, slots: Slots
) -> None:
    store_every_kind(shared_url, make_settings, slots)
    url = as_role(shared_url, "reader")
    for kind in KINDS.values():
        if kind.view and kind.columns:
            assert select(url, f"SELECT count(*) FROM {kind.view}") == [(1,)], kind.view
    select(url, "SELECT * FROM completeness('acme', 'S0', 'Trades', now(), now())")
    for statement in ("INSERT INTO gap_reason VALUES (99, 'x')", "DELETE FROM trade",
                      "SELECT make_day('trade', current_date)", "CREATE TABLE x ()",
                      "SELECT fill_unknown_facts(1, '', '', '', '', '', NULL, NULL)"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(url, statement)


def test_the_owner_has_all_that_migrations_made_and_goes_on_with_them(
    shared_url: str, tmp_path: Path
) -> None:
    run_roles(shared_url)  # again: nothing to do
    left = """
        SELECT c.oid::regclass::text FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND pg_get_userbyid(c.relowner) <> %s
            AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
        UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc AS p
        WHERE p.pronamespace = 'public'::regnamespace AND pg_get_userbyid(p.proowner) <> %s
            AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
    """
    assert select(shared_url, left, (_NAMES["owner"], _NAMES["owner"])) == [], "sql/roles.sql"
    for migration in load_migrations(sql_dir()):
        (tmp_path / migration.file_name).write_text(migration.text)
    number = len(load_migrations(sql_dir())) + 1
    (tmp_path / f"{number:04}_next.sql").write_text("CREATE TABLE next ()")
    with pytest.raises(DatabaseUnavailableError, match=r"run `fts migrate` as its owner"):
        migrate(as_role(shared_url, "writer"), folder=tmp_path)
    assert migrate(as_role(shared_url, "owner"), folder=tmp_path) == [f"{number:04}_next.sql"]
    assert pending(as_role(shared_url, "writer"), folder=tmp_path) == []
    assert rights_of(as_role(shared_url, "owner")).is_owner


def test_every_table_is_listed_for_the_writer(database_url: str) -> None:
    tables = """
        SELECT relname FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition
            AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
    """
    known = {
        *WRITER_RIGHTS,
        "gap_reason",
        "gap_state",
        "coverage_end",
        "bar_1s",
        "bar_1m",
        "bar_fill",
    }
    assert {table for (table,) in select(database_url, tables)} == known


def test_each_missing_right_is_named_with_the_grant_that_gives_it(
    synced_database_url: str, make_settings: MakeSettings, slots: Slots
) -> None:
    database_url = synced_database_url
    url, name = as_role(database_url, "writer"), _NAMES["writer"]
    database = database_url.partition("?")[0].rpartition("/")[2]
    with roles(database_url):
        execute(
            database_url,
            f'CREATE ROLE "{name}"',
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
        )
        missing = rights_of(url).missing
        told = doctors_lines(url)
        assert [(each.level, each.advice) for each in told] == [
            ("problem", f"{each.grant};") for each in missing
        ]
        assert f'GRANT SELECT, INSERT ON public.trade TO "{name}"' in [m.grant for m in missing]
        assert len(missing) == len(WRITER_RIGHTS) + 6
        while missing:
            execute(database_url, missing[0].grant)
            now = rights_of(url).missing
            assert now == missing[1:], "each gives what it says, and nothing else"
            missing = now
        assert not rights_of(url).is_owner
        assert [each.level for each in doctors_lines(url)] == ["note"]
        assert [each.level for each in doctors_lines(url, database_url)] == ["ok"]
        store_every_kind(url, make_settings, slots)


def test_make_day_believes_nobody(shared_url: str) -> None:
    kind = select(shared_url, "SELECT relkind::text FROM pg_class WHERE relname = 'trade'")
    if kind == [("p",)]:
        made = [
            select(as_role(shared_url, "writer"), "SELECT make_day('trade', '2026-11-22')")
            for _ in range(2)
        ]
        assert made == [[(True,)], [(False,)]]
        with pytest.raises(psycopg.errors.DatetimeFieldOverflow):
            execute(shared_url, "SELECT make_day('trade', '1999-01-01')")
    if kind == [("p",)]:
        # Somebody else, who may, has migrated: the days are still of who owns the tables.
        execute(shared_url, "ALTER FUNCTION make_day OWNER TO fts")
        assert select(shared_url, "SELECT make_day('book', '2026-11-22')") == [(True,)]
        owners = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'book_p20261122'"
        assert select(shared_url, owners) == [(_NAMES["owner"],)]
    execute(
        shared_url,
        f'GRANT CREATE ON SCHEMA public TO "{_NAMES["reader"]}"',
        "CREATE SCHEMA theirs",
        "CREATE TABLE theirs.trade (time timestamptz) PARTITION BY RANGE (time)",
        f'SET ROLE "{_NAMES["reader"]}";'
        "CREATE TABLE public.hostile (time timestamptz) PARTITION BY RANGE (time)",
    )
    if kind == [("p",)]:
        half = "UPDATE pg_inherits SET inhdetachpending = true"
        execute(shared_url, f"{half} WHERE inhrelid = 'trade_p20261122'::regclass")
        with pytest.raises(psycopg.errors.ObjectInUse, match="is being dropped"):
            execute(shared_url, "SELECT make_day('trade', '2026-11-22')")
    for table in ("theirs.trade", "public.hostile", "pg_class"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is no table of"):
            execute(shared_url, f"SELECT make_day('{table}', '2026-11-22')")
