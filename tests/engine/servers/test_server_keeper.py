"""Private servers that die come back; one that cannot is tried again by budget, and it is said."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from engine.messages.judgement import judge, without_servers
from engine.messages.status import ChildReport, WriterReport
from engine.messages.writer import SinkStatus
from engine.process.restart_budget import RestartBudget
from engine.servers.postgres import PrivatePostgres
from engine.servers.private_server import PrivateServer
from engine.servers.server_keeper import ServerKeeper
from engine.servers.valkey import PrivateValkey
from tests.engine.servers.scripted_server import ScriptedServer
from tests.waiting import until

pytestmark = pytest.mark.whole


def keep(
    server: PrivateServer, scenario: Callable[[ServerKeeper], Awaitable[None]], delay_s: float = 30
) -> None:
    async def main() -> None:
        keeper = ServerKeeper(server, RestartBudget(first_delay_s=delay_s))
        watched = keeper.start()
        try:
            await scenario(keeper)
            assert not watched.done(), "nobody keeps the server any more"
        finally:
            await keeper.close()

    asyncio.run(main())


@pytest.mark.fault("P02")
def test_a_killed_postgres_recovers_and_serves_at_the_same_address(
    server_dir: Path, tmp_path: Path
) -> None:
    folder = server_dir / f"kept-{tmp_path.name}"
    folder.mkdir(mode=0o700)
    server = PrivatePostgres(folder, "kept")
    url = server.start()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    first = server.pid
    assert first is not None

    async def scenario(keeper: ServerKeeper) -> None:
        os.kill(first, signal.SIGKILL)
        await until(lambda: keeper.report.restart_count == 1)
        assert keeper.report == ChildReport("postgres", "up", server.pid or 0, 1)
        assert server.pid != first

    try:
        keep(server, scenario)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    finally:
        server.stop()


def test_a_killed_valkey_comes_back(server_dir: Path, tmp_path: Path) -> None:
    folder = server_dir / f"kept-{tmp_path.name}"
    folder.mkdir(mode=0o700)
    server = PrivateValkey(folder, "kept")
    server.start()
    first = server.pid
    assert first is not None

    async def scenario(keeper: ServerKeeper) -> None:
        os.kill(first, signal.SIGKILL)
        await until(lambda: keeper.report.restart_count == 1)
        assert server.is_running()
        assert server.pid != first

    try:
        keep(server, scenario)
    finally:
        server.stop()


def test_a_server_that_does_not_start_is_tried_until_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = ScriptedServer(refusals=2)

    async def scenario(keeper: ServerKeeper) -> None:
        server.alive = False
        await until(lambda: keeper.report.restart_count == 1)
        assert keeper.report.state == "up"

    keep(server, scenario, delay_s=0.01)
    assert server.starts == 3
    said = [record.message for record in caplog.records]
    assert said == [
        "private postgres ended: killed by SIGKILL; starts again in 0 s",
        "private postgres ended: no room for its memory; starts again in 0.01 s",
        "private postgres ended: no room for its memory; starts again in 0.02 s",
    ]


def test_a_server_waits_for_its_delay_and_not_at_all_for_an_engine_that_drains() -> None:
    server = ScriptedServer(refusals=1)

    async def scenario(keeper: ServerKeeper) -> None:
        server.alive = False
        await until(lambda: keeper.report.reason == "no room for its memory")
        assert keeper.report.state == "restarting"
        assert server.starts == 1

    keep(server, scenario)
    assert (server.starts, server.alive) == (1, False), "closed: it stays as it is"


def test_health_says_that_it_is_our_own_server_that_died() -> None:
    writer = WriterReport(
        ChildReport("writer", "up"), sinks=[SinkStatus("database", "up"), SinkStatus("redis", "up")]
    )
    dead = ChildReport("postgres", "restarting", reason="killed by SIGKILL")
    light, reason = judge("running", [], without_servers(writer, [dead]), [])
    assert light == "red"
    assert "private postgres: killed by SIGKILL; it starts again" in reason
    dead.name = "valkey"
    light, reason = judge("running", [], without_servers(writer, [dead]), [])
    assert light == "yellow"
    assert "private valkey: killed by SIGKILL" in reason
    dead.state = "up"
    assert without_servers(writer, [dead]) == writer
