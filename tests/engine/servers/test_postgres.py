"""The private PostgreSQL starts anywhere, recovers from anything, and dies with its engine."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engine.base.errors import ConfigError, ServerStartError
from engine.database.timescale import settings_too_low
from engine.servers.homes import known_home, server_home, socket_dir
from engine.servers.postgres import PrivatePostgres
from engine.servers.server_process import ServerAccount, processes_of
from engine.start.postgres_settings import settings_with
from tests.conftest import crash
from tests.waiting import wait_for

pytestmark = pytest.mark.whole

_ENGINE = """
import sys
from pathlib import Path
from engine.servers.postgres import PrivatePostgres
server = PrivatePostgres(Path(sys.argv[1]), "child")
print(server.start(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(server_dir: Path, tmp_path: Path) -> Iterator[PrivatePostgres]:
    folder = server_dir / f"own-{tmp_path.name}"
    folder.mkdir(mode=0o700)
    server = PrivatePostgres(folder, "own")
    yield server
    server.stop()


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM t").fetchone()
        assert row is not None
        return int(row[0])


def test_data_survive_stop_crash_and_restart(server: PrivatePostgres) -> None:
    said: list[str] = []
    url = server.start(said.append)
    assert len(said) == 2
    assert server.is_running()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    assert server.restart() == url
    assert _count(url) == 1000
    crash(server)
    assert not server.is_running()
    server.start()
    assert _count(url) == 1000
    server.stop()
    assert server.pid is None


def test_names_in_any_script_and_one_order_on_every_machine(server: PrivatePostgres) -> None:
    with psycopg.connect(server.start()) as connection:
        found = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone()
    assert found == ("UTF8", "C", "C")


def test_a_configuration_adds_settings_but_not_where_the_server_is(
    server_dir: Path, tmp_path: Path
) -> None:
    folder = server_dir / f"tuned-{tmp_path.name}"
    folder.mkdir(mode=0o700)
    settings = {"shared_preload_libraries": "auto_explain", "max_connections": "23"}
    server = PrivatePostgres(folder, "own", settings)
    try:
        with psycopg.connect(server.start()) as connection:
            found = connection.execute(
                "SELECT current_setting('shared_preload_libraries'),"
                " current_setting('max_connections'), current_setting('jit')"
            ).fetchone()
        server.stop()
        server = PrivatePostgres(folder, "own")  # by somebody who has read no configuration
        with psycopg.connect(server.start()) as connection:
            row = connection.execute("SHOW shared_preload_libraries").fetchone()
    finally:
        server.stop()
    assert found == ("auto_explain", "23", "off")
    assert row == ("auto_explain",)


@pytest.mark.parametrize("name", ["hba_file", "Listen_Addresses", "a b", "x=y", ""])
def test_settings_that_are_not_for_a_configuration_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        PrivatePostgres(tmp_path, "own", {name: "1"})


def test_nothing_of_ours_calls_home() -> None:
    settings = settings_with({"shared_preload_libraries": "timescaledb"})
    assert settings["timescaledb.telemetry_level"] == "off"
    assert "timescaledb.telemetry_level" not in settings_with({})


def test_a_server_with_timescaledb_has_workers_and_locks_for_it() -> None:
    loads = {"shared_preload_libraries": "pg_stat_statements,timescaledb"}
    assert settings_too_low(settings_with(loads)) == {}
    own = settings_with({**loads, "max_worker_processes": "48"})
    assert own["max_worker_processes"] == "48"
    assert "max_locks_per_transaction" not in settings_with({})


def test_it_listens_on_no_port_and_lets_nobody_else_in(server: PrivatePostgres) -> None:
    url = server.start()
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW listen_addresses").fetchone()
        rules = connection.execute("SELECT auth_method FROM pg_hba_file_rules").fetchall()
    assert row == ("",)
    assert rules == [("peer",)]
    host = Path(url.partition("host=")[2])
    assert host.stat().st_mode & 0o077 == 0


def _spawn_engine(folder: Path) -> "tuple[subprocess.Popen[str], str]":
    engine = subprocess.Popen(
        [sys.executable, "-c", _ENGINE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert engine.stdout is not None
    return engine, engine.stdout.readline().strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.fault("P02")
def test_it_dies_with_its_engine_and_starts_again(server_dir: Path, tmp_path: Path) -> None:
    folder = server_dir / f"orphan-{tmp_path.name}"
    folder.mkdir(mode=0o700)
    engine, url = _spawn_engine(folder)
    data = folder / "postgres" / "data"
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 10)")
    engine.kill()
    engine.communicate()
    wait_for(lambda: not list(processes_of("postgres", data)))
    server = PrivatePostgres(folder, "child")
    assert server.start() == url
    assert _count(url) == 10
    server.stop()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds survivors through /proc")
def test_a_survivor_is_ended_before_a_second_server_starts(
    server: PrivatePostgres, server_dir: Path, tmp_path: Path
) -> None:
    server.start()
    first = server.pid
    assert first is not None
    second = PrivatePostgres(server_dir / f"own-{tmp_path.name}", "own")
    second.start()
    wait_for(lambda: not server.is_running())
    assert second.pid != first
    second.stop()


def test_a_pid_file_with_a_strangers_pid_is_no_obstacle(
    server: PrivatePostgres, server_dir: Path, tmp_path: Path
) -> None:
    server.start()
    server.stop()
    data = server_dir / f"own-{tmp_path.name}" / "postgres" / "data"
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n1\n5432\n")
    server.start()
    assert server.is_running()


def test_a_lock_that_a_killed_server_left_on_its_socket_is_no_obstacle(
    server: PrivatePostgres,
) -> None:
    """Its process may be a zombie that passes for alive; here it is this test's own process."""
    host = Path(server.start().partition("host=")[2])
    lock = (host / ".s.PGSQL.5432.lock").read_text().splitlines()
    server.stop()
    (host / ".s.PGSQL.5432.lock").write_text("\n".join([str(os.getpid()), *lock[1:]]) + "\n")
    server.start()
    assert server.is_running()


@pytest.mark.fault("P02")
def test_a_killed_server_is_noticed_and_recovers(server: PrivatePostgres) -> None:
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: not server.is_running())
    server.start()
    assert server.is_running()


def test_data_of_another_version_are_refused(
    server: PrivatePostgres, server_dir: Path, tmp_path: Path
) -> None:
    server.start()
    server.stop()
    data = server_dir / f"own-{tmp_path.name}" / "postgres" / "data"
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerStartError, match="made by PostgreSQL 9"):
        server.start()


def test_a_server_that_cannot_start_says_why(
    server: PrivatePostgres, server_dir: Path, tmp_path: Path
) -> None:
    server.start()
    server.stop()
    data = server_dir / f"own-{tmp_path.name}" / "postgres" / "data"
    (data / "postgresql.conf").write_text("max_connections = pineapple\n")
    with pytest.raises(ServerStartError, match="pineapple"):
        server.start()
    assert not server.is_running()


def _me() -> ServerAccount:
    return ServerAccount("me", os.geteuid(), os.getegid(), drops=False)


def test_a_long_path_gets_a_short_socket_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    home = server_home(deep, "postgres", "x", _me())
    far = socket_dir(deep, home, "postgres", ".s.PGSQL.5432", _me())
    assert len(os.fsencode(far / ".s.PGSQL.5432")) <= 107
    assert far.stat().st_mode & 0o777 == 0o700
    assert socket_dir(deep, home, "postgres", ".s.PGSQL.5432", _me()) == far
    far.rmdir()
    again = socket_dir(deep, home, "postgres", ".s.PGSQL.5432", _me())
    assert again != far
    again.rmdir()


def test_a_copy_does_not_take_the_sockets_of_its_original(tmp_path: Path) -> None:
    original, copy = tmp_path / ("d" * 90), tmp_path / ("e" * 90)
    original.mkdir()
    home = server_home(original, "postgres", "x", _me())
    far = socket_dir(original, home, "postgres", ".s.PGSQL.5432", _me())
    shutil.copytree(original, copy)
    home = server_home(copy, "postgres", "x", _me())
    own = socket_dir(copy, home, "postgres", ".s.PGSQL.5432", _me())
    assert own != far
    assert socket_dir(copy, home, "postgres", ".s.PGSQL.5432", _me()) == own
    far.rmdir()
    own.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs its server under another account")
@pytest.mark.parametrize("how", ["cp -a", "mv"])
def test_roots_data_are_found_where_the_state_directory_is_now(
    server_dir: Path, tmp_path: Path, how: str
) -> None:
    """A command on a copy must not end the server of the original, nor a move hide the data."""
    nobody = ServerAccount("nobody", 65534, 65534, drops=True)
    state_dir, other = (server_dir / f"{name}-{tmp_path.name}" for name in ("first", "then"))
    state_dir.mkdir(mode=0o700)
    assert server_home(state_dir, "postgres", "x", nobody) == state_dir / "postgres"
    subprocess.run([*how.split(), state_dir, other], check=True)
    assert known_home(other, "postgres") == other / "postgres"
    assert server_home(other, "postgres", "x", nobody) == other / "postgres"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs its server under another account")
def test_roots_data_go_where_the_servers_account_can_walk(
    tmp_path: Path, server_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    fallback = server_dir / "fallback"
    monkeypatch.setattr("engine.servers.homes._ROOT_FALLBACK", fallback)
    nobody = ServerAccount("nobody", 65534, 65534, drops=True)
    home = server_home(state_dir, "postgres", "x", nobody)
    try:
        assert home == fallback / "x" / "postgres"
        assert home.stat().st_uid == nobody.uid
        tmp_path.chmod(0o755)  # reachable now: the data stay where they are
        assert server_home(state_dir, "postgres", "x", nobody) == home
    finally:
        home.rmdir()
        home.parent.rmdir()
        fallback.rmdir()
