"""Children that are copies are children like others, and without a fork server there are others."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.process.release import release
from tests.engine.process import forked
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    directory = tmp_path_factory.mktemp("forks")
    done = subprocess.run(
        [sys.executable, "-m", forked.HERE, str(directory)],
        cwd=ROOT, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "children are started one by one from now on" in done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("how", ["copied", "alone"])
def test_child_is_ours_has_what_it_was_passed_and_its_end_is_known(
    found: dict[str, dict[str, object]], how: str
) -> None:
    child = found[how]
    assert child["passed"] == 42
    assert child["is_ours"]
    assert child["leads"], "Ctrl-C in a terminal is not for it"
    assert child["cmdline"] == ["-P", "-m", "engine.process.birth", "odd", f"{forked.HERE}:run"]
    assert child["reads"] == "/dev/null"
    assert not child["lock_is_open"]
    assert child["exit_code"] == forked.EXIT_CODE


def test_copy_is_of_the_release_that_it_is_copied_from(found: dict[str, dict[str, object]]) -> None:
    assert found["copied"]["release"] == release(), "not of what is on disk when it is born"
    assert found["alone"]["release"] == "", "it has yet to look"


def test_nobody_is_left(found: dict[str, object]) -> None:
    assert not found["is_anybody_left"]


def test_copies_and_their_server_end_with_the_supervisor(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", forked.HERE, str(tmp_path), "stay"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(pids) == 2
        supervisor.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(map(psutil.pid_exists, pids)))
