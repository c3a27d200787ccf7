"""What a private server says is bounded, also while it runs for months."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from engine.servers import server_keeper as keeper_module
from engine.servers import server_process
from engine.servers.server_keeper import ServerKeeper
from engine.servers.server_process import ServerAccount, ServerProcess
from tests.engine.servers.scripted_server import ScriptedServer
from tests.waiting import until, wait_for

pytestmark = pytest.mark.whole

CHATTER = "while :; do echo 0123456789; sleep 0.001; done"
MOST = 2_000


def test_a_log_is_cut_under_a_server_that_goes_on_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "_LOG_BYTES_MAX", MOST)
    log = tmp_path / "server.log"
    account = ServerAccount("", os.geteuid(), os.getegid(), drops=False)
    server = ServerProcess.spawn(
        ["/bin/sh", "-c", CHATTER],
        account=account,
        log=log,
        parent_death_signal=signal.SIGKILL,
    )
    try:
        for _ in range(3):
            wait_for(lambda: log.stat().st_size > MOST)
            server.cut_log()
            assert log.stat().st_size < MOST / 2
    finally:
        server.stop(signal.SIGKILL, 1.0)
    lines = log.read_bytes().splitlines()
    assert b"\0" not in log.read_bytes(), "no hole where the server goes on"
    assert set(lines[1:-1]) <= {b"0123456789"}


def test_a_kept_server_has_its_log_cut_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(keeper_module, "_CUT_EVERY_S", 0.01)
    cuts: list[str] = []

    class Chatty(ScriptedServer):
        def cut_log(self) -> None:
            cuts.append(self.name)

    async def main() -> None:
        keeper = ServerKeeper(Chatty())
        keeper.start()
        await until(lambda: len(cuts) >= 3, "three cuts")
        await keeper.close()

    asyncio.run(main())
