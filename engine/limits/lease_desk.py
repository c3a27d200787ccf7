"""The venues' budgets, held once for all processes: who may ask a venue for how much, and when.

Shards and the control process ask over their pipes (`LeaseRequest`) and are answered when their
units fit. Nothing is promised in advance, so a ban (418) holds back everyone who still waits. What
was spent and what is forbidden is kept on disk: a restart does not turn into a second ban. Where
engines share an address, `engine.limits.lease_sharing` asks the others before anything is granted.

What may be held at once (sockets, subscriptions) is counted here as well
(`engine.limits.held_limits`), for this engine alone: it ends with whoever holds it, so nothing of
it is kept.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from engine.base.backoff import Backoff
from engine.base.clock import boot_id, monotonic_s, wall_ns
from engine.base.durable import UNREADABLE, write_whole
from engine.base.keep_trying import Trouble
from engine.limits.budget import BLOCK_S_MAX, REFUSALS, Budget, Spent, Waiter, refusal_in_words
from engine.limits.held_limits import HeldLimit, HeldShare, Holder
from engine.limits.lease_sharing import LeaseSharing
from engine.limits.shared_budgets import Pool, SharedLimits
from engine.messages.limits import (
    BudgetAnnounced,
    LeaseAnswer,
    LeaseBlocked,
    LeaseGranted,
    LeaseRequest,
    LimitFeedback,
    PlacesGranted,
    PlacesWanted,
)
from engine.messages.settings import HeldLimitSettings, LimitSettings
from engine.messages.status import LimiterReport

_log = logging.getLogger(__name__)

_SLACK_S: Final = 1.0
"""A window here is longer by this: a request leaves a little after it was granted."""
_TIMER_S_MIN: Final = 0.001

Grant = Callable[[str, LeaseAnswer], None]
"""Sends an answer to a client, by its name."""
Share = Callable[[Mapping[Pool, float]], SharedLimits]
"""Makes the other engines' view of budgets with these windows, in seconds."""


class _SavedBudget(msgspec.Struct):
    """One budget on disk. Seconds count from the moment of writing: until the block ends, since
    units were spent.
    """

    venue: str
    pool: str
    blocked_s: float
    spent: list[tuple[float, float]]
    status: int = 0


class _Saved(msgspec.Struct):
    """The file, and when it was written by both clocks. Within a boot of the machine the monotonic
    one tells exactly how long ago that was; across boots there is only the wall clock, which may
    have been set, so it can shorten a block but never lengthen it.
    """

    boot: str
    monotonic_s: float
    wall_s: float
    budgets: list[_SavedBudget]

    def age_s(self) -> float:
        """How long ago it was written."""
        if self.boot and self.boot == boot_id():
            return max(monotonic_s() - self.monotonic_s, 0.0)
        return max(wall_ns() / 1e9 - self.wall_s, 0.0)


class DeskEstate(msgspec.Struct):
    """What another program of this process must know beside the file."""

    waiters: list[tuple[str, str, Waiter]]
    """Venue and pool of each."""
    held: list[tuple[str, str, list[tuple[Holder, HeldShare]]]]
    budgets: list[tuple[str, str, float]]
    """What the venue has announced, as far as that is less than we thought."""
    told: list[tuple[str, str, str, float]]
    """Client, venue, pool, and the budget it has heard of."""


class LeaseDesk:
    """All budgets. Use it inside one event loop."""

    def __init__(
        self,
        limits: Sequence[LimitSettings | HeldLimitSettings],
        path: Path,
        grant: Grant,
        share: Share | None = None,
        *,
        goes_on_alone: bool = False,
    ) -> None:
        self._windows: dict[Pool, float] = {}
        self._budgets: dict[Pool, Budget] = {}
        self._places: dict[Pool, HeldLimit] = {}
        for limit in limits:
            pool = (limit.venue, limit.pool)
            if isinstance(limit, HeldLimitSettings):
                self._places[pool] = HeldLimit(limit.count)
            else:
                self._windows[pool] = limit.window_s
                window_s = limit.window_s + min(_SLACK_S, limit.window_s / 10)
                self._budgets[pool] = Budget(limit.budget, window_s)
        self._path = path
        self._boot = boot_id()
        self._grant = grant
        self._refusals = {
            pool: Trouble(f"{pool[0]} {pool[1]}", "all wait", Backoff(), _log)
            for pool in self._budgets
        }
        """Said once: a venue may refuse once a second."""
        self._announced: dict[Pool, float] = {}
        self._told: dict[tuple[str, Pool], float] = {}
        """What a client has been told of it."""
        self._timers: dict[Pool, asyncio.TimerHandle] = {}
        self._save_handle: asyncio.Handle | None = None
        self._sharing: LeaseSharing | None = None
        if share is not None:
            shared = share({pool: budget.window_s for pool, budget in self._budgets.items()})
            self._sharing = LeaseSharing(
                shared, self._budgets, self._hand_out, goes_on_alone=goes_on_alone
            )
        self._load()

    def estate(self) -> DeskEstate:
        """What `inherit` takes. What was spent is in the file when this returns."""
        self._save()
        return DeskEstate(
            [(*pool, each) for pool, budget in self._budgets.items() for each in budget.waiters],
            [(*pool, places.shares) for pool, places in self._places.items()],
            [(*pool, units) for pool, units in self._announced.items()],
            [(client, *pool, units) for (client, pool), units in self._told.items()],
        )

    def inherit(self, estate: DeskEstate) -> None:
        """Go on from there; `start`, or the next request, serves who waits."""
        for venue, name, units in estate.budgets:
            budget = self._budgets.get((venue, name))
            if budget is not None and budget.announced(units):
                self._announced[venue, name] = budget.budget
        self._told = {(client, (venue, name)): units for client, venue, name, units in estate.told}
        for venue, name, shares in estate.held:
            if (venue, name) in self._places:
                self._places[venue, name].inherit(shares)
        for venue, name, waiter in estate.waiters:
            self.ask(waiter.client, LeaseRequest(waiter.request_id, venue, name, waiter.units))

    @property
    def problem(self) -> str:
        """Why budgets cannot be shared now; empty when they can, or need not."""
        return self._sharing.problem if self._sharing is not None else ""

    @property
    def refusal(self) -> str:
        """Which venue refuses all that this address asks, and why; empty while none does."""
        now_s = monotonic_s()
        for (venue, _), budget in self._budgets.items():
            refused = REFUSALS.get(budget.refused_with)
            if refused and refused.is_of_address and (left_s := budget.blocked_s(now_s)):
                words = refusal_in_words(budget.refused_with)
                return f"{venue}: {words}; asked again in {left_s:.0f} s"
        return ""

    def start(self) -> "asyncio.Task[None] | None":
        """Begin to grant where other engines are asked first; else it has begun. Returns the task
        to watch, if there is one.
        """
        return self._sharing.start() if self._sharing is not None else None

    def ask(self, client: str, request: LeaseRequest) -> None:
        """Answer at once, or when the units fit. A pool without a budget is free."""
        pool = (request.venue, request.pool)
        budget = self._budgets.get(pool)
        if budget is None:
            self._grant(client, LeaseGranted(request.request_id))
            return
        budget.ask(Waiter(client, request.request_id, request.units))
        self._tell_blocked(pool, {client})
        self._tell_announced(client, pool)
        self._serve(pool)

    def want(self, client: str, request: PlacesWanted) -> None:
        """Answer with what there is; more follows when others let go. Without a limit: all."""
        pool = (request.venue, request.pool)
        if pool in self._places:
            holder = (client, request.holder)
            self._tell_places(
                pool, self._places[pool].want(holder, request.request_id, request.count)
            )
        else:
            granted = PlacesGranted(request.request_id, *pool, request.count, request.holder)
            self._grant(client, granted)

    def feedback(self, message: LimitFeedback) -> None:
        """Take in what the venue said of a budget."""
        pool = (message.venue, message.pool)
        budget = self._budgets.get(pool)
        if budget is None:
            return
        now_s = monotonic_s()
        if message.used is not None:
            if self._sharing is not None:
                self._sharing.venue_says(pool, message.used)
            else:
                budget.venue_says(message.used, now_s)
            self._save_soon()
        if message.budget is not None and budget.announced(message.budget):
            self._announced[pool] = budget.budget
            _log.warning(
                f"{message.venue} {message.pool}: the venue allows {budget.budget:g} in"
                f" {self._windows[pool]:g} s now"
            )
        if message.retry_after_s is not None:
            delay_s = min(message.retry_after_s, BLOCK_S_MAX)
            budget.block_until(now_s + delay_s, message.status)
            words = f"{refusal_in_words(message.status)}: nobody asks for {delay_s:.0f} s"
            self._refusals[pool].met(words)
            self._tell_blocked(pool, budget.waiting_clients)
            self._save(durable=True)
        self._serve(pool)

    def client_ended(self, client: str) -> None:
        """A child is gone, and with it what it waited for and what it held."""
        for pool, budget in self._budgets.items():
            budget.forget_client(client)
            self._told.pop((client, pool), None)
            self._serve(pool)
        for pool, places in self._places.items():
            self._tell_places(pool, places.forget_client(client))

    def reports(self) -> list[LimiterReport]:
        """Every budget, for `GET /limiters`."""
        now_s = monotonic_s()
        return [
            LimiterReport(
                venue=venue,
                pool=name,
                budget=budget.budget,
                window_s=self._windows[venue, name],
                used=round(budget.used(now_s), 3),
                venue_used=budget.venue_used,
                blocked_s=round(budget.blocked_s(now_s), 1),
                waiting_count=budget.waiting_count,
                others_used=round(budget.used_by_others(now_s), 3) if self._sharing else None,
                blocked_reason=(
                    refusal_in_words(budget.refused_with) if budget.blocked_s(now_s) else ""
                ),
            )
            for (venue, name), budget in self._budgets.items()
        ] + [
            LimiterReport(
                venue=venue,
                pool=name,
                budget=float(places.limit),
                window_s=None,
                used=float(places.held_count),
                waiting_count=places.waiting_count,
            )
            for (venue, name), places in self._places.items()
        ]

    async def close(self) -> None:
        """Stop the timers and write what was spent."""
        if self._sharing is not None:
            await self._sharing.close()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._save()

    def _tell_blocked(self, pool: Pool, clients: set[str]) -> None:
        """Who waits can say for what and how long."""
        blocked_s = self._budgets[pool].blocked_s(monotonic_s())
        for client in clients if blocked_s else ():
            self._grant(client, LeaseBlocked(*pool, blocked_s, self._budgets[pool].refused_with))

    def _tell_announced(self, client: str, pool: Pool) -> None:
        """Who spreads its calls over a window must know how many fit."""
        budget = self._announced.get(pool)
        if budget is not None and budget != self._told.get((client, pool)):
            self._told[client, pool] = budget
            self._grant(client, BudgetAnnounced(*pool, budget))

    def _tell_places(self, pool: Pool, holders: set[Holder]) -> None:
        for client, holder in holders:
            request_id, held = self._places[pool].held_by((client, holder))
            self._grant(client, PlacesGranted(request_id, *pool, held, holder))

    def _serve(self, pool: Pool) -> None:
        if self._sharing is not None:
            self._sharing.serve(pool)
        else:
            self._hand_out(pool, None)

    def _hand_out(self, pool: Pool, units: float | None) -> None:
        """Grant these units, or what fits, and come back when more will."""
        budget, now_s = self._budgets[pool], monotonic_s()
        granted = budget.grant(now_s, units)
        for waiter in granted:
            self._grant(waiter.client, LeaseGranted(waiter.request_id))
        if granted:
            self._save_soon()
        if (timer := self._timers.pop(pool, None)) is not None:
            timer.cancel()
        delay_s = budget.next_grant_s(now_s)
        if delay_s is not None:
            loop = asyncio.get_running_loop()
            delay_s = max(delay_s, _TIMER_S_MIN)
            self._timers[pool] = loop.call_later(delay_s, self._serve, pool)

    def _save_soon(self) -> None:
        """Once for all grants of this turn of the loop. No fsync, but for a ban: what a killed
        process wrote stays, and after a power cut the window has passed.
        """
        if self._save_handle is None:
            self._save_handle = asyncio.get_running_loop().call_soon(self._save)

    def _save(self, *, durable: bool = False) -> None:
        if self._save_handle is not None:
            self._save_handle.cancel()
            self._save_handle = None
        now_s = monotonic_s()
        budgets = [
            _SavedBudget(
                venue,
                name,
                budget.blocked_s(now_s),
                [(now_s - spent.at_s, spent.units) for spent in budget.recent(now_s)],
                budget.refused_with,
            )
            for (venue, name), budget in self._budgets.items()
        ]
        saved = msgspec.json.encode(_Saved(self._boot, now_s, wall_ns() / 1e9, budgets))
        with contextlib.suppress(OSError):  # a full disk must not stop the grants
            write_whole(self._path, saved, synced=durable)

    def _load(self) -> None:
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=_Saved)
        except FileNotFoundError:
            return
        except (OSError, *UNREADABLE) as error:
            _log.warning(f"{self._path} cannot be read: {error}: what was spent is forgotten")
            return
        now_s, age_s = monotonic_s(), saved.age_s()
        for each in saved.budgets:
            budget = self._budgets.get((each.venue, each.pool))
            if budget is None:
                continue
            budget.block_until(now_s - age_s + min(each.blocked_s, BLOCK_S_MAX), each.status)
            spent = [Spent(now_s - age_s - ago_s, units) for ago_s, units in each.spent]
            budget.restore(spent, now_s)
