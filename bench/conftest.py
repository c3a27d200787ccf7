"""What every suite has: the yardstick beside each benchmark, lines of progress, the machine."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.machine import machine
from bench.progress import say
from bench.yardstick import cost_s

QUICK = "FTS_BENCH_QUICK"
BEFORE = "FTS_BENCH_BEFORE"
"""Results of the run before, which say how long each benchmark takes."""
TITLE = "FTS_BENCH_TITLE"


@pytest.fixture(scope="session")
def quick() -> bool:
    """Whether somebody waits: fewer and shorter measurements."""
    return bool(os.environ.get(QUICK))


@pytest.fixture(autouse=True)
def beside_the_yardstick(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure the fixed piece of work before and after each benchmark."""
    if "benchmark" not in request.fixturenames:
        yield
        return
    benchmark = request.getfixturevalue("benchmark")
    before_s, began_s = cost_s(), perf_counter()
    yield
    taken_s = perf_counter() - began_s
    benchmark.extra_info["yardstick_us"] = round(min(before_s, cost_s()) * 1e6, 2)
    benchmark.extra_info["took_s"] = round(taken_s, 2)


@pytest.fixture
def figure(benchmark: BenchmarkFixture) -> Callable[[float], None]:
    """Give a figure in seconds the place of a measured time, so that lower is better and whatever
    reads pytest-benchmark's results can compare it.
    """

    def note(seconds: float) -> None:
        readings = iter((0.0, seconds))
        benchmark._timer = lambda: next(readings)
        benchmark.pedantic(lambda: None)

    return note


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    """Tell the machine; its name is nobody's business."""
    del config
    machine_info.pop("node", None)
    machine_info.update(machine())


class Progress:
    """What runs, the n-th of m, and about how long the rest takes."""

    def __init__(self) -> None:
        self._expected_s = _took_before()
        self._left: list[str] = []
        self._count = self._done = 0
        self._began_s = perf_counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All that will run."""
        self._left = [item.nodeid for item in session.items]
        self._count = len(self._left)
        self._began_s = perf_counter()

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        """Say what begins."""
        del location
        name = nodeid.rpartition("::")[2].removeprefix("test_")
        title = os.environ.get(TITLE, "bench")
        say(f"{title}: {self._done + 1} of {self._count}  {name}{self._rest()}")
        self._left.remove(nodeid)
        self._done += 1

    def _rest(self) -> str:
        usual_s = (perf_counter() - self._began_s) / self._done if self._done else None
        each_s = [self._expected_s.get(nodeid, usual_s) for nodeid in self._left]
        known_s = [each for each in each_s if each is not None]
        return f"  (about {sum(known_s):,.0f} s left)" if len(known_s) == len(each_s) else ""


def _took_before() -> dict[str, float]:
    try:
        run = json.loads(Path(os.environ[BEFORE]).read_text(encoding="utf-8"))
        entries = run["benchmarks"]
        return {e["fullname"]: float(e["extra_info"].get("took_s", 0.0)) for e in entries}
    except (KeyError, OSError, ValueError):
        return {}


def pytest_configure(config: pytest.Config) -> None:
    """Begin to tell."""
    config.pluginmanager.register(Progress(), "bench-progress")
