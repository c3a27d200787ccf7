"""Applies the numbered files of `sql/` to a database, each once, in order.

Table `schema_version` remembers name and checksum of every applied file. A file that changed since,
or a version this code does not have, stops everything: better no start than a guess about a schema.

The files decide by themselves between hypertables and partitions: they look whether the database
has TimescaleDB. So it is made, where that is possible, before the first table of ticks.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.base.errors import DatabaseUnavailableError, MigrationError, NewerSchemaError
from engine.database import locks
from engine.database.home import schema_of
from engine.database.layout import read_layout
from engine.database.session import MIGRATION, DatabaseSession, session
from engine.database.timescale import columns_refused
from engine.database.words import unavailable

_log = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LOCKED_FOR_S_MAX = 60.0
"""So long a lock that others hold is asked for again before that is told as a failure."""

_HAS_SCHEMA = "SELECT FROM pg_namespace AS n WHERE n.nspname = %s"
_MAY_SHARE = """
    SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace AS n WHERE n.nspname = 'public'
"""
_CREATE_VERSIONS = """
    CREATE TABLE IF NOT EXISTS schema_version (
        file_name  text PRIMARY KEY,
        checksum   text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""

_SEE_EXTENSION = """
    SELECT set_config('search_path', concat_ws(', ', current_setting('search_path'), (
        SELECT quote_ident(n.nspname)
        FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
        WHERE e.extname = 'timescaledb')), true)
"""
_TIMESCALEDB = """
    SELECT (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'timescaledb'),
        (SELECT a.default_version FROM pg_available_extensions AS a WHERE a.name = 'timescaledb'),
        to_regclass('trade') IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `sql/`."""

    file_name: str
    text: str

    @property
    def checksum(self) -> str:
        """Hex digest of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def sql_dir() -> Path:
    """Folder of the files: next to `engine/`, in a checkout as in the installed package.

    Raises MigrationError when they are not there.
    """
    folder = Path(__file__).resolve().parents[2] / "sql"
    if not any(folder.glob("0001_*.sql")):
        raise MigrationError(f"no migrations in {folder}")
    return folder


def load_migrations(folder: Path) -> list[Migration]:
    """The files in order. Raises MigrationError for a number that is missing or there twice."""
    names = sorted(p.name for p in folder.glob("*.sql") if _NAME.fullmatch(p.name))
    numbers = [int(name[:4]) for name in names]
    if numbers != list(range(1, len(numbers) + 1)):
        raise MigrationError(f"files in {folder} are not numbered 1, 2, 3, ...: {names}")
    return [Migration(n, (folder / n).read_text(encoding="utf-8")) for n in names]


def migrate(
    database_url: str,
    progress: Callable[[str], None] = lambda _text: None,
    folder: Path | None = None,
) -> list[str]:
    """Apply what is missing; return the names of the applied files.

    Raises MigrationError, and DatabaseUnavailableError where trying again may help: also where this
    user may not change the schema, for somebody else may.
    """
    migrations = load_migrations(folder or sql_dir())
    applied: list[str] = []
    if _missing(database_url, migrations):
        patiently(lambda: _apply_all(database_url, migrations, applied, progress), progress)
    with migration_session(database_url) as connection:
        _tell_shortcomings(connection, progress)
    return applied


def patiently(attempt: Callable[[], None], progress: Callable[[str], None]) -> None:
    """Try again for a minute while others hold a lock that `attempt`, in a `migration_session`,
    needs. Raises DatabaseUnavailableError after it.
    """
    backoff, ends_s = Backoff(0.25, 5.0), monotonic_s() + _LOCKED_FOR_S_MAX
    while True:
        try:
            return attempt()
        except _LockedError as error:
            if monotonic_s() > ends_s:
                raise DatabaseUnavailableError(str(error), was_answered=True) from None
            _tell(f"{error}; trying again", progress)
            time.sleep(backoff.next_s())


def _apply_all(
    database_url: str,
    migrations: Sequence[Migration],
    applied: list[str],
    progress: Callable[[str], None],
) -> None:
    _make_schema(database_url, progress)
    _offer_timescaledb(database_url, progress)
    with migration_session(database_url) as connection:
        _create_version_table(connection)
        for migration in migrations:
            if _apply(connection, migrations, migration):
                progress(f"applied {migration.file_name}")
                applied.append(migration.file_name)


def pending(database_url: str, folder: Path | None = None) -> list[str]:
    """Names of the files `migrate` would apply. Changes nothing; raises as `migrate` does."""
    return _missing(database_url, load_migrations(folder or sql_dir()))


def _missing(database_url: str, migrations: Sequence[Migration]) -> list[str]:
    with migration_session(database_url) as connection:
        exists = connection.execute("SELECT to_regclass('schema_version') IS NOT NULL").fetchone()
        known = _known_versions(connection, migrations) if exists and exists[0] else set()
    return [m.file_name for m in migrations if m.file_name not in known]


class _LockedError(Exception):
    """Another session holds what this needs."""


@contextmanager
def migration_session(database_url: str) -> Iterator[DatabaseSession]:
    """A session; its errors leave as ours, without passwords."""
    try:
        with session(database_url, MIGRATION) as connection:
            yield connection
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise _LockedError(str(unavailable(error, database_url))) from None
    except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
        raise unavailable(error, database_url) from None
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName) as error:
        raise _forbidden(error, database_url) from None
    except psycopg.Error as error:
        raise MigrationError(str(unavailable(error, database_url))) from error


def _forbidden(error: psycopg.Error, database_url: str) -> DatabaseUnavailableError:
    told = str(unavailable(error, database_url)).partition(";")[0]
    return DatabaseUnavailableError(
        f"the schema is not there or of an older version, and this user may not change it ({told});"
        " run `fts migrate` as its owner, or name the owner's address in FTS_DATABASE_OWNER_URL or"
        " database.owner.url_file",
        was_answered=True,
    )


def _make_schema(database_url: str, progress: Callable[[str], None]) -> None:
    """Make the schema that the address names, and say where others have their tables."""
    if (schema := schema_of(database_url)) is None:
        return
    with migration_session(database_url) as connection:
        others = [home for home in connection.seen.homes if home != schema]
        if others and schema not in connection.seen.homes:
            _tell(f"schema {schema} gets tables of its own beside {', '.join(others)}", progress)
        exists = connection.execute(_HAS_SCHEMA, (schema,)).fetchone()
        if exists is None:
            make = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
            connection.execute(make)


def _offer_timescaledb(database_url: str, progress: Callable[[str], None]) -> None:
    """Make the extension where a database without tables of ours may have it. What a server's
    settings say of it only some users may read, so it is tried: in a session of its own, for the
    extension ends a session where it is not preloaded.
    """
    with migration_session(database_url) as connection:
        row = connection.execute(_TIMESCALEDB).fetchone()
    assert row is not None
    present, available, has_ticks = row
    if has_ticks or not (present or available):
        return
    if not present:
        try:
            create_timescaledb(database_url)
        except (psycopg.Error, DatabaseUnavailableError) as error:
            words = str(unavailable(error, database_url))
            text = f"TimescaleDB {available} is there, but: {words}: ticks go into partitions"
            _tell(text, progress)
            return
    _tell(f"TimescaleDB {present or available}: ticks go into hypertables", progress)


def create_timescaledb(database_url: str) -> None:
    """In a session of its own. Where the address names a schema, not in there if it can be helped:
    other engines' tables may come to need it. Raises psycopg.Error and DatabaseUnavailableError.
    """
    with session(database_url, MIGRATION) as connection:
        is_shared = schema_of(database_url) and connection.execute(_MAY_SHARE).fetchone() == (True,)
        where = " SCHEMA public" if is_shared else ""
        connection.execute(f"CREATE EXTENSION IF NOT EXISTS timescaledb{where}".encode())


def _tell_shortcomings(connection: DatabaseSession, progress: Callable[[str], None]) -> None:
    """Hypertables take rows whatever TimescaleDB's version and licence, and that may be all."""
    seen = read_layout(connection)
    if seen.layout == "hypertables":
        refused = columns_refused(seen, connection.info.server_version)
        if refused:
            _log.warning(refused)
            progress(refused)


def _tell(text: str, progress: Callable[[str], None]) -> None:
    """For whoever migrates by hand, and for the engine's log."""
    _log.info(text)
    progress(text)


def _create_version_table(connection: DatabaseSession) -> None:
    """Even IF NOT EXISTS can collide between two sessions; hence under the lock."""
    with connection.transaction():
        _lock(connection)
        connection.execute(_CREATE_VERSIONS)


def _apply(
    connection: DatabaseSession, migrations: Sequence[Migration], migration: Migration
) -> bool:
    with connection.transaction():
        _lock(connection)
        if migration.file_name in _known_versions(connection, migrations):
            return False
        connection.execute(_SEE_EXTENSION)
        try:
            connection.execute(migration.text.encode())
        except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege):
            raise  # time may help
        except psycopg.Error as error:
            raise MigrationError(f"{migration.file_name}: {error}") from error
        connection.execute(
            "INSERT INTO schema_version (file_name, checksum) VALUES (%s, %s)",
            (migration.file_name, migration.checksum),
        )
    return True


def _lock(connection: DatabaseSession) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (locks.MIGRATION,))


def _known_versions(connection: DatabaseSession, migrations: Sequence[Migration]) -> set[str]:
    rows = connection.execute("SELECT file_name, checksum FROM schema_version").fetchall()
    stored = {row[0]: row[1] for row in rows}
    ours = {m.file_name: m.checksum for m in migrations}
    if unknown := sorted(set(stored) - set(ours)):
        raise NewerSchemaError(
            f"the database has {', '.join(unknown)}, which this version does not know: it was made"
            " by a newer one; install that one again, or set the database back to its backup of"
            " before (docs/backup.md), or give this version a schema or a database of its own"
        )
    if changed := sorted(name for name in stored if stored[name] != ours[name]):
        raise MigrationError(f"{', '.join(changed)} changed after it was applied")
    return set(stored)
