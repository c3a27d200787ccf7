"""Private servers for the tests: one PostgreSQL and one Valkey a session, one database a test."""

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engine.migrations import migrate
from engine.private.postgres import PrivatePostgres
from engine.private.valkey import PrivateValkey

_TEMPLATE = "fts_template"
_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Let SIGINT interrupt what the tests start, as it does from a terminal.

    A job in the background of a script begins with SIGINT ignored, and hands that on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory for servers.

    Root's PostgreSQL runs under another account, which cannot walk through pytest's own directory
    (0700, and set back to that by every session), so root gets one next to it.
    """
    if os.geteuid() != 0:
        yield tmp_path_factory.mktemp("servers")
        return
    folder = Path(tempfile.mkdtemp(prefix="fts-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(server_dir: Path) -> Iterator[PrivatePostgres]:
    """A running server. A test that stops it starts it again."""
    server = PrivatePostgres(server_dir, "test")
    url = server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {_TEMPLATE}")
    migrate(database_at(url, _TEMPLATE))
    yield server
    server.stop()


@pytest.fixture
def empty_database_url(postgres: PrivatePostgres) -> Iterator[str]:
    """A database of the test's own, without tables."""
    yield from _fresh_database(postgres, "template0")


@pytest.fixture
def database_url(postgres: PrivatePostgres) -> Iterator[str]:
    """A database of the test's own, migrated."""
    yield from _fresh_database(postgres, _TEMPLATE)


@pytest.fixture(scope="session")
def valkey(server_dir: Path) -> Iterator[PrivateValkey]:
    """A running server. A test that stops it starts it again."""
    server = PrivateValkey(server_dir, "test")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: PrivateValkey) -> str:
    """An empty server: it is started anew."""
    return valkey.restart()


def database_at(url: str, name: str) -> str:
    """`url` with another database name."""
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}?{query}"


def _fresh_database(postgres: PrivatePostgres, template: str) -> Iterator[str]:
    server_url = postgres.start()
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
    yield database_at(server_url, name)
    with psycopg.connect(postgres.start(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
