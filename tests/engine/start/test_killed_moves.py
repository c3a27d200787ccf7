"""`fts migrate --to timescaledb`, killed wherever it can be: each table is as before or as after.

The instants are statements of its own, in front of which its session waits for the test. It is
killed at one after the other, and each next run goes on until the next instant; the last one ends.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import pytest

from engine.servers.postgres import PrivatePostgres
from tests.columnar import columnar_server
from tests.engine.start.move_rig import (
    SEEN,
    THEIRS,
    as_superuser,
    make_partitions,
    partitions_url,
)
from tests.flow.processes import Fts
from tests.stores import execute, select
from tests.waiting import wait_for

__all__ = ["partitions_url"]

pytestmark = pytest.mark.whole

TABLES: Final = ("book", "quote", "funding", "open_interest", "liquidation", "trade")
"""In the order in which they are moved."""
VIEWS: Final = (
    "book_levels", "quotes", "funding_rates", "open_interest_points", "liquidations", "trades",
    "dear", "dearest",
)  # fmt: skip
REST: Final = {
    "book": "'b', n, 5, n, n - 1",
    "quote": "n, n, 5, n + 1, 5",
    "funding": "1, n, n, 0, 28800",
    "trade": "'B', n, 5, 0, n",
}
"""Columns after the flags. There are no rows of the other tables, and no days."""
ADVISORY: Final = "SELECT pg_advisory_xact_lock(1)"


class Instant(NamedTuple):
    """Where it is killed."""

    statement: str
    """A part of the statement that waits."""
    done: int
    """So many tables are hypertables by then."""
    lock: str = ADVISORY
    """What it waits for."""


INSTANTS: Final = (
    Instant("CREATE EXTENSION", 0),
    Instant('CREATE TABLE "ticks"."book"', 0),
    Instant("attach_chunk", 0, "LOCK TABLE _timescaledb_catalog.chunk IN SHARE MODE"),
    Instant('DETACH PARTITION "ticks"."book_p20261121"', 0),
    Instant('DROP TRIGGER "book_is_being_moved"', 1),
    Instant('DROP FUNCTION "ticks"."book_is_being_moved"', 1),
    Instant('CREATE OR REPLACE VIEW "ticks"."quotes"', 1),
    Instant('CREATE FUNCTION "ticks"."funding_is_being_moved"', 2),
    Instant('DETACH PARTITION "ticks"."trade_p20261122"', 5),
    Instant('DROP TABLE "ticks"."trade_of_partitions"', 5),
    Instant('DROP TRIGGER "trade_is_being_moved"', 6),
)
_WAIT_THERE: Final = f"""
    CREATE OR REPLACE FUNCTION public.wait_there() RETURNS event_trigger LANGUAGE plpgsql
    SET lock_timeout = 0 AS $$
    BEGIN  -- and waits however long the test takes
        IF strpos(current_query(), '{{}}') > 0 THEN
            PERFORM {ADVISORY.removeprefix("SELECT ")};
        END IF;
    END $$
"""
_WAITING: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE %s = ANY (pg_blocking_pids(pid)) AND strpos(query, %s) > 0
"""
_MOVED: Final = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'ticks'::regnamespace AND relname = ANY (%s) AND relkind = 'r'
"""
_LEFT: Final = """
    SELECT relname FROM pg_class WHERE relname LIKE '%of\\_partitions%'
    UNION ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE '%is\\_being\\_moved'
    UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE '%is\\_being\\_moved'
"""


def fill(url: str) -> None:
    """Rows of several tables on three days each; and allow to make the extension."""
    for table, rest in REST.items():
        execute(
            url,
            *(f"SELECT make_day('{table}', '2026-11-{day}')" for day in (20, 21, 22)),
            f"INSERT INTO {table} SELECT timestamptz '2026-11-20 00:00+00' + n * interval '1 min',"
            f" 0, n, 7, 0, {rest} FROM generate_series(0, 4319) AS n",
        )
    execute(url, *THEIRS)
    execute(
        as_superuser(url),
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO %s', current_database(),"
        " (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'ticks')); END $$",
        _WAIT_THERE.format("nowhere yet"),
        "CREATE EVENT TRIGGER wait_there ON ddl_command_start EXECUTE FUNCTION public.wait_there()",
    )


def seen(url: str) -> list[Any]:
    """Every row of tables and views by a sum, and what the views are."""
    sums = "SELECT '{0}', count(*), sum(hashtextextended(t::text, 0)) FROM {0} AS t"
    rows = select(url, " UNION ALL ".join(map(sums.format, TABLES + VIEWS)) + " ORDER BY 1")
    return [rows, select(url, SEEN), select(url, "SELECT count_of(7)")]


def moved(url: str) -> set[str]:
    """Tables that are no partitioned ones any more."""
    return {name for (name,) in select(url, _MOVED, (list(TABLES),))}


def start(url: str) -> Fts:
    """The tool."""
    return Fts("migrate", "--to", "timescaledb", "--json", FTS_DATABASE_URL=url)


@contextmanager
def waiting_at(url: str, instant: Instant) -> Iterator[tuple[Fts, int]]:
    """The tool, and the process of its session, which waits until this is left."""
    execute(as_superuser(url), _WAIT_THERE.format(instant.statement))
    with closing(psycopg.connect(as_superuser(url))) as holder:
        holder.execute(instant.lock.encode())
        values = (holder.info.backend_pid, instant.statement)
        fts = start(url)
        try:
            [(pid,)] = wait_for(lambda: select(as_superuser(url), _WAITING, values), str(instant))
            yield fts, pid
        finally:
            fts.kill()


def go_through(url: str, kill: Callable[[Fts, int], None]) -> None:
    """Kill it at each instant, look at what is there then, and let it come to its end at last."""
    before = seen(url)
    gone = "SELECT WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
    for instant in INSTANTS:
        with waiting_at(url, instant) as (fts, pid):
            kill(fts, pid)
        wait_for(partial(select, as_superuser(url), gone, (pid,)), "the killed one's session ends")
        assert seen(url) == before, instant
        assert moved(url) == set(TABLES[: instant.done]), instant
    finish(url, start(url), before, [])


def finish(url: str, fts: Fts, before: list[Any], expected: list[str]) -> None:
    """It comes to its end: all is there, once, in hypertables, and rows can be added."""
    code, output = fts.end()
    assert code == 0, fts.log
    assert json.loads(output) == {"applied": [], "moved": expected}
    assert seen(url) == before
    hypertables = "SELECT hypertable_name FROM timescaledb_information.hypertables"
    assert {name for (name,) in select(url, hypertables)} == set(TABLES)
    assert select(url, _LEFT) == []
    for table, rest in REST.items():
        add = f"INSERT INTO {table} SELECT '2026-11-23 00:00+00', 0, n, 7, 0, {rest}"
        execute(url, f"{add} FROM (VALUES (4320)) AS v (n)")
        assert select(url, f"SELECT count(*) FROM {table}") == [(4321,)]
        assert select(url, f"SELECT pg_relation_size('{table}')") == [(0,)], "rows are in chunks"


def refused(fts: Fts) -> None:
    """It says in words why it could not go on."""
    code, _ = fts.end()
    assert code == 1, fts.log
    assert "Traceback" not in fts.log


def test_the_tool_is_killed(partitions_url: str) -> None:
    fill(partitions_url)
    go_through(partitions_url, lambda fts, _: fts.kill())


def test_its_session_is_ended(partitions_url: str) -> None:
    def end(fts: Fts, pid: int) -> None:
        terminate = "SELECT pg_terminate_backend(%s)"
        assert select(as_superuser(partitions_url), terminate, (pid,)) == [(True,)]
        refused(fts)

    fill(partitions_url)
    go_through(partitions_url, end)


def test_the_session_of_a_killed_one_is_in_nobodys_way(partitions_url: str) -> None:
    """Its statement goes on for as long as it is held; the server ends it, for nobody listens."""
    url = partitions_url
    fill(url)
    before = seen(url)
    with waiting_at(url, INSTANTS[1]) as (fts, pid):
        fts.kill()
        alive = "SELECT FROM pg_stat_activity WHERE pid = %s"
        wait_for(lambda: not select(as_superuser(url), alive, (pid,)), "the end of the session")
    with ExitStack() as ends:
        again = start(url)
        ends.callback(again.kill)
        finish(url, again, before, list(TABLES))


@pytest.fixture
def own_server(server_dir: Path) -> Iterator[PrivatePostgres]:
    """One that may be killed."""
    server = columnar_server(server_dir, "moved", "no server was killed in a move")
    yield server
    server.stop()


def test_the_server_is_killed(own_server: PrivatePostgres) -> None:
    def kill(fts: Fts, _: int) -> None:
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGKILL)
        refused(fts)
        own_server.stop()
        own_server.start()

    url = make_partitions(own_server.start(), "mover")
    fill(url)
    go_through(url, kill)
