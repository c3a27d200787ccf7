"""`fts` as the first process of a container: in a namespace of processes, as containers are."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.whole, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[3]
UNSHARE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)

_SPLIT = """
import os, signal, sys
from control.cli import first_process
first_process.split()
"""
_ORPHAN = """
if (child := os.fork()) == 0:
    os.fork()                 # whoever is the parent ends at once, and nobody waits for the other
    os._exit(0)
os.waitpid(child, 0)
while sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()) != [1, os.getpid()]:
    os.sched_yield()
print("parent", os.getppid())
sys.exit(4)
"""
_LISTENER = """
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
    signal.signal(number, lambda number, _: print(signal.Signals(number).name, flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("listens", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(autouse=True)
def namespaces() -> None:
    """Not every machine lets everybody make them."""
    if shutil.which(UNSHARE[0]) is None or subprocess.run(
        [*UNSHARE, "true"], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("no namespace of processes can be made here")


def first(script: str) -> "subprocess.Popen[str]":
    """Python as process 1 of a namespace of its own."""
    return subprocess.Popen(
        [*UNSHARE, sys.executable, "-P", "-c", _SPLIT + script],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_it_reaps_orphans_and_ends_as_the_one_below_it() -> None:
    with first(_ORPHAN) as process:
        assert process.communicate(timeout=60)[0] == "parent 1\n"
    assert process.returncode == 4


def test_it_hands_signals_on_once() -> None:
    with first(_LISTENER) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        (one,) = psutil.Process(process.pid).children()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            one.send_signal(number)
            assert process.stdout.readline() == f"{number.name}\n"
        one.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.wait(60) == 3


def test_an_end_by_a_signal_is_told_as_shells_do() -> None:
    with first("os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait(60) == 128 + signal.SIGKILL


def test_ctrl_c_at_a_terminal_reaches_the_one_below_it_once() -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, subprocess.Popen(
        ["setsid", "--ctty", *UNSHARE, sys.executable, "-P", "-c", _SPLIT + _LISTENER],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=theirs, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        os.write(terminal.fileno(), b"\x03")
        assert process.stdout.readline() == "SIGINT\n"
        (one,) = psutil.Process(process.pid).children()
        one.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "", "one Ctrl-C counts once"
        assert process.wait(60) == 3
