"""How a new session is settled: it looks around, refuses what cannot work, and says for itself all
that is not to be inherited. Steps are yielded, for sessions that wait and for those that await.
"""

import json
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.base.errors import DatabaseUnavailableError
from engine.database import text
from engine.database.home import schema_of

if TYPE_CHECKING:
    from engine.database.session import AsyncSession, DatabaseSession

MEANING: Final[Mapping[str, str]] = {
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    # A policy that would hide rows is an error, not fewer rows.
    "row_security": "off",
    # The cursor's compare-and-set sees what a predecessor committed meanwhile.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "local",
    "statement_timeout": "0",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
    "idle_session_timeout": "0",  # PostgreSQL 14
    "transaction_timeout": "0",  # PostgreSQL 17
}
"""What every session says for itself; a purpose may say some of it otherwise."""
_LOOK: Final = """
    WITH home AS (
        SELECT n.nspname::text AS name, pg_catalog.pg_table_is_visible(c.oid) AS is_on_path
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relname = 'schema_version' AND c.relkind = 'r' AND c.relpersistence <> 't'
            AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                        WHERE a.attrelid = c.oid AND a.attname = 'checksum')
            AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                        WHERE a.attrelid = c.oid AND a.attname = 'file_name')
            AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    )
    SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_encoding'),
        pg_catalog.current_schema(),
        (SELECT s.source FROM pg_catalog.pg_settings AS s WHERE s.name = 'search_path'),
        ARRAY(SELECT h.name FROM home AS h ORDER BY h.is_on_path DESC, h.name),
        pg_catalog.pg_is_in_recovery(),
        pg_catalog.current_setting('default_transaction_read_only'),
        (SELECT s.source FROM pg_catalog.pg_settings AS s
         WHERE s.name = 'default_transaction_read_only'),
        pg_catalog.current_setting('session_replication_role'),
        pg_catalog.current_setting('timescaledb.restoring', true),
        EXISTS (SELECT FROM home AS h WHERE h.is_on_path)
"""
_SET: Final = """
    SELECT w.name, w.value, pg_catalog.set_config(w.name, w.value, false)
    FROM pg_catalog.json_each_text(%s::json) AS w (name, value)
    WHERE EXISTS (SELECT FROM pg_catalog.pg_settings AS s
                  WHERE pg_catalog.lower(s.name) = pg_catalog.lower(w.name))
        AND (w.name <> 'client_connection_check_interval'
             OR pg_catalog.version() LIKE '%%linux%%')
"""
_SET_PATH: Final = """
    SELECT pg_catalog.set_config(
        'search_path',
        (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.name), ', ' ORDER BY p.place)
         FROM pg_catalog.unnest(%s::text[]) WITH ORDINALITY AS p (name, place)),
        false)
"""
_IS_HOME_THERE: Final = "SELECT pg_catalog.current_schema() IS NOT NULL"
_WHO_AM_I: Final = "SELECT pg_catalog.pg_backend_pid()"
_LOOKS_FOR_A_TWIN: Final = 2


class Seen(NamedTuple):
    """What a new session found."""

    backend_pid: int = 0
    encoding: str = ""
    inherited_schema: str | None = None
    path_source: str = ""
    homes: list[str] = []  # noqa: RUF012 - never changed
    """Schemas with tables of ours, those on the inherited path first."""
    is_standby: bool = False
    read_only: str = "off"
    read_only_source: str = ""
    replication_role: str = "origin"
    restoring: str | None = None
    is_home_on_path: bool = False


class SessionStep(NamedTuple):
    """A statement a session wants executed, by itself or by its twin."""

    query: str
    values: tuple[Any, ...] = ()
    by_twin: bool = False


Steps = Generator[SessionStep, list[tuple[Any, ...]], None]


def settle(connection: "DatabaseSession | AsyncSession") -> Steps:
    """Look, refuse what cannot work, then say everything that is not to be inherited."""
    purpose = connection.purpose
    [row] = yield SessionStep(_LOOK)
    seen = connection.seen = Seen(*row)
    if seen.backend_pid != connection.pgconn.backend_pid:  # somebody stands between
        yield from _refuse_shared_pool(seen.backend_pid)
    if not purpose.reads_only:
        _refuse_read_only(seen)
    wanted = {
        **MEANING, **purpose.settings,
        "default_transaction_read_only": "on" if purpose.reads_only else "off",
    }  # fmt: skip
    if seen.replication_role != "origin":
        wanted["session_replication_role"] = "origin"
    for name, value, now in (yield SessionStep(_SET, (json.dumps(wanted),))):
        if not _is_same(value, now):
            raise DatabaseUnavailableError(
                f"the server keeps {name} at {now!r}, and this needs {value!r}", was_answered=True
            )
    yield from _go_home(connection, seen)
    text.adapt(connection.adapters, seen.encoding)


def _go_home(connection: "DatabaseSession | AsyncSession", seen: Seen) -> Steps:
    """Only the schema of our tables is looked into: what is named; else where they are, else where
    this role's new tables go.
    """
    named, home = schema_of(connection.database_url), connection.purpose.home
    if named is None and seen.path_source == "client":
        return
    if named is None and len(seen.homes) > 1 and not seen.is_home_on_path and home != "seen":
        raise DatabaseUnavailableError(
            f"there are tables of engines in the schemas {', '.join(seen.homes)}, and search_path"
            " leads to none of them: say which with database.schema",
            was_answered=True,
        )
    yield SessionStep(_SET_PATH, ([named or home_of(seen)],))
    if named is not None and home == "needed":
        [(is_there,)] = yield SessionStep(_IS_HOME_THERE)
        if not is_there:
            raise DatabaseUnavailableError(
                f"schema {named} (database.schema) is not there, or not for this user: run `fts"
                " migrate`; `fts doctor` names the GRANT that is missing",
                was_answered=True,
            )


def home_of(seen: Seen) -> str:
    """The schema of our tables where none is named."""
    if seen.homes:
        return seen.homes[0]
    return seen.inherited_schema or "public"


def _refuse_read_only(seen: Seen) -> None:
    problem = ""
    if seen.is_standby:
        problem = "it is a standby, which takes no rows: give the primary's address"
    elif seen.read_only != "off":
        problem = (
            "its sessions begin read only (default_transaction_read_only is on, set by the"
            f" {seen.read_only_source}): rows wait until it is off"
        )
    elif seen.restoring == "on":
        problem = "TimescaleDB is restoring: run `SELECT timescaledb_post_restore()` there"
    if problem:
        raise DatabaseUnavailableError(f"{problem} [25006]", was_answered=True)


def _refuse_shared_pool(first_pid: int) -> Steps:
    """Two clients that are connected at once and meet the same server session share it."""
    mine, others = {first_pid}, set()
    for _ in range(_LOOKS_FOR_A_TWIN):
        others |= {pid for (pid,) in (yield SessionStep(_WHO_AM_I, by_twin=True))}
        mine |= {pid for (pid,) in (yield SessionStep(_WHO_AM_I))}
        if is_shared(mine, others):
            raise DatabaseUnavailableError(SHARED_POOL, was_answered=True)


SHARED_POOL: Final = (
    "a pool stands in front of the database and deals out its sessions by the transaction"
    " (PgBouncer: pool_mode = transaction or statement); this needs a session pool: set pool_mode ="
    " session for this database or user there, or give the server's own address"
)


def is_shared(mine: set[int], others: set[int]) -> bool:
    """Whether a client that stays connected met a second server process, or somebody else its."""
    return len(mine) > 1 or bool(mine & others)


def _is_same(wanted: str, now: str) -> bool:
    """Whether the server took it; a number may come back in another unit."""
    return wanted.lower().replace(" ", "") == now.lower().replace(" ", "") or (
        wanted[0].isdigit() and now[0].isdigit()
    )
