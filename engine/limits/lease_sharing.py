"""Serves the budgets that other engines share: each grant is agreed on in a common store first.

While that cannot be asked, nobody is granted anything (strict), or every engine goes on with the
whole budget by itself (`alone`) and writes down later what it spent.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.base.errors import StoreUnavailableError
from engine.base.keep_trying import Trouble, keep_trying
from engine.base.tasks import cancel
from engine.limits.budget import Budget
from engine.limits.shared_budgets import Pool, SharedLimits

_log = logging.getLogger(__name__)

_LOOK_INTERVAL_S: Final = 1.0
"""As old as this may be what we know of the others. A flushed store is told again within it."""
_DELAYS_S: Final = (0.5, 5.0)

HandOut = Callable[[Pool, float | None], None]
"""Grants the waiters of a pool these units, or what its own window allows."""


class LeaseSharing:
    """Owned by the lease desk, whose budgets it serves. Use it inside one event loop."""

    def __init__(
        self,
        shared: SharedLimits,
        budgets: Mapping[Pool, Budget],
        hand_out: HandOut,
        *,
        goes_on_alone: bool,
        backoff: Backoff | None = None,
    ) -> None:
        self._shared = shared
        self._budgets = budgets
        self._hand_out = hand_out
        self._goes_on_alone = goes_on_alone
        self._due: set[Pool] = set(budgets)
        self._venue_used: dict[Pool, float] = {}
        self._alarm = Alarm()
        self._task: asyncio.Task[None] | None = None
        does = "this engine goes on alone" if goes_on_alone else "requests wait for it"
        self._trouble = Trouble("shared limits", does, backoff or Backoff(*_DELAYS_S), _log)

    @property
    def problem(self) -> str:
        """Why nothing can be agreed on; empty while it can."""
        return self._trouble.text

    def start(self) -> "asyncio.Task[None]":
        """Begin to serve. Returns the task to watch."""
        self._task = asyncio.create_task(self._run(), name="shared-limits")
        return self._task

    async def close(self) -> None:
        """Serve nobody any more."""
        await cancel(self._task)
        await self._shared.close()

    def serve(self, pool: Pool) -> None:
        """Something about this pool is new."""
        if self.problem and self._goes_on_alone:
            self._serve_alone(pool)
        else:
            self._due.add(pool)
            self._alarm.ring()

    def venue_says(self, pool: Pool, used: float) -> None:
        """The venue's counter, judged when the others' spending is known as of now: what they
        spent must not be taken for a stranger's.
        """
        self._venue_used[pool] = used
        self.serve(pool)

    async def _run(self) -> None:
        await keep_trying(self._share, self._trouble)

    async def _share(self) -> None:
        try:
            await self._shared.connect()
            while True:
                await self._serve_due()
                self._trouble.over()
                if not await self._alarm.wait(_LOOK_INTERVAL_S):
                    self._due.update(self._budgets)
        except StoreUnavailableError:
            for pool in self._budgets if self._goes_on_alone else ():
                self._serve_alone(pool)
            raise

    async def _serve_due(self) -> None:
        while self._due:
            pool = self._due.pop()
            try:
                await self._serve(pool)
            except StoreUnavailableError:
                self._due.add(pool)
                raise

    async def _serve(self, pool: Pool) -> None:
        """Agree with the other engines on what may be granted now, and grant it."""
        budget = self._budgets[pool]
        agreed, units = False, 0.0
        while not agreed:
            look = await self._shared.look(pool)
            budget.others_spent(look.others)
            budget.block_until(look.blocked_until_s)
            now_s = monotonic_s()
            if (used := self._venue_used.pop(pool, None)) is not None:
                budget.venue_says(used, now_s)
            units = budget.fitting(now_s)
            agreed = await self._shared.spend(pool, units, budget.blocked_until_s)
        self._hand_out(pool, units)

    def _serve_alone(self, pool: Pool) -> None:
        budget, now_s = self._budgets[pool], monotonic_s()
        if (used := self._venue_used.pop(pool, None)) is not None:
            budget.venue_says(used, now_s)
        if units := budget.fitting(now_s):
            self._shared.spent(pool, units)
        self._hand_out(pool, units)
