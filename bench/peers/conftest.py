"""A database for all of them, and figures that were taken by another clock than the benchmark's."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.storing import database
from engine.start.migrations import migrate

Figure = Callable[[Sequence[float]], None]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A private PostgreSQL with our tables."""
    with database(None) as url:
        migrate(url)
        yield url


@pytest.fixture
def figure(benchmark: BenchmarkFixture) -> Figure:
    """Give the seconds of each round the place of measured times, so that lower is better and
    whatever reads pytest-benchmark's results can compare them.
    """

    def note(rounds_s: Sequence[float]) -> None:
        readings = iter([reading for each_s in rounds_s for reading in (0.0, each_s)])
        benchmark._timer = lambda: next(readings)
        benchmark.pedantic(lambda: None, rounds=len(rounds_s))

    return note
