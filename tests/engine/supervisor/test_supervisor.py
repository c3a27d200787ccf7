"""The supervisor with real processes, real pipes and real kills; the children play their parts."""

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from control.cli.terminal.live_view import plain_line
from engine.base.errors import (
    ChildStartError,
    DatabaseUnavailableError,
    EngineError,
    InstanceBusyError,
)
from engine.data.kinds import KINDS
from engine.data.layout import Layout, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.limits import LimitFeedback
from engine.messages.settings import ControlSettings, LimitSettings, LogSettings, RingSettings
from engine.process import instance
from engine.process.child import Child, describe_exit
from engine.process.child_keeper import ChildKeeper
from engine.servers.server_keeper import ServerKeeper
from engine.start import schema_keeper
from engine.start.addresses import Secret
from engine.start.config import Config
from engine.supervisor.spawning import SupervisorSettings, Targets, Timing
from engine.supervisor.supervisor import Supervisor
from engine.supervisor.upgrade import as_they_are
from tests.engine.full_disk import full_at
from tests.engine.servers.scripted_server import ScriptedServer
from tests.waiting import until

pytestmark = pytest.mark.whole

FAKES = "tests.engine.supervisor.fake_children"
STREAMS = [
    StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES),
    StreamKey("binance_linear", "BTCUSDT", StreamKind.L2_BOOK),
    StreamKey("hyperliquid_perp", "ETH", StreamKind.TRADES),
]
FAST = Timing(
    ready_s=20, writer_ready_s=20, hung_after_s=30, shard_drain_s=1, writer_drain_s=2,
    control_drain_s=1, grace_s=0.2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_child_survives() -> Iterator[None]:
    """Children of children may be the test database's: it starts workers whenever it likes, and
    crashes when one of them is killed.
    """
    before = set(psutil.Process().children())
    yield
    left = [each for each in psutil.Process().children() if each not in before]
    for process in left:
        process.kill()
    assert left == []


class Engine:
    """A supervisor under test, with questions to ask."""

    def __init__(self, layout: Layout, **changes: Any) -> None:
        self.layout = layout
        read_fd, self._write_fd = os.pipe()
        options: dict[str, Any] = {
            "layout": layout,
            "config": Config(),
            "rings": [
                RingSettings(f"shard-{shard}.{kind}", kind, 64)
                for shard in range(2)
                for kind in KINDS
            ],
            "cpus": [None, None],
            "streams": STREAMS,
            "venues": {},
            "log": LogSettings(str(layout.log_file), to_stderr=False),
            "listen_fd": read_fd,
            "port": 0,
            "targets": Targets(
                *(f"{FAKES}:{name}" for name in ("shard", "writer", "control", "upkeep"))
            ),
            "timing": FAST,
            **changes,
        }
        migrate, servers = options.pop("migrate", None), options.pop("servers", ())
        renew, hand_over = options.pop("renew", as_they_are), options.pop("hand_over", None)
        self._read_fd = read_fd
        kept = [ServerKeeper(server) for server in servers]
        self.supervisor = Supervisor(SupervisorSettings(**options), migrate, kept, renew, hand_over)

    def part(self, name: str) -> None:
        (self.layout.state_dir / f"part.{name}").touch()

    def events(self, who: str, what: str) -> list[dict[str, Any]]:
        path = self.layout.state_dir / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        every = [json.loads(line) for line in lines]
        return [event for event in every if event["who"] == who and event["what"] == what]

    def order(self, what: str) -> list[str]:
        lines = (self.layout.state_dir / "events.jsonl").read_text().splitlines()
        return [event["who"] for event in map(json.loads, lines) if event["what"] == what]

    def log(self) -> str:
        path = self.layout.log_file
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)


def run(layout: Layout, scenario: Callable[[Engine], Awaitable[None]], **changes: Any) -> None:
    async def main() -> None:
        engine = Engine(layout, **changes)
        try:
            await scenario(engine)
        finally:
            engine.supervisor.kill()
            await engine.supervisor.stop()
            engine.close()

    asyncio.run(main())


def test_start_describes_instruments_before_streams_go_live(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().reason == "all streams deliver")
        entries = list(Slots(layout.slots))
        assert [entry.key for entry in entries] == STREAMS
        assert all(entry.instrument is not None for entry in entries)
        assert engine.supervisor.status().rows_by_kind() == {"trade": 10, "book": 5}
        assert await engine.supervisor.stop()
        assert engine.order("drain")[-1] != "shard-0"
        assert set(engine.order("drain")[:2]) == {"shard-0", "shard-1"}

    run(layout, scenario)


def test_own_servers_are_kept_alive_until_the_engine_drains(layout: Layout) -> None:
    server = ScriptedServer(refusals=1)

    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        status = engine.supervisor.status
        await until(lambda: status().status == "green")
        server.alive = False
        await until(lambda: status().servers[0].reason == "no room for its memory")
        assert (status().status, status().writer.database.state) == ("red", "down")
        assert "private postgres: no room for its memory; it starts again" in status().reason
        await until(lambda: status().servers[0].restart_count == 1)
        await until(lambda: status().status == "green")
        server.alive = False
        server.starts = 0
        await engine.supervisor.stop()
        assert server.starts == 0

    run(layout, scenario, servers=[server])


@pytest.mark.fault("H03")
def test_health_names_the_venue_that_refuses_this_address(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "green")
        leases = engine.supervisor._leases
        leases.feedback(LimitFeedback("acme", "rest_weight", retry_after_s=60, status=429))
        assert engine.supervisor.status().status == "green"
        leases.feedback(LimitFeedback("acme", "ws_connects", retry_after_s=3600, status=451))
        status = engine.supervisor.status()
        assert status.status == "yellow"
        assert status.reason.startswith(
            "acme: HTTP 451: it does not serve this region; asked again"
        )

    limits = [LimitSettings("acme", pool, 10, 60) for pool in ("rest_weight", "ws_connects")]
    run(layout, scenario, limits=limits)


def test_streams_of_one_symbol_share_a_shard(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: len(engine.order("streams")) == 2)
        assert engine.events("shard-0", "streams")[0]["slots"] == [0, 1]
        assert engine.events("shard-1", "streams")[0]["slots"] == [2]

    run(layout, scenario)


@pytest.mark.fault("W01")
def test_killed_shard_returns_with_its_streams_after_the_writer_synced(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.events("shard-0", "streams"))
        os.kill(engine.supervisor.status().shards[0].child.pid, signal.SIGKILL)
        await until(lambda: len(engine.events("shard-0", "streams")) == 2)
        synced = engine.events("writer", "sync")
        assert [event["rings"] for event in synced] == [[f"shard-0.{kind}" for kind in KINDS]]
        assert engine.supervisor.status().shards[0].child.restart_count == 1
        assert "killed by SIGKILL" in "".join(record for record in records)
        # Counts of both lives are added: 5 rows a stream each.
        await until(lambda: engine.supervisor.status().streams[0].row_count == 10)

    records: list[str] = []
    with _captured(records):
        run(layout, scenario)


@pytest.mark.fault("P01")
def test_killed_writer_and_control_return(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        supervisor = engine.supervisor
        await supervisor.start()
        await until(lambda: supervisor.status().status == "green")
        for child in (supervisor.status().writer.child, supervisor.status().control):
            os.kill(child.pid, signal.SIGKILL)
        await until(lambda: supervisor.status().writer.child.restart_count == 1)
        await until(lambda: supervisor.status().control.restart_count == 1)
        await until(lambda: supervisor.status().status == "green")
        await until(lambda: supervisor.status().writer.database.rows == {"trade": 20})

    run(layout, scenario)


@pytest.mark.fault("N25")
def test_what_only_control_sees_is_in_the_one_verdict(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("worried-control")
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "red")
        status = engine.supervisor.status()
        assert status.reason == "rows wait 70 s for the database"
        assert "red (rows wait 70 s for the database)" in plain_line(status, {})

    run(layout, scenario)


@pytest.mark.fault("V05")
def test_hung_child_is_killed_and_replaced(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("mute")
        await engine.supervisor.start()
        await until(lambda: len(engine.events("shard-0", "born")) >= 2)
        assert any("is silent for" in record for record in records)

    records: list[str] = []
    with _captured(records):
        run(layout, scenario, timing=replace(FAST, hung_after_s=1.5))


@pytest.mark.fault("V05")
def test_child_born_again_that_is_never_ready_is_replaced(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        engine.part("stillborn")
        os.kill(engine.supervisor.status().shards[0].child.pid, signal.SIGKILL)
        await until(lambda: len(engine.events("shard-0", "born")) == 3)
        await until(lambda: engine.supervisor.status().status == "green")

    run(layout, scenario, timing=replace(FAST, ready_s=5))


def test_task_that_fails_in_the_background_ends_the_engine(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        monkeypatch.setattr(ChildKeeper, "check_hung", lambda *_: 1 / 0)
        reason = await asyncio.wait_for(engine.supervisor.failed, 20)
        assert "the watch over the children failed: ZeroDivisionError" in str(reason)
        assert await engine.supervisor.stop()

    run(layout, scenario)


@pytest.mark.fault("V05")
def test_hung_control_is_replaced_and_no_status_piles_up_for_it(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("deaf-control")
        await engine.supervisor.start()
        control, most = engine.supervisor._control, 0
        status_bytes = len(msgspec.json.encode(engine.supervisor.status()))
        while len(engine.events("control", "born")) < 2:
            engine.supervisor._feed.tell_status()
            most = max(most, control.unsent_bytes)
            await asyncio.sleep(0)
        assert 0 < most <= 2 * status_bytes, "the pipe is full, and one status waits"
        await until(lambda: engine.supervisor.status().status == "green")
        assert engine.supervisor.status().control.restart_count == 1

    run(layout, scenario, timing=replace(FAST, hung_after_s=3))


@pytest.mark.fault("V01")
def test_deaf_shard_is_killed_at_the_deadline_and_the_rest_still_drains(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("deaf")
        await engine.supervisor.start()
        assert await engine.supervisor.stop()
        assert len(engine.events("writer", "drain")) == 1
        assert engine.supervisor.status().phase == "stopped"

    run(layout, scenario)


def test_shard_that_never_starts_ends_the_start_with_its_reason(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("refuse")
        with pytest.raises(ChildStartError, match=r"shard-\d did not start: exit code 41"):
            await engine.supervisor.start()

    run(layout, scenario)
    assert "this shard never starts" in layout.log_file.read_text()


def test_a_disk_that_is_full_at_the_first_start_is_named(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        with full_at(100), pytest.raises(EngineError, match="takes no new stream"):
            await engine.supervisor.start()

    run(layout, scenario)


def test_all_streams_refused_makes_the_engine_useless_with_a_reason(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("unlisted")
        await engine.supervisor.start()
        reason = await asyncio.wait_for(engine.supervisor.failed, 20)
        assert "unknown symbol: binance_linear lists no 'BTCUSDT'; did you mean BTCUSDT2?" in (
            str(reason)
        )

    run(layout, scenario)


def test_streams_that_were_listed_once_are_waited_for(layout: Layout) -> None:
    """A venue in maintenance lists little for a while. What began on what was known ends."""

    async def listed(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "green")

    async def not_listed(engine: Engine) -> None:
        engine.part("unlisted")
        await engine.supervisor.start()
        status = engine.supervisor.status
        await until(lambda: all(report.state == "failed" for report in status().streams))
        await until(lambda: status().status == "red")
        # It began, for it was known; the shard notes its end when it hears of it.
        await until(lambda: [e["slots"] for e in engine.events("shard-0", "stop")] == [[0, 1]])
        engine.supervisor._check_usable()
        assert not engine.supervisor.failed.done()

    run(layout, listed)
    run(layout, not_listed)


@pytest.mark.fault("V02")
def test_rows_that_could_not_be_delivered_are_named_in_the_log(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("backlog")
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().writer.database.backlog_rows == 7)
        assert not await engine.supervisor.stop()
        text = "".join(records)
        assert "7 rows wait in" in text
        assert str(layout.journal_dir) in text

    records: list[str] = []
    with _captured(records):
        run(layout, scenario, urls={"database": Secret("postgresql:///none")})


def test_a_database_that_is_silent_does_not_hold_up_the_start(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever waits for it to have started (`/startupz`, systemd) would start it again."""
    monkeypatch.setattr(schema_keeper, "_FIRST_ATTEMPT_S", 0.2)
    answers = threading.Event()

    def migrate(_: str) -> list[str]:
        answers.wait(120)
        return []

    async def scenario(engine: Engine) -> None:
        try:
            await engine.supervisor.start()
            assert not answers.is_set()
            status = engine.supervisor.status
            assert status().phase == "running"
            await until(lambda: "has not finished the schema" in status().reason)
        finally:
            answers.set()

    run(layout, scenario, urls={"database": Secret("postgresql:///none")}, migrate=migrate)


def test_unreachable_database_is_retried_in_the_background(layout: Layout) -> None:
    attempts: list[str] = []
    is_back: list[bool] = []

    def migrate(url: str) -> list[str]:
        attempts.append(url)
        if not is_back:
            raise DatabaseUnavailableError("connection refused")
        return ["0001"]

    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "red")
        await until(lambda: len(attempts) >= 3)
        is_back.append(True)
        await until(lambda: engine.supervisor.status().status == "green")

    run(layout, scenario, urls={"database": Secret("postgresql:///none")}, migrate=migrate)


@pytest.mark.fault("V04")
def test_children_die_with_a_killed_parent(layout: Layout) -> None:
    """The parent runs in a process of its own, so that it can be killed."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from engine.data.layout import open_layout\n"
        "from tests.engine.supervisor.test_supervisor import Engine\n"
        "async def main():\n"
        "    engine = Engine(open_layout(Path(sys.argv[1]), Path(sys.argv[2])))\n"
        "    await engine.supervisor.start()\n"
        "    print('started', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )

    async def scenario() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(layout.state_dir), str(layout.shm_dir.parent),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert parent.stdout is not None
        assert await asyncio.wait_for(parent.stdout.readline(), 30) == b"started\n"
        children = psutil.Process(parent.pid).children()
        assert len(children) == 4
        parent.kill()
        await parent.wait()
        await until(lambda: not any(_alive(child) for child in children), timeout_s=5)

    asyncio.run(scenario())


@pytest.mark.fault("V07")
def test_second_engine_on_the_same_state_directory_is_refused(layout: Layout) -> None:
    assert not instance.is_held(layout)
    with instance.hold(layout):
        assert instance.is_held(layout)
        with pytest.raises(InstanceBusyError, match=f"pid {os.getpid()}"), instance.hold(layout):
            pass
    assert not instance.is_held(layout)


def test_an_engine_on_a_copy_of_the_state_directory_is_refused(
    layout: Layout, tmp_path: Path
) -> None:
    """It has the same rings: its writer would take, and at its end remove, what is not its own."""
    copy = tmp_path / "copy"
    shutil.copytree(layout.state_dir, copy)
    other = open_layout(copy, layout.shm_dir.parent)
    assert other.shm_dir == layout.shm_dir
    lock = layout.shm_dir.with_name(f"{layout.shm_dir.name}.lock")
    lock.touch()  # of one that was killed
    for first, second in ((layout, other), (other, layout)):
        with instance.hold_rings(first):
            refused = pytest.raises(InstanceBusyError, match=f"a copy of {second.state_dir}")
            with refused, instance.hold_rings(second):
                pass
        assert not lock.exists()


def test_note_is_there_only_while_the_engine_runs(layout: Layout) -> None:
    with instance.hold(layout):
        instance.write_note(layout, instance.EngineNote(1, "http://127.0.0.1:1"))
        assert instance.read_note(layout) == instance.EngineNote(1, "http://127.0.0.1:1")
        (layout.state_dir / "engine.json").write_bytes(b'{"control_url":"\xff"}')
        assert instance.read_note(layout) is None
    assert instance.read_note(layout) is None
    instance.write_note(layout, instance.EngineNote(1, "http://127.0.0.1:1"))
    assert instance.read_note(layout) is None, "a leftover note has no lock behind it"


def test_child_without_its_birth_message_says_so(layout: Layout) -> None:
    """`ControlSettings` is not what a shard is born with."""
    settings = ControlSettings("127.0.0.1", 0, LogSettings(str(layout.log_file)))

    async def scenario() -> None:
        child = await Child.spawn("odd", f"{FAKES}:shard", settings)
        assert describe_exit(await child.wait(20)) == "exit code 42: it never got its settings"
        await child.pipe.close()

    asyncio.run(scenario())


def test_exits_are_described_in_words() -> None:
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(-200) == "killed by signal 200"
    assert describe_exit(3) == "exit code 3"


def _alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


class _captured:
    """Collects this process's log messages; the supervisor under test logs here."""

    def __init__(self, records: list[str]) -> None:
        class Collector(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(record.getMessage())

        self._logger = logging.getLogger("engine")
        self._handler = Collector()

    def __enter__(self) -> None:
        self._logger.addHandler(self._handler)
        self._level = self._logger.level
        self._logger.setLevel("INFO")

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)
