"""Applies the numbered files of `sql/` to a database, each once, in order.

Table `schema_version` remembers name and checksum of every applied file. A file that changed since,
or a version this code does not have, stops everything: better no start than a guess about a schema.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from engine.errors import DatabaseUnavailableError, MigrationError
from engine.masking import scrub

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LOCK_KEY = 0x66747301
"""Advisory lock: two engines that start together migrate one after the other."""
_CONNECT_TIMEOUT_S = 10

_CREATE_VERSIONS = """
    CREATE TABLE IF NOT EXISTS schema_version (
        file_name  text PRIMARY KEY,
        checksum   text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""

Connection = psycopg.Connection[tuple[str, ...]]


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
    folder = Path(__file__).resolve().parent.parent / "sql"
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

    Raises MigrationError, and DatabaseUnavailableError where trying again may help.
    """
    migrations = load_migrations(folder or sql_dir())
    applied = []
    with _session(database_url) as connection:
        _create_version_table(connection)
        for migration in migrations:
            if _apply(connection, migrations, migration):
                progress(f"applied {migration.file_name}")
                applied.append(migration.file_name)
    return applied


def pending(database_url: str, folder: Path | None = None) -> list[str]:
    """Names of the files `migrate` would apply. Changes nothing; raises as `migrate` does."""
    migrations = load_migrations(folder or sql_dir())
    with _session(database_url) as connection:
        exists = connection.execute("SELECT to_regclass('schema_version') IS NOT NULL").fetchone()
        known = _known_versions(connection, migrations) if exists and exists[0] else set()
    return [m.file_name for m in migrations if m.file_name not in known]


@contextmanager
def _session(database_url: str) -> Iterator[Connection]:
    """A connection; its errors leave as ours, without passwords."""
    try:
        with psycopg.connect(
            database_url,
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name="fts-migrate",
        ) as connection:
            yield connection
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise DatabaseUnavailableError(scrub(str(error).strip(), database_url)) from None
    except psycopg.Error as error:
        raise MigrationError(scrub(str(error).strip(), database_url)) from error


def _create_version_table(connection: Connection) -> None:
    """Even IF NOT EXISTS can collide between two sessions; hence under the lock."""
    with connection.transaction():
        _lock(connection)
        connection.execute(_CREATE_VERSIONS)


def _apply(connection: Connection, migrations: Sequence[Migration], migration: Migration) -> bool:
    with connection.transaction():
        _lock(connection)
        if migration.file_name in _known_versions(connection, migrations):
            return False
        try:
            connection.execute(migration.text.encode())
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise MigrationError(f"{migration.file_name}: {error}") from error
        connection.execute(
            "INSERT INTO schema_version (file_name, checksum) VALUES (%s, %s)",
            (migration.file_name, migration.checksum),
        )
    return True


def _lock(connection: Connection) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))


def _known_versions(connection: Connection, migrations: Sequence[Migration]) -> set[str]:
    rows = connection.execute("SELECT file_name, checksum FROM schema_version").fetchall()
    stored = {row[0]: row[1] for row in rows}
    ours = {m.file_name: m.checksum for m in migrations}
    if unknown := sorted(set(stored) - set(ours)):
        raise MigrationError(
            f"the database has {', '.join(unknown)}, which this version does not know: "
            "it was made by a newer one"
        )
    if changed := sorted(name for name in stored if stored[name] != ours[name]):
        raise MigrationError(f"{', '.join(changed)} changed after it was applied")
    return set(stored)
