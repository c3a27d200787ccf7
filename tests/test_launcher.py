"""The launcher with pretended interpreters: nothing is downloaded, nothing slow is made."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[1]
TOOLS = (
    "sh", "cat", "cksum", "dirname", "readlink", "mkdir", "rm", "mv", "sed", "grep", "tail", "head",
    "sleep", "uname", "touch", "chmod", "env", "cp",
)  # fmt: skip

FAKE_PYTHON = """#!/bin/sh
# Pretends to be Python: makes an environment that holds a copy of itself.
case "$*" in
    *version_info*) exit {fits} ;;
    *ensurepip*) exit {can_make} ;;
    -V) echo "Python {version}" ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo made >>"{trace}"; {venv} ;;
    *"pip "*) echo "pip" >>"{trace}"; {pip} ;;
    *) echo "ran: $*"; pwd ;;
esac
"""


class Checkout:
    """A copy of the launcher with tools and interpreters of the test's choice."""

    def __init__(self, root: Path) -> None:
        self.root = root / "a path 'with' \"signs\" %d 币,é #"
        self.root.mkdir()
        self.bin = root / "bin"
        self.bin.mkdir()
        self.trace = root / "trace"
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (self.bin / tool).symlink_to(found)
        for name in ("fts", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)

    def python(
        self, name: str, version: str = "3.12.0", *, fits: int = 0, can_make: int = 0,
        venv: str = ":", pip: str = ":",
    ) -> Path:  # fmt: skip
        path = self.bin / name
        path.write_text(
            FAKE_PYTHON.format(
                version=version, fits=fits, can_make=can_make, trace=self.trace, venv=venv, pip=pip
            )
        )
        path.chmod(0o755)
        return path

    def command(self, *arguments: str) -> list[str]:
        return [str(self.root / "fts"), *arguments]

    def env(self, **changes: str) -> dict[str, str]:
        return {"PATH": str(self.bin), **changes}

    def run(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments), env=self.env(**env), capture_output=True, text=True,
            timeout=30, check=False, cwd="/",
        )  # fmt: skip

    def made(self) -> int:
        return self.trace.read_text().count("made") if self.trace.exists() else 0


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_first_use_makes_the_environment_and_later_uses_do_not(checkout: Checkout) -> None:
    checkout.python("python3.12")
    first = checkout.run("demo", "--for", "1 2")
    assert first.returncode == 0, first.stderr
    assert "making the environment with Python 3.12.0" in first.stderr
    assert "installing the locked packages" in first.stderr
    assert first.stdout.splitlines() == ["ran: -P -m control.cli.main demo --for 1 2", "/"]
    second = checkout.run("demo")
    assert second.stderr == ""
    assert checkout.made() == 1


def test_a_changed_lock_file_makes_it_anew(checkout: Checkout) -> None:
    checkout.python("python3.12")
    checkout.run("version")
    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert checkout.run("version").returncode == 0
    assert checkout.made() == 2


def test_a_half_made_environment_is_made_anew(checkout: Checkout) -> None:
    checkout.python("python3.12", pip="exit 1")
    assert checkout.run("version").returncode == 2
    assert not (checkout.root / ".venv" / "made-from").exists()
    assert not (checkout.root / ".venv.making").exists()
    checkout.python("python3.12")
    assert checkout.run("version").returncode == 0
    assert checkout.made() == 2


def test_the_newest_known_python_is_taken(checkout: Checkout) -> None:
    checkout.python("python3.11", "3.11.9")
    checkout.python("python3.13", "3.13.1")
    assert "with Python 3.13.1" in checkout.run("version").stderr


def test_a_python_without_venv_is_passed_over_or_explained(checkout: Checkout) -> None:
    checkout.python("python3.13", "3.13.1", can_make=1)
    alone = checkout.run("version")
    assert alone.returncode == 2
    assert "apt-get install python3-venv" in alone.stderr
    checkout.python("python3", "3.11.2")
    assert "with Python 3.11.2" in checkout.run("version").stderr


def test_an_old_python_is_named(checkout: Checkout) -> None:
    checkout.python("python3", "3.9.2", fits=1)
    done = checkout.run("version")
    assert done.returncode == 2
    assert "Python 3.11 or newer is needed; found only: python3 (Python 3.9.2)" in done.stderr
    assert not (checkout.root / ".venv").exists()


def test_no_python_at_all_is_said_plainly(checkout: Checkout) -> None:
    done = checkout.run("version")
    assert done.returncode == 2
    assert "none was found" in done.stderr
    assert "FTS_PYTHON" in done.stderr


def test_the_named_interpreter_wins_and_must_fit(checkout: Checkout) -> None:
    checkout.python("python3.13", "3.13.1")
    mine = checkout.python("mine", "3.12.5")
    assert "with Python 3.12.5" in checkout.run("version", FTS_PYTHON=str(mine)).stderr
    checkout.python("old", "3.8.0", fits=1)
    shutil.rmtree(checkout.root / ".venv")
    done = checkout.run("version", FTS_PYTHON="old")
    assert done.returncode == 2
    assert "old is Python 3.8.0" in done.stderr
    assert "no such program: gone" in checkout.run("version", FTS_PYTHON="gone").stderr


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ERROR: No matching distribution found for picows==2.3.1", "no wheel of picows==2.3.1"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "does not match requirements.lock"),
        ("NewConnectionError: Network is unreachable", "cannot be reached"),
    ],
)
def test_a_failed_installation_says_why_and_where_to_read(
    checkout: Checkout, said: str, expected: str
) -> None:
    checkout.python("python3.12", pip=f'echo "{said}"; exit 1')
    done = checkout.run("version")
    assert done.returncode == 2
    assert expected in done.stderr
    assert f"see {checkout.root}/.venv.log" in done.stderr


def test_first_users_at_the_same_time_make_it_once(checkout: Checkout) -> None:
    checkout.python("python3.12", venv="sleep 0.4")
    outcomes: list[int] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(checkout.run("version").returncode))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [0, 0, 0, 0]
    assert checkout.made() == 1


def test_an_interrupted_first_use_leaves_no_lock(checkout: Checkout) -> None:
    # Many short sleeps: a signal that comes just before a sleep is looked at only after it.
    waits = (
        f"import pathlib, time; pathlib.Path('{checkout.trace}.started').touch(); "
        "[time.sleep(0.02) for _ in range(1500)]"
    )
    checkout.python("python3.12", venv=f'exec "{sys.executable}" -c "{waits}"')
    process = subprocess.Popen(
        checkout.command("version"), env=checkout.env(), stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not checkout.trace.with_name("trace.started").exists():
        assert process.poll() is None
        os.sched_yield()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) != 0
    checkout.python("python3.12")
    assert checkout.run("version").returncode == 0


def test_the_lock_of_a_killed_first_user_is_taken_over(checkout: Checkout) -> None:
    checkout.python("python3.12")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    busy = checkout.root / ".venv.making"
    busy.mkdir()
    (busy / "pid").write_text(f"{dead.pid}\n")
    assert checkout.run("version").returncode == 0


def test_it_works_through_a_link(checkout: Checkout) -> None:
    checkout.python("python3.12")
    link = checkout.bin / "fts"
    link.symlink_to(checkout.root / "fts")
    done = subprocess.run(
        [str(link), "version"], env=checkout.env(), capture_output=True, text=True, check=False,
        timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (checkout.root / ".venv").exists()


def test_test_runs_the_checks_from_the_root(checkout: Checkout) -> None:
    checkout.python("python3.12")
    done = checkout.run("test", "-k", "ring")
    assert done.stdout.splitlines() == ["ran: -P -m control.cli.checks -k ring", str(checkout.root)]


def test_the_environment_can_live_elsewhere(checkout: Checkout, tmp_path: Path) -> None:
    checkout.python("python3.12")
    elsewhere = tmp_path / "other place" / "venv"
    elsewhere.parent.mkdir()
    assert checkout.run("version", FTS_VENV=str(elsewhere)).returncode == 0
    assert (elsewhere / "made-from").exists()
    assert not (checkout.root / ".venv").exists()


@pytest.mark.fault("N23")
def test_the_environment_may_be_named_from_where_one_is(checkout: Checkout, tmp_path: Path) -> None:
    checkout.python("python3.12")
    for arguments in (["version"], ["test"]):
        done = subprocess.run(
            checkout.command(*arguments), env=checkout.env(FTS_VENV="mine"), cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "made-from").exists()


@pytest.mark.fault("N23")
@pytest.mark.parametrize("name", ["a:b", "$c", "two\nlines"])
def test_a_place_where_python_makes_no_environment_is_named(
    checkout: Checkout, tmp_path: Path, name: str
) -> None:
    checkout.python("python3.12")
    done = checkout.run("version", FTS_VENV=str(tmp_path / name))
    assert done.returncode == 2
    assert "set FTS_VENV to a directory without" in done.stderr
    assert not checkout.made()
