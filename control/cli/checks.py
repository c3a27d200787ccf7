"""`./fts test`: everything that must hold before a change goes in, with one line for each.

Lint, format and layers take seconds and come first. Types take one CPU for a minute where nothing
is cached, so they are found out beside the tests, which wait much. Arguments go to pytest.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from engine.base.clock import monotonic_s

_HELP = """\
usage: ./fts test [lint | fast | clients] [PYTEST ARGUMENT ...]

Lint, format, types, layers and the test suite, with one line for each; 0 when all passed.

  lint      lint, format, types and layers alone: what a commit hook calls
  fast      the tests that start no server, no process and no browser, in less than a minute
  clients   clients that others wrote read the simulator; installs them first, which needs a network

examples:
  ./fts test                        everything, in less than 15 minutes
  ./fts test fast -k ring           the fast ones whose names have "ring"
  ./fts test tests/engine           the tests of one folder, and the checks
  ./fts test -k ring -x             those whose names have "ring", until the first failure
"""
_ROOT = Path(__file__).resolve().parents[2]
_WORKERS_MAX = 3
"""Flow tests start real servers; more of them at once would measure each other."""


def checks(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name and command of each check."""
    which, *rest = arguments or ("",)
    if which == "lint":
        return _static()
    if which == "fast":
        return [_tests(["--fast", *rest])]
    if which == "clients":
        return _of_clients(rest)
    return [*_static(beside_tests=True), _tests(arguments)]


def _static(*, beside_tests: bool = False) -> list[tuple[str, list[str]]]:
    tools = Path(sys.executable).parent
    yielding = ["nice", "-n", "19"] if beside_tests else []
    return [
        ("lint", [str(tools / "ruff"), "check", "--quiet", "."]),
        ("format", [str(tools / "ruff"), "format", "--check", "--quiet", "."]),
        ("types", [*yielding, sys.executable, "-m", "mypy", "--no-error-summary"]),
        ("layers", [str(tools / "lint-imports"), "--no-cache"]),
    ]


def _of_clients(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """In one process: they are few. Nothing is fetched where all are installed."""
    lock = str(_ROOT / "requirements-clients.lock")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    return [
        ("packages", [*pip, "--quiet", "--require-hashes", "--no-deps", "-r", lock]),
        ("tests", [sys.executable, "-m", "pytest", "-q", "tests/clients", *arguments]),
    ]


def _tests(arguments: Sequence[str]) -> tuple[str, list[str]]:
    # One more than there are CPUs: most tests wait for servers and clocks. A worker that is done
    # takes from those that are not; long ones come first (tests/shares.py).
    workers = str(min(_WORKERS_MAX, (os.cpu_count() or 1) + 1))
    has_xdist = importlib.util.find_spec("xdist") is not None
    parallel = ["-n", workers, "--dist", "worksteal"] if has_xdist else []
    return "tests", [sys.executable, "-m", "pytest", "-q", *parallel, *arguments]


class Checked(NamedTuple):
    """How a check ended, and what it said if that is to be heard at the end."""

    name: str
    passed: bool
    elapsed_s: float
    said: str = ""


def main(arguments: Sequence[str]) -> int:
    """Run all of them; 0 when all passed."""
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(_HELP)
        return 0
    outcomes = run(checks(arguments))
    sys.stdout.write("\n")
    for name, passed, elapsed_s, _ in outcomes:
        sys.stdout.write(f"{'ok    ' if passed else 'FAILED'} {name:<8} {elapsed_s:6.1f} s\n")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def run(wanted: Sequence[tuple[str, list[str]]]) -> list[Checked]:
    """One after the other, and those of types beside them."""
    outcomes = []
    with ThreadPoolExecutor(1) as beside:
        types = [beside.submit(_outcome, *check) for check in wanted if check[0] == "types"]
        for name, command in wanted:
            sys.stdout.write(f"== {name}\n")
            sys.stdout.flush()
            if name != "types":
                outcomes.append(_outcome(name, command))
                sys.stdout.write(outcomes[-1].said)
        for each in types:
            outcomes.append(each.result())
            sys.stdout.write(outcomes[-1].said)
    return outcomes


def _outcome(name: str, command: list[str]) -> Checked:
    """Run one; the quiet ones are heard only when they fail."""
    started_s = monotonic_s()
    quiet = None if name == "tests" else subprocess.PIPE
    done = subprocess.run(
        command, cwd=_ROOT, check=False, stdout=quiet, stderr=quiet and subprocess.STDOUT, text=True
    )
    said = done.stdout if quiet and done.returncode else ""
    return Checked(name, done.returncode == 0, monotonic_s() - started_s, said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
