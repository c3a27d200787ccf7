"""What systemd hears of an engine, on a socket as it has one."""

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.data.layout import Layout
from engine.messages.status import ChildReport, EngineStatus, Phase, WriterReport
from engine.supervisor.systemd import Systemd
from tests.engine.supervisor.test_supervisor import Engine, run
from tests.waiting import until

Heard = Callable[[], list[dict[str, str]]]
STATUS = EngineStatus(
    "green", "", "starting", "x", 1.0, [], WriterReport(ChildReport("writer")),
    ChildReport("control"), [],
)  # fmt: skip


@pytest.fixture
def listening() -> Iterator[tuple[str, Heard]]:
    """Its address, and what came there since the last look."""
    with tempfile.TemporaryDirectory() as folder:  # a path that fits into a socket's name
        path = str(Path(folder) / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.bind(path)
            yield path, lambda: hear(link)


def hear(link: socket.socket) -> list[dict[str, str]]:
    heard: list[dict[str, str]] = []
    while True:
        try:
            text = link.recv(65_536, socket.MSG_DONTWAIT).decode()
        except BlockingIOError:
            return heard
        heard.append(dict(line.split("=", 1) for line in text.splitlines()))


def at(phase: Phase, reason: str = "") -> EngineStatus:
    return msgspec.structs.replace(STATUS, phase=phase, reason=reason)


def test_each_phase_is_said_once_and_how_it_is_when_that_changes(
    listening: tuple[str, Heard],
) -> None:
    path, heard = listening
    systemd = Systemd({"NOTIFY_SOCKET": path})
    for phase in ("starting", "starting", "running", "running", "draining", "stopped"):
        systemd.tell(at(phase))
    systemd.tell(at("stopped", "two\n  lines\nREADY=0"))
    assert heard() == [
        {"STATUS": "starting, green: 0 of 0 streams live"},
        {"STATUS": "running, green: 0 of 0 streams live", "READY": "1"},
        {"STATUS": "draining, green: 0 of 0 streams live", "STOPPING": "1"},
        {"STATUS": "stopped, green: 0 of 0 streams live"},
        {"STATUS": "stopped, green: 0 of 0 streams live; two lines READY=0"},
    ]


@pytest.mark.parametrize(
    ("watchdog", "signs"),
    [
        ({"WATCHDOG_USEC": "1"}, 3),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())}, 3),
        ({"WATCHDOG_USEC": str(3600 * 10**6)}, 1),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({}, 0),
    ],
)
def test_signs_of_life_come_as_often_as_they_are_waited_for(
    listening: tuple[str, Heard], watchdog: dict[str, str], signs: int
) -> None:
    path, heard = listening
    systemd = Systemd({"NOTIFY_SOCKET": path, **watchdog})
    for _ in range(3):
        systemd.tell(at("running"))
    assert sum("WATCHDOG" in each for each in heard()) == signs


def test_names_that_no_file_has_and_names_that_nobody_has() -> None:
    name = f"fts-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(f"\0{name}")
        Systemd({"NOTIFY_SOCKET": f"@{name}"}).tell(at("running"))
        assert [each["READY"] for each in hear(link)] == ["1"]
    for env in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        assert not Systemd(env).listens


def test_a_systemd_that_comes_back_hears_what_it_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = f"fts-late-{os.getpid()}"
    systemd = Systemd({"NOTIFY_SOCKET": f"@{name}"})
    with caplog.at_level(logging.WARNING):
        systemd.tell(at("running"))
        systemd.tell(at("running"))
    assert len(caplog.messages) == 1, "said once"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(f"\0{name}")
        systemd.tell(at("running"))
        assert [each["READY"] for each in hear(link)] == ["1"]


@pytest.mark.whole
def test_an_engine_is_ready_when_it_runs_lives_while_it_ticks_and_says_that_it_stops(
    layout: Layout, listening: tuple[str, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, heard = listening
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    told: list[dict[str, str]] = []

    def said(name: str) -> int:
        told.extend(heard())
        return sum(name in each for each in told)

    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: said("READY"))
        before = said("WATCHDOG")
        await until(lambda: said("WATCHDOG") >= before + 2)
        assert not said("STOPPING")
        await engine.supervisor.stop()
        assert said("STOPPING") == 1

    run(layout, scenario)
    stopping = next(each for each in told if "STOPPING" in each)
    assert stopping["STATUS"].startswith("draining, ")
