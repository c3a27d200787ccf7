"""`fts psql`, `fts db`, `fts redis`: without an engine, beside one, and against what kills them."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import psycopg
import pytest

from control.cli.stores.psql import connection_environment
from engine.data.layout import Layout, open_layout
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.servers.server_process import processes_of
from engine.start.addresses import Secret
from tests import warm
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.flow, pytest.mark.timeout(120), pytest.mark.fault("N46")]

ROWS = "SELECT count(*) FROM kept"


@pytest.fixture(scope="module")
def left() -> Iterator[Layout]:
    """What an engine with a private database leaves, and everything that later ran on it."""
    parent = Path(tempfile.mkdtemp(prefix="fts-console-"))
    parent.chmod(0o755)
    layout = open_layout(parent / "a b" / "state")
    server = PrivatePostgres(layout.state_dir, layout.instance)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 7) AS number")
    server.stop()
    yield layout
    dismiss(layout)
    shutil.rmtree(parent)


def command(*arguments: str, env: Mapping[str, str] = {}) -> "subprocess.Popen[str]":
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FTS_")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "control.cli.main", *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def fts(*arguments: str, code: int = 0, env: Mapping[str, str] = {}) -> str:
    """Run a command to its end; return what it printed."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FTS_")}
    done = warm.run(arguments, {**inherited, "PYTHONPATH": str(ROOT), **env})
    assert done.returncode == code, done.stderr
    return done.stdout.strip() if code == 0 else done.stderr.strip()


def psql(layout: Layout, *arguments: str) -> str:
    return fts("psql", "--state-dir", str(layout.state_dir), "-XAt", *arguments)


def db(layout: Layout, action: str, code: int = 0) -> str:
    return fts("db", action, "--state-dir", str(layout.state_dir), code=code)


class Reader:
    """An interactive `fts psql`."""

    def __init__(self, layout: Layout) -> None:
        where = ("psql", "--state-dir", str(layout.state_dir), "-XAt")
        self.process = command(*where)
        assert self.ask(ROWS) == "7"

    def ask(self, statement: str) -> str:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{statement};\n")
        stdin.flush()
        return stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def readers(left: Layout) -> Iterator[Callable[[], Reader]]:
    """Makes readers, and ends them."""
    made: list[Reader] = []

    def make() -> Reader:
        made.append(Reader(left))
        return made[-1]

    yield make
    for reader in made:
        if reader.process.poll() is None:
            reader.kill()
    dismiss(left)


def dismiss(layout: Layout) -> None:
    """Whatever a test left open."""
    if (note := instance.read_host_note(layout)) is not None:
        os.kill(note.pid, signal.SIGTERM)
    wait_for(lambda: is_closed(layout), "the database is closed")


def is_closed(layout: Layout) -> bool:
    return not instance.is_held(layout) and not servers(layout)


def servers(layout: Layout) -> list[int]:
    return list(processes_of("postgres", (layout.state_dir / "postgres" / "data").resolve()))


def host_pid(layout: Layout) -> int:
    note = instance.read_host_note(layout)
    assert note is not None
    return note.pid


def test_what_a_run_left_can_be_read_and_nothing_stays_open(left: Layout) -> None:
    assert psql(left, "-c", ROWS) == "7"
    wait_for(lambda: is_closed(left), "the last one out closes it")
    assert not (left.state_dir / "database.json").exists()


def test_many_at_once_share_one_server_and_the_last_one_out_closes_it(
    left: Layout, readers: Callable[[], Reader]
) -> None:
    first = [command("psql", "--state-dir", str(left.state_dir), "-XAtc", ROWS) for _ in range(4)]
    outputs = [each.communicate(timeout=60) for each in first]
    assert [out.strip() for out, _ in outputs] == ["7"] * 4, outputs
    one, two = readers(), readers()
    pid = host_pid(left)
    one.kill()  # it may be the one for whom the server was started
    time.sleep(0.6)  # the host looks four times a second
    assert two.ask(ROWS) == "7"
    assert host_pid(left) == pid
    two.kill()
    wait_for(lambda: is_closed(left), "a killed reader is forgotten")


def test_an_engine_that_starts_takes_the_database_over(
    left: Layout, readers: Callable[[], Reader]
) -> None:
    reader = readers()
    with instance.hold(left):
        assert servers(left) == [], "two servers on one data directory would be the end of it"
        server = PrivatePostgres(left.state_dir, left.instance)
        url = server.start()
        instance.write_note(left, instance.EngineNote(os.getpid(), "http://x", url))
        try:
            _, error = reader.process.communicate(f"{ROWS};\n", timeout=30)
            assert "administrator command" in error, "one at a terminal connects again by itself"
            assert psql(left, "-c", ROWS) == "7", "the engine's"
            assert "the engine" in db(left, "stop", code=1)
            assert db(left, "url") == db(left, "start") == url
        finally:
            server.stop()


@pytest.mark.parametrize("victim", ["host", "server"])
def test_nothing_that_is_killed_blocks_the_next_start(
    left: Layout, readers: Callable[[], Reader], victim: str
) -> None:
    readers()
    pid = host_pid(left) if victim == "host" else min(servers(left))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not instance.is_held(left), "whoever held the lock is gone")
    assert psql(left, "-c", ROWS) == "7"


def test_db_start_leaves_it_open_until_stop(left: Layout, readers: Callable[[], Reader]) -> None:
    assert "not open" in db(left, "status", code=3)
    assert "not open" in db(left, "url", code=3)
    readers()  # a host that would leave with it is told to stay
    url = db(left, "start")
    assert db(left, "url") == url
    psql(left, "-c", ROWS)
    time.sleep(0.6)
    with psycopg.connect(url) as connection:
        assert connection.execute(ROWS).fetchone() == (7,)
    assert f"pid {host_pid(left)}" in db(left, "status")
    assert "none runs" in fts("doctor", "--state-dir", str(left.state_dir))
    assert db(left, "stop") == "closed"
    assert is_closed(left)
    assert db(left, "stop") == "it was not open"
    db(left, "start")
    time.sleep(0.6)
    assert psql(left, "-c", ROWS) == "7", "also when nobody read it before"


def test_where_nothing_is_nothing_is_made(tmp_path: Path) -> None:
    for arguments in (("psql", "--state-dir", str(tmp_path), "-c", ROWS), ("redis", "PING"),
                      ("db", "start"), ("db", "url")):  # fmt: skip
        line = fts(*arguments, code=3, env={"FTS_STATE_DIR": str(tmp_path)})
        assert line.startswith("fts: n"), line
    assert list(tmp_path.iterdir()) == []


def test_a_configured_database_is_not_ours_to_start(tmp_path: Path) -> None:
    env = {"FTS_STATE_DIR": str(tmp_path), "FTS_DATABASE_URL": "postgresql:///x"}
    assert "not ours" in fts("db", "start", code=2, env=env)


class AskingServer:
    """Speaks just enough of PostgreSQL to be told a password, and whom it is for."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.told: list[bytes] = []
        self.asked, self.answer = threading.Event(), threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        link, _ = self._listener.accept()
        with link, link.makefile("rb") as stream:
            (size,) = struct.unpack(">I", stream.read(4))
            self.told.append(stream.read(size - 4))
            self.asked.set()
            self.answer.wait(30)
            link.sendall(b"R" + struct.pack(">II", 8, 3))  # a password in clear, please
            kind, size = struct.unpack(">cI", stream.read(5))
            self.told.append(kind + stream.read(size - 4))
        self._listener.close()


def test_a_password_reaches_the_server_and_no_list_of_processes(tmp_path: Path) -> None:
    server = AskingServer()
    password = "ca:na\\ry% 币"  # every character that some quoting knows
    url = (
        f"postgresql://someone:ca%3Ana%5Cry%25%20%E5%B8%81@127.0.0.1:{server.port}/ticks"
        "?sslmode=disable&gssencmode=disable&application_name=a%20b"
    )
    (tmp_path / "url").write_text(url)
    (tmp_path / "url").chmod(0o600)
    config = tmp_path / "fts.toml"
    config.write_text(f"state_dir = '{tmp_path}'\n[database]\nurl_file = '{tmp_path / 'url'}'\n")
    asking = command(
        "psql", f"--config={config}", "-Xwc", "SELECT 1", env={"FTS_DATABASE_URL": url}
    )
    assert server.asked.wait(30)
    process = psutil.Process(asking.pid)
    shown = [*process.cmdline(), *process.environ().values()]
    assert process.cmdline()[1:] == ["-Xwc", "SELECT 1"], "it is psql by now"
    assert not [text for text in shown if "ca:na" in text or "ca%3Ana" in text]
    server.answer.set()
    asking.communicate(timeout=30)
    assert b"user\0someone\0database\0ticks\0application_name\0a b\0" in server.told[0]
    assert server.told[1] == b"p" + password.encode() + b"\0"


def test_every_parameter_of_the_url_reaches_psql() -> None:
    url = "postgresql://u@h1,h2:1/d?connect_timeout=3&options=-c%20a%3Db"
    environment = connection_environment(Secret(url))
    file = Path(environment["PGSERVICEFILE"])
    head, *parameters = file.read_text().splitlines()
    assert head == "[fts]"
    assert sorted(parameters) == [
        "connect_timeout=3", "dbname=d", "host=h1,h2", "options=-c a=b", "port=,1", "user=u",
    ]  # fmt: skip
    assert "PGPASSFILE" not in environment
    os.close(int(file.name))


@pytest.mark.parametrize("words", [["SET", "a key", "a value"], ["GET", "a key"]])
def test_redis_commands_are_answered(redis_url: str, tmp_path: Path, words: list[str]) -> None:
    where = {"FTS_REDIS_URL": redis_url, "FTS_STATE_DIR": str(tmp_path), "PATH": "/nowhere"}
    fts("redis", "SET", "a key", "a value", env=where)
    assert fts("redis", *words, env=where) == {"SET": "OK", "GET": "a value"}[words[0]]


def test_redis_reads_commands_from_its_input_and_says_what_it_cannot(
    redis_url: str, tmp_path: Path
) -> None:
    where = {"FTS_REDIS_URL": redis_url, "FTS_STATE_DIR": str(tmp_path), "PATH": "/nowhere"}
    with command("redis", env=where) as process:
        out, error = process.communicate("XADD s * a 1\n'open\nXLEN s\nXRANGE s - + COUNT 1\n", 30)
    assert process.returncode == 0
    assert out.splitlines()[1:] == ["1", out.splitlines()[0], "a", "1"]
    assert "No closing quotation" in error
    assert "unknown command" in fts("redis", "NONSENSE", code=1, env=where)
    assert "redis-cli" in fts("redis", "MONITOR", code=2, env=where)
    where["FTS_REDIS_URL"] = f"unix://:canary@{tmp_path}/none.sock"
    line = fts("redis", "PING", code=3, env=where)
    assert "canary" not in line


def test_a_redis_cli_on_the_path_is_used_and_never_gets_a_password(tmp_path: Path) -> None:
    program = tmp_path / "redis-cli"
    program.write_text('#!/bin/sh\nfor each; do printf "%s\\n" "$each"; done\n')
    program.chmod(0o755)
    where = {"FTS_STATE_DIR": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    url = "redis://nobody.invalid:1/2"
    out = fts("redis", "--scan", "--pattern", "fts:*", env=where | {"FTS_REDIS_URL": url})
    assert out.splitlines() == ["-u", url, "--scan", "--pattern", "fts:*"]
    url = f"unix://{tmp_path}/valkey.sock?db=3"
    out = fts("redis", env=where | {"FTS_REDIS_URL": url})
    assert out.splitlines() == ["-s", f"{tmp_path}/valkey.sock", "-n", "3"]
    line = fts(
        "redis", "PING", code=3, env=where | {"FTS_REDIS_URL": "redis://:canary@127.0.0.1:1/0"}
    )
    assert "canary" not in line
