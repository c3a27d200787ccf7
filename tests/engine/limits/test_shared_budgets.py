"""Engines that share budgets through Redis: together they stay within them, whatever happens."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from engine.base.clock import monotonic_s
from engine.base.redis_link import Command, parse_redis_url
from engine.limits.budget import Budget, Spent, Waiter
from engine.limits.lease_desk import LeaseDesk
from engine.limits.shared_budgets import Pool, SharedLimits
from engine.messages.limits import (
    LeaseAnswer,
    LeaseGranted,
    LeaseRequest,
    LimitFeedback,
)
from engine.messages.settings import LimitSettings
from engine.servers.valkey import PrivateValkey
from tests.waiting import until

WEIGHT = LimitSettings("acme", "rest_weight", 20, 1.0)
POOL = ("acme", "rest_weight")
PREFIX = "fts:limits:default"
HASH = f"{PREFIX}:acme:rest_weight"
DEADLINE_S = 0.5

LATE_S = 0.08

Grants = list[tuple[float, str, float]]
"""When, to which engine, how many units."""


class LateLimits(SharedLimits):
    """Hears from Redis late."""

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        replies = await super()._call(commands)
        await asyncio.sleep(LATE_S)
        return replies


class Engine:
    """The desk of one engine; its grants go to a list that all engines of a test share."""

    def __init__(
        self,
        name: str,
        directory: Path,
        redis_url: str,
        grants: Grants,
        *,
        alone: bool = False,
        window_s: float = WEIGHT.window_s,
        limits: type[SharedLimits] = SharedLimits,
    ) -> None:
        self.name = name
        self.grants = grants
        self._units: dict[int, float] = {}
        address = parse_redis_url(redis_url)

        def share(windows_s: Mapping[Pool, float]) -> SharedLimits:
            return limits(address, PREFIX, name, windows_s, DEADLINE_S)

        self.desk = LeaseDesk(
            [LimitSettings(*POOL, WEIGHT.budget, window_s)],
            directory / f"{name}.json",
            self._granted,
            share,
            goes_on_alone=alone,
        )
        self.desk.start()

    def ask(self, units: float) -> None:
        request_id = len(self._units)
        self._units[request_id] = units
        self.desk.ask("shard-0", LeaseRequest(request_id, *POOL, units))

    def _granted(self, client: str, message: LeaseAnswer) -> None:
        del client
        if not isinstance(message, LeaseGranted):
            return
        self.grants.append((monotonic_s(), self.name, self._units[message.request_id]))


class Group:
    """Engines that share; `engine(name)` adds one."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        self._directory, self._redis_url = directory, redis_url
        self.grants: Grants = []
        self.engines: list[Engine] = []

    def engine(self, name: str, **options: Any) -> Engine:
        engine = Engine(name, self._directory, self._redis_url, self.grants, **options)
        self.engines.append(engine)
        return engine

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await until(condition, what)

    async def until_granted(self, count: int) -> None:
        await self.until(lambda: len(self.grants) >= count, f"{count} grants")

    def assert_strict(self) -> None:
        """No window holds more than the budget, whoever granted it."""
        for start_s, _, _ in self.grants:
            inside = [
                units for at_s, _, units in self.grants if 0 <= at_s - start_s < WEIGHT.window_s
            ]
            assert sum(inside) <= WEIGHT.budget, self.grants


Scenario = Callable[[Group], Awaitable[None]]
RunGroup = Callable[[Scenario], None]


@pytest.fixture
def group(tmp_path: Path, redis_url: str) -> RunGroup:
    """Run a scenario; the engines are closed behind it."""

    def run(scenario: Scenario) -> None:
        async def body() -> None:
            group = Group(tmp_path, redis_url)
            try:
                await scenario(group)
            finally:
                for engine in group.engines:
                    await engine.desk.close()

        asyncio.run(body())

    return run


SPENDING = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 20)), max_size=20)


@pytest.mark.fault("H07")
@given(SPENDING, SPENDING, st.integers(1, 50))
def test_what_others_spent_takes_room_until_it_leaves_the_window(
    ours: list[tuple[float, int]], others: list[tuple[float, int]], units: int
) -> None:
    budget, now_s = Budget(50, 60), 100.0
    budget.restore([Spent(at_s, n) for at_s, n in ours], now_s)
    budget.others_spent([Spent(at_s, n) for at_s, n in sorted(others)])
    budget.ask(Waiter("a", 1, units))
    delay_s = budget.next_grant_s(now_s)
    assert delay_s is not None

    def room_at(at_s: float) -> float:
        return 50 - sum(n for spent_s, n in ours + others if spent_s + 60 > at_s)

    if delay_s > 0:
        assert room_at(now_s + delay_s - 1e-6) < units
        assert not budget.grant(now_s)
    assert room_at(now_s + delay_s + 1e-6) >= units
    assert budget.grant(now_s + delay_s + 1e-6)


@pytest.mark.fault("H07")
def test_three_engines_together_stay_within_one_budget(group: RunGroup) -> None:
    async def scenario(group: Group) -> None:
        engines = [group.engine(name) for name in ("a", "b", "c")]
        for units in (1, 2, 3, 5, 8, 1, 4):
            for engine in engines:
                engine.ask(units)
        await group.until_granted(21)
        group.assert_strict()
        assert {name for _, name, _ in group.grants} == {"a", "b", "c"}
        (report,) = engines[0].desk.reports()
        assert report.others_used is not None

    group(scenario)


@pytest.mark.fault("H02")
@pytest.mark.parametrize("limits", [SharedLimits, LateLimits])
def test_a_ban_that_one_engine_met_holds_the_others(
    group: RunGroup, limits: type[SharedLimits]
) -> None:
    async def scenario(group: Group) -> None:
        one, other = group.engine("one", limits=limits), group.engine("other")
        one.ask(1)
        await group.until_granted(1)
        banned_s = monotonic_s()
        one.desk.feedback(LimitFeedback(*POOL, retry_after_s=6, status=418))
        await group.until(lambda: other.desk.reports()[0].blocked_s > 0, "the ban to be known")
        other.ask(1)
        await group.until_granted(2)
        assert group.grants[1][0] - banned_s >= 6 - 1e-3

    group(scenario)


def test_without_redis_requests_wait_and_then_go_on(group: RunGroup, valkey: PrivateValkey) -> None:
    async def scenario(group: Group) -> None:
        engine = group.engine("one")
        engine.ask(1)
        await group.until_granted(1)
        valkey.stop()
        await group.until(lambda: engine.desk.problem, "the loss to be noticed")
        for _ in range(5):
            engine.ask(1)
        await asyncio.sleep(0.3)
        assert len(group.grants) == 1
        valkey.start()
        await group.until_granted(6)
        assert engine.desk.problem == ""
        group.assert_strict()

    group(scenario)


def test_a_hung_redis_is_left_after_its_deadline(group: RunGroup, valkey: PrivateValkey) -> None:
    async def scenario(group: Group) -> None:
        engine = group.engine("one")
        engine.ask(1)
        await group.until_granted(1)
        with Redis.from_url(valkey.start()) as client:
            pid = client.info()["process_id"]
        signal_process(pid, signal.SIGSTOP)
        try:
            engine.ask(1)
            await group.until(lambda: engine.desk.problem, "the hang to be noticed")
        finally:
            signal_process(pid, signal.SIGCONT)
        await group.until_granted(2)

    group(scenario)


def test_alone_an_engine_goes_on_and_writes_down_later_what_it_spent(
    group: RunGroup, valkey: PrivateValkey
) -> None:
    async def scenario(group: Group) -> None:
        engine = group.engine("one", alone=True, window_s=60.0)
        engine.ask(1)
        await group.until_granted(1)
        valkey.stop()
        await group.until(lambda: engine.desk.problem, "the loss to be noticed")
        engine.ask(15)
        await group.until_granted(2)
        with Redis.from_url(valkey.start()) as client:
            await group.until(lambda: total(client) >= 15, "the spending to be written down")

    group(scenario)


def test_a_flushed_redis_is_told_again_what_was_spent(group: RunGroup, redis_url: str) -> None:
    async def scenario(group: Group) -> None:
        engine = group.engine("one", window_s=60.0)
        with Redis.from_url(redis_url) as client:
            engine.ask(15)
            await group.until_granted(1)
            assert total(client) == 15
            client.flushall()
            await group.until(lambda: total(client) == 15, "the spending to be written again")

    group(scenario)


def test_what_counts_no_more_is_gone_for_good(group: RunGroup, redis_url: str) -> None:
    async def scenario(group: Group) -> None:
        engine = group.engine("one")
        with Redis.from_url(redis_url) as client:
            engine.ask(15)
            await group.until_granted(1)
            await group.until(lambda: not client.exists(HASH), "the hash to vanish")
            await asyncio.sleep(1.3)  # longer than between two looks
            assert not client.exists(HASH)

    group(scenario)


def test_nonsense_in_the_hash_is_removed_and_frees_nothing(group: RunGroup, redis_url: str) -> None:
    async def scenario(group: Group) -> None:
        with Redis.from_url(redis_url) as client:
            nonsense = {
                b"\xff/1": b"1", b"one": b"1", b"x/1": b"nan", b"y/1": b"-inf", b"z/0": b"5",
                b"blocked_until": b"1e999", b"w/99999999999999": b"-3",
            }  # fmt: skip
            client.hset(HASH, mapping=nonsense)
            engine = group.engine("one")
            engine.ask(20)
            engine.ask(20)
            await group.until_granted(2)
            group.assert_strict()
            names = {name.rpartition(b"/")[0] for name in client.hkeys(HASH)}
            assert names <= {b"one"}
            ttl_ms = client.pttl(HASH)
            assert 0 < ttl_ms <= 5_000, "nobody has to clean up behind us"

    group(scenario)


def total(client: "Redis") -> float:
    """Units in the hash, over all engines."""
    return sum(float(value) for value in client.hvals(HASH))


def signal_process(pid: int, number: signal.Signals) -> None:
    """Stop or continue a server of ours."""
    os.kill(pid, number)
