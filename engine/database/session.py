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
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.base.clock import monotonic_s
from engine.base.errors import DatabaseUnavailableError
from engine.database import words
from engine.database.home import says_no_more
from engine.database.settling import Seen, SessionStep, settle

_Result = TypeVar("_Result")

_LOOK_EVERY_S: Final = 0.1
_CONNECT_TIMEOUT_S: Final = 10
_ASK_WITHIN_S: Final = 3
_OPEN_WITHIN_S: Final = 60.0
_AT_STARTUP: Final = (
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"
)
"""What could end the session before it has said the rest. Poolers may refuse to hand it on."""
_TCP: Final[Mapping[str, Any]] = {  # unless the address says otherwise
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
_PATIENT: Final = {
    "idle_in_transaction_session_timeout": "0",
    # Of who was killed nobody waits for the answer, and its locks are in the way.
    "client_connection_check_interval": "2s",
}
MIGRATION: Final = Purpose(
    "migrate",
    30.0,
    is_patient=True,
    home="made",
    connect_timeout_s=5,
    settings=_PATIENT,
)
UPKEEP: Final = Purpose(
    "upkeep",
    30.0,
    is_patient=True,
    settings=_PATIENT,
)
EXPORT: Final = Purpose(
    "export",
    30.0,
    is_patient=True,
    reads_only=True,
    settings=_PATIENT,
)
IMPORT: Final = Purpose("import", 30.0, is_patient=True, settings=_PATIENT)
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
    WRITER, LISTINGS, QUARANTINE, REGISTRY, MIGRATION, UPKEEP, EXPORT, IMPORT,
    HOUSEKEEPING, DOCTOR, PROOF, WITNESS,
)  # fmt: skip

_PROCESS: Final = """
    SELECT a.state, a.wait_event_type, a.wait_event,
        (SELECT pg_catalog.string_agg(
            'process ' || b.pid || coalesce(' of ' || nullif(b.application_name, ''), ''), ', ')
         FROM pg_catalog.pg_stat_activity AS b
         WHERE b.pid = ANY (pg_catalog.pg_blocking_pids(a.pid)))
    FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = %s
"""


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
        steps = settle(connection)
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


async def _ask_twin_async(database_url: str, request: SessionStep) -> list[tuple[Any, ...]]:
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
        steps = settle(connection)
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


def _ask_twin(database_url: str, request: SessionStep) -> list[tuple[Any, ...]]:
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
            **{name: value for name, value in _TCP.items() if name not in own},
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


def _overdue(limit_s: float) -> psycopg.OperationalError:
    return psycopg.OperationalError(f"no answer for {limit_s:.0f} s: the connection is dropped")
