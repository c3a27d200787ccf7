"""Private servers for the tests: one PostgreSQL and one Valkey a session, one database a test.

With FTS_TEST_TIMESCALE_DSN (the URL of a superuser's database on a server that has TimescaleDB
loaded) the tests' databases are made there, so that the suite runs on hypertables. Tests that stop
and crash a server keep the private one.
"""

import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from engine.data.layout import Layout, open_layout
from engine.servers.postgres import PrivatePostgres
from engine.servers.valkey import PrivateValkey
from engine.start.migrations import migrate
from tests import warm
from tests.shares import long_first

settings.register_profile(
    "whatever the machine does", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("whatever the machine does")

# A thousand processes run the same modules: each is compiled once, whatever the shell has to say.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# None of them asks a stranger over TLS, and a CA file of the size that machines have takes each a
# tenth of a second.
os.environ["SSL_CERT_FILE"] = os.devnull
# numpy would start a thread a CPU in each, which spins for a while, and nobody multiplies matrices.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

_numbers = itertools.count(1)


_SERVERS = frozenset({"postgres", "valkey", "databases", "browser"})
_WHOLE_FOLDERS = ("tests/flow", "tests/fault")
_SLOW_S = 10.0
"""A file that takes longer is told at the end, if it is among the ten longest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`./fts test fast`."""
    parser.addoption(
        "--fast", action="store_true",
        help="leave out what needs a server, a process or a browser, or is marked `whole`",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGINT interrupt what the tests start, as it does from a terminal.

    A job in the background of a script begins with SIGINT ignored, and hands that on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection(session: pytest.Session) -> None:
    """Thousands of tests and their modules live until the end: the garbage collector, which would
    walk them again and again, does not look at them, now or later.
    """
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """From now on it does its work."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not fast, and let workers begin with what is slow."""
    if config.getoption("--fast"):
        slow = [item for item in items if _is_whole(config, item)]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]
        sys.addaudithook(_refuse_processes)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = long_first(
            items, workers, lambda item: _takes_long(config, item), lambda item: item.path
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what tests have in common and no fixture owns."""
    warm.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The files that took longest, so that a suite which grows slow says where."""
    taken_s: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                taken_s[report.nodeid.partition("::")[0]] += report.duration
    slow = sorted((each_s, file) for file, each_s in taken_s.items() if each_s > _SLOW_S)
    for each_s, file in reversed(slow[-10:]):
        terminalreporter.write_line(f"{each_s:6.1f} s  {file}")


def _is_whole(config: pytest.Config, item: pytest.Item) -> bool:
    return (
        _is_in_whole_folder(config, item)
        or item.get_closest_marker("whole") is not None
        or bool(_SERVERS & set(getattr(item, "fixturenames", ())))
    )


def _takes_long(config: pytest.Config, item: pytest.Item) -> bool:
    """Seconds, as most with a database do not."""
    return (
        _is_in_whole_folder(config, item)
        or item.get_closest_marker("flow") is not None
        or "browser" in getattr(item, "fixturenames", ())
    )


def _is_in_whole_folder(config: pytest.Config, item: pytest.Item) -> bool:
    return item.path.relative_to(config.rootpath).as_posix().startswith(_WHOLE_FOLDERS)


def _refuse_processes(event: str, _: tuple[Any, ...]) -> None:
    """A test that starts a process is not fast, and has to say so."""
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"):
        raise AssertionError("this test starts a process: mark it `whole`")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A state directory of the test's own."""
    return open_layout(tmp_path / "state", tmp_path)


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
    """A running server. A test that stops it starts it again. What it has written outlives it, as
    the machine lives on: it waits for no disk, which takes longer than most tests.
    """
    server = PrivatePostgres(server_dir, "test", {"fsync": "off"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def timescale() -> Iterator["Databases | None"]:
    """The server of FTS_TEST_TIMESCALE_DSN. Tests add options of their own with `&`."""
    url = os.environ.get("FTS_TEST_TIMESCALE_DSN")
    if url and "?" not in url:
        url += "?connect_timeout=10"
    databases = Databases(lambda: url) if url else None
    yield databases
    if databases is not None:
        databases.drop_template()


@pytest.fixture(scope="session")
def private_databases() -> "list[Databases]":
    """Room for the databases of the private server, once a test needs it."""
    return []


@pytest.fixture
def databases(
    request: pytest.FixtureRequest,
    timescale: "Databases | None",
    private_databases: "list[Databases]",
) -> "Databases":
    """Where this test's databases are made."""
    if timescale is not None and "postgres" not in request.fixturenames:
        return timescale
    server: PrivatePostgres = request.getfixturevalue("postgres")
    if not private_databases:
        private_databases.append(Databases(server.start, "file_copy"))
    return private_databases[0]


@pytest.fixture
def make_database(databases: "Databases") -> Iterator[Callable[[str], str]]:
    """`make_database("ENCODING 'LATIN1' LOCALE 'C'")`: an empty one, its URL."""
    names: list[str] = []

    def make(options: str = "") -> str:
        names.append(databases.make("template0", options))
        return databases.url(names[-1])

    yield make
    for name in names:
        databases.drop(name)


@pytest.fixture
def empty_database_url(make_database: Callable[[str], str]) -> str:
    """A database of the test's own, without tables."""
    return make_database("")


@pytest.fixture
def database_url(databases: "Databases") -> Iterator[str]:
    """A database of the test's own, migrated."""
    name = databases.make(databases.template())
    yield databases.url(name)
    databases.drop(name)


@pytest.fixture
def synced_database_url(
    database_url: str,
    timescale: "Databases | None",
    server_dir: Path,
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """The same on a server that waits for its disk, as an engine starts it."""
    if timescale is not None:
        yield database_url
        return
    hasty: PrivatePostgres = request.getfixturevalue("postgres")
    hasty.stop()
    server = PrivatePostgres(server_dir, "test", {})
    server.start()
    yield database_url
    server.stop()
    hasty.start()


@pytest.fixture
def other_database_url(databases: "Databases") -> Iterator[str]:
    """A second one, on the same server."""
    name = databases.make(databases.template())
    yield databases.url(name)
    databases.drop(name)


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


def crash(server: PrivatePostgres) -> None:
    """End it by an immediate shutdown: the next start recovers from the WAL."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    server.stop()


def database_at(url: str, name: str) -> str:
    """`url` with another database name."""
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}?{query}"


class Databases:
    """Makes and drops databases on a server. To copy their files is a quarter of the work, and
    takes a checkpoint, which is quick where no disk is waited for.
    """

    def __init__(self, server_url: Callable[[], str], strategy: str = "wal_log") -> None:
        self._server_url = server_url
        self._strategy = strategy
        self._template = ""

    def url(self, name: str) -> str:
        """Address of a database of this name."""
        return database_at(self._server_url(), name)

    def make(self, template: str, options: str = "") -> str:
        """Name of a new database."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self._execute(
            f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY {self._strategy} {options}"
        )
        return name

    def drop(self, name: str) -> None:
        """Drop it, whoever is in it."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def template(self) -> str:
        """A migrated database to copy. Nobody may be in it meanwhile, and an extension's workers
        go wherever they are let in: so nobody is.
        """
        if not self._template:
            name = self.make("template0")
            migrate(self.url(name))
            self._execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            self._execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            self._template = name
        return self._template

    def drop_template(self) -> None:
        """Leave nothing behind on a server that is not ours."""
        if self._template:
            self.drop(self._template)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server_url(), autocommit=True) as connection:
            connection.execute(statement.encode())
