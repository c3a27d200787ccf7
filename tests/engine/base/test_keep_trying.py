"""A failing piece of work: how long it waits, what it says, and when its trouble is over."""

import asyncio
import logging

import pytest

from engine.base.backoff import Backoff
from engine.base.errors import ConfigError, DatabaseUnavailableError
from engine.base.keep_trying import Trouble, keep_trying

LOG = logging.getLogger("tests.keep_trying")


class Clock:
    """Time that the test sets."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_many_failures_in_a_row_are_followed_by_a_pause_until_one_try_works() -> None:
    backoff = Backoff(1.0, 8.0, breaks_after=3, pause_s=100.0)
    for tried in range(2):
        delays = [backoff.next_s() for _ in range(5)]
        for delay_s, most_s in zip(delays, (1.0, 2.0, 100.0, 100.0, 100.0), strict=True):
            assert most_s / 2 <= delay_s <= most_s, tried
        backoff.reset()
    patient = Backoff(1.0, 8.0)
    assert max(patient.next_s() for _ in range(100)) <= 8.0, "without a limit there is no pause"


def make(clock: Clock | None = None, backoff: Backoff | None = None) -> Trouble:
    return Trouble(
        "database", "trying again", backoff or Backoff(0.001, 0.001), LOG, clock or Clock()
    )


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_work_is_tried_until_it_is_done() -> None:
    trouble, failures = make(), [DatabaseUnavailableError("away"), OSError("reset")]

    async def work() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    cured = (DatabaseUnavailableError, OSError)
    assert asyncio.run(keep_trying(work, trouble, cured)) == "done"
    assert trouble.text == ""


@pytest.mark.parametrize("error", [ConfigError("no such key"), ValueError("a bug")])
def test_what_time_does_not_cure_is_raised(error: Exception) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(keep_trying(work, make()))


@pytest.mark.fault("N39")
def test_delays_grow_until_work_was_done_and_start_over_then() -> None:
    trouble = make(backoff=Backoff(1.0, 30.0))
    delays = [trouble.met("READONLY") for _ in range(12)]
    assert delays[0] <= 1.0
    assert delays[-1] >= 15.0, "a server that lets us in and refuses is not asked again and again"
    trouble.over()
    assert trouble.met("READONLY") <= 1.0


@pytest.mark.fault("N26")
def test_the_same_words_are_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = make(clock)
    with caplog.at_level(logging.INFO, LOG.name):
        for number in range(500):
            clock.now_s += 0.1
            trouble.met(f"OOM command not allowed, {number} bytes over")
            trouble.met("connection reset by peer")
        assert len(said(caplog)) == 2
        clock.now_s += 300
        trouble.met("connection reset by peer")
    assert said(caplog)[-1] == (
        "database: connection reset by peer (and 499 times before, unsaid); trying again"
    )


def test_the_end_of_a_trouble_is_said_with_its_length(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = make(clock)
    with caplog.at_level(logging.INFO, LOG.name):
        trouble.over()
        assert said(caplog) == []
        trouble.met("away")
        assert (trouble.text, trouble.since_s) == ("away", 1_000.0)
        clock.now_s += 2.5
        trouble.met("away")
        trouble.over()
    assert said(caplog)[-1] == "database: works again, after 2 failed tries in 2.5 s"


@pytest.mark.fault("N39")
def test_one_that_works_now_and_then_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    trouble = make(clock)
    with caplog.at_level(logging.INFO, LOG.name):
        for _ in range(1000):
            clock.now_s += 0.25
            trouble.met("READONLY")
            trouble.over()
    assert len(said(caplog)) == 2


def test_many_different_texts_take_bounded_memory() -> None:
    trouble = make()
    for number in range(1000):
        trouble.met("x" * number + "y")
    assert len(trouble._said) <= 64
