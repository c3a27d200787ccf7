"""The one door to a database. Every session of every process comes from here.

What a session inherits from its server, database and role decides what our words mean: in which
encoding, which schema, which time zone, and after how long a statement is cancelled. So none of it
is inherited. A session sets it, reads it back, and looks whether the server can do what the session
is for: a pool that deals out server sessions by the transaction cannot, nor can a standby.

Invariants
- Each wait for an answer ends by our own clock (`answer_within_s`), whatever the server does, and
  the connection is then dropped without a word to it: who hangs does not answer a request to cancel
  either. So it is when a task is cancelled.
- Where a long answer is no fault (migrations, proofs), a second session asks whether the server
  still lives; only a server that says nothing any more is given up.
- Tables are found where they are: in the schema that holds them, whatever `search_path` a role was
  given later. An address that names a schema (engine/database/home.py) or a `search_path` itself is
  obeyed, and where several schemas hold tables of ours, one has to be named.
"""

import asyncio
import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.base.clock import monotonic_s
from engine.base.errors import DatabaseUnavailableError
from engine.database import text, words
from engine.database.home import says_no_more, schema_of

_Result = TypeVar("_Result")

_LOOK_EVERY_S: Final = 0.1
_CONNECT_TIMEOUT_S: Final = 10
_ASK_WITHIN_S: Final = 3
_OPEN_WITHIN_S: Final = 60.0
_MEANING: Final[Mapping[str, str]] = {
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
_AT_STARTUP: Final = (
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"
)
"""What could end the session before it has said the rest. Poolers may refuse to hand it on."""
_TCP: Final[Mapping[str, Any]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A COPY or COMMIT into a black hole fails after this, not after the kernel's 15 minutes.
    "tcp_user_timeout": 10_000,
}


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a session is for: its name at the server, its deadlines, and whether it writes."""

    name: str
    answer_within_s: float
    is_patient: bool = False
    """A longer answer is no fault while the server answers others."""
    reads_only: bool = False
    home: Literal["needed", "made", "seen"] = "needed"
    """The schema of our tables: needed, made where it is missing, or looked at as it is."""
    connect_timeout_s: int = _CONNECT_TIMEOUT_S
    settings: Mapping[str, str] = field(default_factory=dict)


_WRITER_SETTINGS: Final = {
    # Rows and cursor are lost together in a crash, and the journal has them: nothing to wait for.
    "synchronous_commit": "off",
    # The server looks whether we still live, even while it is busy (PostgreSQL 14, on Linux).
    "client_connection_check_interval": "2s",
    "tcp_user_timeout": "10s",
}
WRITER: Final = Purpose("writer", 60.0, settings=_WRITER_SETTINGS)
LISTINGS: Final = Purpose("listings", 30.0, settings=_WRITER_SETTINGS)
QUARANTINE: Final = Purpose("quarantine", 60.0, settings={"client_connection_check_interval": "2s"})
REGISTRY: Final = Purpose("registry", 10.0, connect_timeout_s=3)
MIGRATION: Final = Purpose(
    "migrate",
    30.0,
    is_patient=True,
    home="made",
    connect_timeout_s=5,
    settings={"idle_in_transaction_session_timeout": "0"},
)
UPKEEP: Final = Purpose(
    "upkeep",
    30.0,
    is_patient=True,
    settings={"idle_in_transaction_session_timeout": "0", "client_connection_check_interval": "2s"},
)
HOUSEKEEPING: Final = Purpose("housekeeping", 60.0, home="seen")
"""Makes and empties databases of our own."""
DOCTOR: Final = Purpose("doctor", 10.0, reads_only=True, home="seen", connect_timeout_s=2)
PROOF: Final = Purpose("proof", 30.0, is_patient=True, reads_only=True)
WITNESS: Final = Purpose(
    "witness",
    float(_ASK_WITHIN_S),
    reads_only=True,
    home="seen",
    connect_timeout_s=_ASK_WITHIN_S,
)
"""Asks what another session of ours waits for."""
PURPOSES: Final = (
    WRITER, LISTINGS, QUARANTINE, REGISTRY, MIGRATION, UPKEEP, HOUSEKEEPING, DOCTOR, PROOF, WITNESS,
)  # fmt: skip

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
        EXISTS (SELECT FROM home AS h WHERE h.is_on_path),
        pg_catalog.pg_is_in_recovery(),
        pg_catalog.current_setting('default_transaction_read_only'),
        (SELECT s.source FROM pg_catalog.pg_settings AS s
         WHERE s.name = 'default_transaction_read_only'),
        pg_catalog.current_setting('session_replication_role'),
        pg_catalog.current_setting('timescaledb.restoring', true)
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
_PROCESS: Final = """
    SELECT a.state, a.wait_event_type, a.wait_event,
        (SELECT pg_catalog.string_agg(
            'process ' || b.pid || coalesce(' of ' || nullif(b.application_name, ''), ''), ', ')
         FROM pg_catalog.pg_stat_activity AS b
         WHERE b.pid = ANY (pg_catalog.pg_blocking_pids(a.pid)))
    FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = %s
"""
_LOOKS_FOR_A_TWIN: Final = 2


class Seen(NamedTuple):
    """What a new session found."""

    backend_pid: int = 0
    encoding: str = ""
    inherited_schema: str | None = None
    path_source: str = ""
    homes: list[str] = []  # noqa: RUF012 - never changed
    """Schemas with tables of ours, those on the inherited path first."""
    is_home_on_path: bool = False
    is_standby: bool = False
    read_only: str = "off"
    read_only_source: str = ""
    replication_role: str = "origin"
    restoring: str | None = None


class _Request(NamedTuple):
    """A statement a session wants executed, by itself or by its twin."""

    query: str
    values: tuple[Any, ...] = ()
    by_twin: bool = False


_Steps = Generator[_Request, list[tuple[Any, ...]], None]


class DatabaseSession(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waits end by our clock."""

    purpose: Purpose = WITNESS
    database_url: str = ""
    seen: Seen = Seen()

    def wait(
        self, gen: PQGen[_Result], interval: float = _LOOK_EVERY_S, timeout: float | None = None
    ) -> _Result:
        """As psycopg's, but the other party is never asked to let us go."""
        limit_s = timeout or self.purpose.answer_within_s
        try:
            while True:
                try:
                    return waiting.wait(gen, self.pgconn.socket, interval, timeout=limit_s)
                except psycopg.errors._WaitTimeout:
                    if not self.purpose.is_patient or not self._server_lives():
                        self.pgconn.finish()
                        raise _overdue(limit_s) from None
        except (KeyboardInterrupt, SystemExit):
            self.pgconn.finish()
            raise

    def _server_lives(self) -> bool:
        try:
            with session(self.database_url, WITNESS) as witness:
                return bool(witness.execute(_PROCESS, (self.seen.backend_pid,)).fetchall())
        except DatabaseUnavailableError:
            return False


class AsyncSession(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection whose waits end by our clock, and at once when its task is cancelled."""

    purpose: Purpose = WITNESS
    database_url: str = ""
    seen: Seen = Seen()
    waits_since_s: float | None = None
    """Since when an answer is awaited (monotonic)."""

    async def wait(
        self,
        gen: PQGen[_Result],
        interval: float = _LOOK_EVERY_S,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's own
    ) -> _Result:
        """As psycopg's, but the other party is never asked to let us go."""
        limit_s = timeout or self.purpose.answer_within_s
        self.waits_since_s = monotonic_s()
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, timeout=limit_s)
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()
            raise _overdue(limit_s) from None
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            self.pgconn.finish()
            raise
        finally:
            self.waits_since_s = None


@contextmanager
def session(database_url: str, purpose: Purpose, instance: str = "") -> Iterator[DatabaseSession]:
    """A session in autocommit mode, closed at the end. Raises DatabaseUnavailableError where none
    can be had; what its statements raise is psycopg's.
    """
    connection = _open(database_url, purpose, instance)
    try:
        yield connection
    finally:
        connection.pgconn.finish()


async def open_session(database_url: str, purpose: Purpose, instance: str = "") -> AsyncSession:
    """A session in autocommit mode. Raises DatabaseUnavailableError."""
    try:
        async with asyncio.timeout(_OPEN_WITHIN_S):
            return await _open_async(database_url, purpose, instance)
    except TimeoutError:  # a resolver has no deadline of ours, nor have ten hosts together
        raise DatabaseUnavailableError(f"no session within {_OPEN_WITHIN_S:.0f} s") from None


async def _open_async(database_url: str, purpose: Purpose, instance: str) -> AsyncSession:
    connection = await _connect_async(database_url, purpose, instance)
    try:
        steps = _settle(connection)
        request = next(steps)
        while True:
            if request.by_twin:
                rows = await _ask_twin_async(database_url, request)
            else:
                found = await connection.execute(request.query.encode(), request.values)
                rows = await found.fetchall()
            request = steps.send(rows)
    except StopIteration:
        return connection
    except BaseException as error:
        connection.pgconn.finish()
        if isinstance(error, psycopg.Error):
            raise words.unavailable(error, database_url) from None
        raise


async def _ask_twin_async(database_url: str, request: _Request) -> list[tuple[Any, ...]]:
    """What another client is told meanwhile; nothing where there is no room for another."""
    try:
        twin = await _connect_async(database_url, WITNESS, "")
    except DatabaseUnavailableError:
        return []
    try:
        return await (await twin.execute(request.query.encode())).fetchall()
    except psycopg.Error:
        return []
    finally:
        twin.pgconn.finish()


async def why_it_waits(database_url: str, backend_pid: int) -> str:
    """What the server says one of our sessions is waiting for, asked over another one."""
    try:
        async with asyncio.timeout(2 * _ASK_WITHIN_S):
            witness = await open_session(database_url, WITNESS)
            try:
                found = await (await witness.execute(_PROCESS, (backend_pid,))).fetchone()
            finally:
                witness.pgconn.finish()
    except (DatabaseUnavailableError, psycopg.Error, TimeoutError):
        return "the server does not answer another session either: it hangs, or is cut off"
    if found is None:
        return "the server has no such session any more"
    return "the server says: " + words.waiting(*(each or "" for each in found))


def _open(database_url: str, purpose: Purpose, instance: str) -> DatabaseSession:
    connection = _connect(database_url, purpose, instance)
    try:
        steps = _settle(connection)
        request = next(steps)
        while True:
            if request.by_twin:
                rows = _ask_twin(database_url, request)
            else:
                rows = connection.execute(request.query.encode(), request.values).fetchall()
            request = steps.send(rows)
    except StopIteration:
        return connection
    except BaseException as error:
        connection.pgconn.finish()
        if isinstance(error, psycopg.Error):
            raise words.unavailable(error, database_url) from None
        raise


def _ask_twin(database_url: str, request: _Request) -> list[tuple[Any, ...]]:
    try:
        twin = _connect(database_url, WITNESS, "")
    except DatabaseUnavailableError:
        return []
    try:
        return twin.execute(request.query.encode()).fetchall()
    except psycopg.Error:
        return []
    finally:
        twin.pgconn.finish()


def _connect(database_url: str, purpose: Purpose, instance: str) -> DatabaseSession:
    for conninfo in _addresses(database_url, purpose, instance):
        try:
            connection = DatabaseSession.connect(conninfo, autocommit=True)
        except psycopg.Error as error:
            if _refuses_options(error):
                continue
            raise words.unavailable(error, database_url) from None
        connection.purpose, connection.database_url = purpose, database_url
        return connection
    raise DatabaseUnavailableError(_REFUSES_OPTIONS, was_answered=True)


async def _connect_async(database_url: str, purpose: Purpose, instance: str) -> AsyncSession:
    for conninfo in _addresses(database_url, purpose, instance):
        try:
            connection = await AsyncSession.connect(conninfo, autocommit=True)
        except (psycopg.Error, OSError) as error:
            if _refuses_options(error):
                continue
            raise words.unavailable(error, database_url) from None
        connection.purpose, connection.database_url = purpose, database_url
        return connection
    raise DatabaseUnavailableError(_REFUSES_OPTIONS, was_answered=True)


_REFUSES_OPTIONS: Final = (
    "the pool in front of the database refuses the startup parameter `options` that its address"
    " holds: leave it out there"
)


def _addresses(database_url: str, purpose: Purpose, instance: str) -> Iterator[str]:
    """The address with what a session says at once; then without `options`, for a pooler."""
    try:
        own = conninfo_to_dict(database_url)
        asked = str(own.get("options") or os.environ.get("PGOPTIONS") or "")
        said: dict[str, Any] = {
            **_TCP,
            "connect_timeout": own.get("connect_timeout") or purpose.connect_timeout_s,
            "client_encoding": "UTF8",
            "application_name": f"fts-{purpose.name}" + (f"-{instance}" if instance else ""),
        }
        yield make_conninfo(database_url, **said, options=f"{asked} {_AT_STARTUP}".strip())
        if not asked or says_no_more(str(own.get("options") or "")):
            yield make_conninfo(database_url, **said, options="")
    except (psycopg.ProgrammingError, ValueError):
        # The text of this error repeats the address, password included.
        raise DatabaseUnavailableError(
            "the database address is neither a URL nor key=value"
        ) from None


def _refuses_options(error: Exception) -> bool:
    return "unsupported startup parameter" in str(error) and "options" in str(error)


def _settle(connection: "DatabaseSession | AsyncSession") -> _Steps:
    """Look, refuse what cannot work, then say everything that is not to be inherited."""
    purpose = connection.purpose
    [row] = yield _Request(_LOOK)
    seen = connection.seen = Seen(*row)
    if seen.backend_pid != connection.pgconn.backend_pid:  # somebody stands between
        yield from _refuse_shared_pool(seen.backend_pid)
    if not purpose.reads_only:
        _refuse_read_only(seen)
    wanted = {
        **_MEANING, **purpose.settings,
        "default_transaction_read_only": "on" if purpose.reads_only else "off",
    }  # fmt: skip
    if seen.replication_role != "origin":
        wanted["session_replication_role"] = "origin"
    for name, value, now in (yield _Request(_SET, (json.dumps(wanted),))):
        if not _is_same(value, now):
            raise DatabaseUnavailableError(
                f"the server keeps {name} at {now!r}, and this needs {value!r}", was_answered=True
            )
    yield from _go_home(connection, seen)
    text.adapt(connection.adapters, seen.encoding)


def _go_home(connection: "DatabaseSession | AsyncSession", seen: Seen) -> _Steps:
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
    yield _Request(_SET_PATH, ([named or home_of(seen)],))
    if named is not None and home == "needed":
        [(is_there,)] = yield _Request(_IS_HOME_THERE)
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


def _refuse_shared_pool(first_pid: int) -> _Steps:
    """Two clients that are connected at once and meet the same server session share it."""
    mine, others = {first_pid}, set()
    for _ in range(_LOOKS_FOR_A_TWIN):
        others |= {pid for (pid,) in (yield _Request(_WHO_AM_I, by_twin=True))}
        mine |= {pid for (pid,) in (yield _Request(_WHO_AM_I))}
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


def _overdue(limit_s: float) -> psycopg.OperationalError:
    return psycopg.OperationalError(f"no answer for {limit_s:.0f} s: the connection is dropped")
