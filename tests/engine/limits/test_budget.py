"""Budgets: no window ever holds more than was granted to us, and a ban is a ban."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.clock import wall_ns
from engine.limits import lease_desk
from engine.limits.budget import Budget, Waiter
from engine.limits.lease_desk import LeaseDesk
from engine.messages.limits import (
    LeaseAnswer,
    LeaseBlocked,
    LeaseGranted,
    LeaseRequest,
    LimitFeedback,
    PlacesGranted,
    PlacesWanted,
)
from engine.messages.settings import HeldLimitSettings, LimitSettings
from tests.waiting import until

STEPS = st.lists(
    st.tuples(
        st.floats(0, 30),  # seconds that pass
        st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(1, 60)), max_size=8),
    ),
    max_size=40,
)


@pytest.mark.fault("H07")
@given(STEPS)
def test_weight_in_every_window_fits_the_budget_and_the_line_is_kept(
    steps: list[tuple[float, list[tuple[str, int]]]],
) -> None:
    budget, now_s = Budget(50, 60), 0.0
    asked: list[Waiter] = []
    granted: list[tuple[float, Waiter]] = []
    for passed_s, requests in steps:
        ends_s = now_s + passed_s
        while (delay_s := budget.next_grant_s(now_s)) is not None and now_s + delay_s <= ends_s:
            now_s += max(delay_s, 1e-6)
            granted += [(now_s, waiter) for waiter in budget.grant(now_s)]
        now_s = max(now_s, ends_s)
        for client, units in requests:
            asked.append(Waiter(client, len(asked), units))
            budget.ask(asked[-1])
        granted += [(now_s, waiter) for waiter in budget.grant(now_s)]
    assert [waiter for _, waiter in granted] == asked[: len(granted)]
    for start_s, _ in granted:
        inside = [min(w.units, 50) for at_s, w in granted if start_s <= at_s < start_s + 60]
        assert sum(inside) <= 50 + 1e-6


@pytest.mark.fault("H07")
@given(st.floats(0, 100), st.integers(1, 50))
def test_whoever_waits_is_served_as_soon_as_the_units_fit(spent_at_s: float, units: int) -> None:
    budget = Budget(50, 60)
    budget.ask(Waiter("a", 1, 50))
    assert budget.grant(spent_at_s)
    budget.ask(Waiter("b", 2, units))
    delay_s = budget.next_grant_s(spent_at_s)
    assert delay_s == pytest.approx(60)
    assert not budget.grant(spent_at_s + 59.999)
    assert budget.grant(spent_at_s + 60 + 1e-6)


def test_what_others_on_the_address_spent_counts_as_ours() -> None:
    budget = Budget(100, 60)
    budget.venue_says(90, 0.0)
    budget.ask(Waiter("a", 1, 20))
    assert not budget.grant(1.0)
    budget.venue_says(90, 1.0)  # no news
    assert budget.used(1.0) == 90
    assert budget.grant(60.0)


def test_a_client_that_is_gone_holds_nobody_up() -> None:
    budget = Budget(10, 60)
    budget.ask(Waiter("a", 1, 10))
    budget.grant(0.0)
    for number in range(5):
        budget.ask(Waiter("dead", number, 10))
    budget.ask(Waiter("b", 9, 1))
    budget.forget_client("dead")
    assert [waiter.client for waiter in budget.grant(60.0)] == ["b"]


WEIGHT = LimitSettings("acme", "rest_weight", 10, 0.5)


class Desk:
    """A desk that notes when it granted what."""

    def __init__(self, path: Path, limit: LimitSettings | HeldLimitSettings = WEIGHT) -> None:
        self.granted: list[tuple[float, str, int]] = []
        self.blocked: list[tuple[str, LeaseBlocked]] = []
        self.placed: list[tuple[str, PlacesGranted]] = []
        self.desk = LeaseDesk([limit], path, self._grant)
        self._loop = asyncio.get_running_loop()

    def _grant(self, client: str, message: LeaseAnswer) -> None:
        if isinstance(message, PlacesGranted):
            self.placed.append((client, message))
            return
        if isinstance(message, LeaseBlocked):
            self.blocked.append((client, message))
            return
        if isinstance(message, LeaseGranted):
            self.granted.append((self._loop.time(), client, message.request_id))

    def ask(
        self, client: str, request_id: int, units: float = 1, pool: str = "rest_weight"
    ) -> None:
        self.desk.ask(client, LeaseRequest(request_id, "acme", pool, units))

    async def until(self, count: int) -> None:
        await until(lambda: len(self.granted) >= count, f"{count} grants")


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


@pytest.mark.fault("H07")
def test_ten_clients_share_one_budget_in_order(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk(tmp_path / "limits.json")
        for number in range(40):
            desk.ask(f"client-{number % 10}", number)
        await desk.until(40)
        assert [request_id for _, _, request_id in desk.granted] == list(range(40))
        times = [at_s for at_s, _, _ in desk.granted]
        for first, tenth in zip(times, times[10:], strict=False):
            assert tenth - first >= WEIGHT.window_s
        desk.ask("client-1", 99, pool="unlimited")
        assert desk.granted[-1][2] == 99, "a pool without a budget is free"
        await desk.desk.close()

    run(body)


@pytest.mark.fault("H02")
def test_a_ban_lets_nobody_through_until_its_end_also_after_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "limits.json"
        desk = Desk(path)
        began_s = asyncio.get_running_loop().time()
        desk.desk.feedback(LimitFeedback("acme", "rest_weight", retry_after_s=0.8, status=418))
        desk.ask("shard-0", 1)
        # No close: this process is killed here.
        desk.desk.client_ended("shard-0")
        restarted = Desk(path)
        restarted.ask("shard-0", 1)
        (report,) = restarted.desk.reports()
        assert 0 < report.blocked_s <= 0.8
        assert report.waiting_count == 1
        await restarted.until(1)
        assert restarted.granted[0][0] - began_s >= 0.75
        assert desk.granted == []
        await desk.desk.close()
        await restarted.desk.close()

    run(body)


@pytest.mark.fault("H02")
def test_who_waits_is_told_of_a_ban_whenever_it_comes(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk(tmp_path / "limits.json")
        for request_id, client in enumerate(["shard-0", "shard-1", "shard-1"]):
            desk.ask(client, request_id, 10)
        assert desk.blocked == []
        desk.desk.feedback(LimitFeedback("acme", "rest_weight", retry_after_s=60, status=429))
        desk.ask("control", 9)
        assert sorted(client for client, _ in desk.blocked) == ["control", "shard-1"]
        assert all(59 < message.blocked_s <= 60 for _, message in desk.blocked)
        await desk.desk.close()

    run(body)


@pytest.mark.fault("H03")
def test_a_refused_address_is_named_with_the_reason_also_after_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "limits.json"
        desk = Desk(path)
        desk.desk.feedback(LimitFeedback("acme", "rest_weight", retry_after_s=5, status=429))
        assert desk.desk.refusal == "", "of one budget, not of the address"
        desk.desk.feedback(LimitFeedback("acme", "rest_weight", retry_after_s=600, status=403))
        desk.desk.feedback(LimitFeedback("acme", "rest_weight", retry_after_s=5, status=429))
        await desk.desk.close()
        restarted = Desk(path)
        restarted.ask("shard-0", 1)
        assert [blocked.status for _, blocked in restarted.blocked] == [403]
        for each in (desk.desk, restarted.desk):
            (report,) = each.reports()
            assert report.blocked_reason == "HTTP 403: its firewall refuses this address"
            assert each.refusal == f"acme: {report.blocked_reason}; asked again in 600 s"
        await restarted.desk.close()

    run(body)


def test_what_another_engine_was_told_does_not_hide_what_we_were(tmp_path: Path) -> None:
    budget = Budget(10, 60)
    budget.block_until(100.0, 451)
    budget.block_until(100.2)  # the same block, come back through another clock
    assert budget.refused_with == 451
    budget.block_until(900.0)
    assert budget.refused_with == 0


@pytest.mark.fault("H02")
@pytest.mark.parametrize("boot", ["the same", "another"])
@pytest.mark.parametrize("jump_s", [-86_400, 3_600])
def test_a_clock_that_is_set_changes_no_ban(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: int, boot: str
) -> None:
    """A ban of 600 s; the clock jumps, and the engine starts anew."""

    async def body() -> None:
        path = tmp_path / "limits.json"
        desk = Desk(path, LimitSettings("acme", "rest_weight", 10, 60))
        desk.ask("shard-0", 1, 4)
        desk.desk.feedback(LimitFeedback("acme", "rest_weight", retry_after_s=600, status=418))
        await desk.desk.close()
        monkeypatch.setattr(lease_desk, "wall_ns", lambda: wall_ns() + jump_s * 10**9)
        if boot == "another":
            monkeypatch.setattr(lease_desk, "boot_id", lambda: "another")
        restarted = Desk(path, LimitSettings("acme", "rest_weight", 10, 60))
        (report,) = restarted.desk.reports()
        if boot == "another" and jump_s > 0:  # nothing tells it from an hour switched off
            assert (report.blocked_s, report.used) == (0, 0)
        else:
            assert 500 < report.blocked_s <= 600
            assert report.used == 4
        await restarted.desk.close()

    run(body)


@pytest.mark.fault("H02")
def test_what_was_spent_before_a_restart_still_counts(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "limits.json"
        desk = Desk(path)
        began_s = asyncio.get_running_loop().time()
        desk.ask("shard-0", 1, 10)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        restarted = Desk(path)
        restarted.ask("shard-0", 2, 10)
        await restarted.until(1)
        assert restarted.granted[0][0] - began_s >= WEIGHT.window_s - 0.02
        await desk.desk.close()
        await restarted.desk.close()

    run(body)


def test_unreadable_notes_of_the_past_do_not_stop_an_engine(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "limits.json"
        for damage in (b"\xff{", b'{"boot":"\xff"}', b"[" * 100_000, b"[]"):
            path.write_bytes(damage)
            desk = Desk(path)
            desk.ask("shard-0", 1)
            assert desk.granted
            await desk.desk.close()

    run(body)


def test_what_is_held_is_counted_over_all_clients_and_freed_by_their_end(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk(tmp_path / "limits.json", HeldLimitSettings("acme", "ws_sockets", 10))
        desk.desk.want("shard-0", PlacesWanted(1, "acme", "ws_sockets", 7))
        desk.desk.want("shard-1", PlacesWanted(5, "acme", "ws_sockets", 7))
        assert desk.placed == [
            ("shard-0", PlacesGranted(1, "acme", "ws_sockets", 7)),
            ("shard-1", PlacesGranted(5, "acme", "ws_sockets", 3)),
        ]
        (report,) = desk.desk.reports()
        assert (report.used, report.budget, report.window_s) == (10, 10, None)
        assert report.waiting_count == 4
        desk.desk.client_ended("shard-0")
        assert desk.placed[2:] == [("shard-1", PlacesGranted(5, "acme", "ws_sockets", 7))]
        (report,) = desk.desk.reports()
        assert (report.used, report.waiting_count) == (7, 0)
        desk.desk.want("shard-1", PlacesWanted(1, "acme", "ws_sockets", 4, "other"))
        assert desk.placed[3:] == [
            ("shard-1", PlacesGranted(1, "acme", "ws_sockets", 3, "other")),
        ]
        desk.desk.want("shard-1", PlacesWanted(6, "acme", "unlimited", 99))
        assert desk.placed[-1] == ("shard-1", PlacesGranted(6, "acme", "unlimited", 99))
        await desk.desk.close()

    run(body)
