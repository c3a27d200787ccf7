"""A market on schedule: what is late has the time at which it was due, and nothing is left out."""

import asyncio
import time
from contextlib import suppress

import pytest

from shards.simulator.core.ledger import Ledger
from shards.simulator.core.pace import MAX_RATE, Pacer
from shards.simulator.core.sessions import Hub, Topic

STALL_S = 0.25


class HeldUp:
    """A venue whose tenth trade takes longer than a pacer that skips would make up for."""

    def __init__(self, *weights: float) -> None:
        self.weights = list(weights)
        self.hub = Hub("toy", ["A"])
        self.trades: list[int] = []
        self.books: list[int] = []
        self.enough = asyncio.Event()

    def trade_topic(self, index: int) -> Topic | None:
        """A topic is false where nobody listens."""
        topic = Topic()
        topic.raw = [None]  # type: ignore[list-item]
        return topic

    def emit_trades(self, index: int, count: int, now_ms: int) -> None:
        before = len(self.trades)
        self.trades += [now_ms] * count
        if before < 10 <= len(self.trades):
            time.sleep(STALL_S)
        if len(self.trades) >= 200:
            self.enough.set()

    def step_books(self, slot: int, now_ms: int) -> None:
        self.books.append(now_ms)


async def run(venue: HeldUp, book_speed: float) -> None:
    """Until 200 trades have happened, two in each tick of 5 ms."""
    ledger = Ledger(None, (), [])
    pacer = Pacer([(venue, 1.0)], ledger, 400.0, 1, on_schedule=True, book_speed=book_speed)
    task = asyncio.create_task(pacer.run())
    await asyncio.wait_for(venue.enough.wait(), 60)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_stall_moves_no_time_and_skips_no_trade() -> None:
    venue = HeldUp(1.0)
    asyncio.run(run(venue, book_speed=1.0))
    steps = [b - a for a, b in zip(venue.trades[::2], venue.trades[2::2], strict=False)]
    assert set(venue.trades[::2]) == set(venue.trades[1::2]), "two trades each 5 ms"
    # The two clocks may drift by a ms within the run, not by a stall.
    assert all(4 <= step <= 6 for step in steps), steps
    assert venue.books[: len(steps)] == venue.trades[: 2 * len(steps) : 2]


def test_books_step_so_many_times_as_fast() -> None:
    venue = HeldUp(1.0)
    asyncio.run(run(venue, book_speed=2.5))
    ticks = len(set(venue.trades))
    assert ticks * 2.5 - 3 <= len(venue.books) <= ticks * 2.5 + 3


def test_a_schedule_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="schedule"):
        Pacer([], Ledger(None, (), []), 1.0, 1, on_schedule=True).set_rate(MAX_RATE)


class Busy(HeldUp):
    """A venue of two instruments that notes what each is given."""

    def emit_trades(self, index: int, count: int, now_ms: int) -> None:
        self.given.append((now_ms, index, count))
        if len(self.given) >= 400:
            self.enough.set()

    def __init__(self) -> None:
        super().__init__(1.0, 3.0)
        self.given: list[tuple[int, int, int]] = []


def test_many_trades_come_in_long_runs_of_an_instrument_and_keep_the_shares() -> None:
    venue = Busy()

    async def scenario() -> None:
        pacer = Pacer([(venue, 1.0)], Ledger(None, (), []), 400_000.0, 1, on_schedule=True)
        task = asyncio.create_task(pacer.run())
        await asyncio.wait_for(venue.enough.wait(), 60)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    ticks: dict[int, int] = {}
    for at_ms, _, count in venue.given[:-4]:
        ticks[at_ms] = ticks.get(at_ms, 0) + count
    assert set(ticks.values()) == {2000}, "all that is due in 5 ms"
    assert min(count for _, _, count in venue.given) >= 500
    of_second = sum(count for _, index, count in venue.given if index)
    assert 0.65 < of_second / sum(count for _, _, count in venue.given) < 0.85
