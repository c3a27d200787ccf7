"""A process's way to the venues' shared budgets, which the supervisor holds.

`LeaseClient` asks over the pipe and waits for its turn. A request that dies with its process or
with its task leaves nothing behind but units that count as spent.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from engine.base.clock import monotonic_s
from engine.limits.budget import REFUSALS, refusal_in_words
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
from engine.messages.pipes import FromChild

Send = Callable[[FromChild], None]

_SAME_BLOCK_S: Final = 1.0
"""By so little later a block ends that is said once more."""


class Turnstile(Protocol):
    """Lets callers through as fast as a budget allows."""

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` may be spent."""


class Line(Turnstile, Protocol):
    """A turnstile that can be asked why one waits in front of it."""

    @property
    def wait(self) -> str:
        """What callers wait for, in words; empty when none waits."""


class Refusable(Turnstile, Protocol):
    """A turnstile that can be closed by what the venue says."""

    def refused(self, status: int, wait_s: float | None) -> float:
        """The venue refused with this status, and said for how long. Returns how long it is."""


class LeaseClient:
    """One process's requests. Let it `take` every answer that arrives."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._blocked: dict[tuple[str, str], tuple[float, int]] = {}
        """Until when (monotonic), and with which status."""
        self.announced: dict[tuple[str, str], float] = {}
        """By venue and pool: what is ours in a window, where the venue has announced it."""
        self._placed: dict[tuple[str, str, str], Callable[[PlacesGranted], None]] = {}

    async def acquire(self, venue: str, pool: str, units: float) -> None:
        """Wait until the supervisor lets `units` through."""
        request_id = next(self._ids)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        self._send(LeaseRequest(request_id, venue, pool, units))
        try:
            await future
        finally:
            self._waiting.pop(request_id, None)

    def take(self, answer: LeaseAnswer) -> None:
        """The supervisor answers."""
        match answer:
            case LeaseGranted():
                self.granted(answer)
            case LeaseBlocked():
                self.blocked(answer)
            case BudgetAnnounced():
                self.announced[answer.venue, answer.pool] = answer.budget
            case PlacesGranted():
                self.placed(answer)

    def granted(self, message: LeaseGranted) -> None:
        """An answer came. Its asker may have been cancelled meanwhile."""
        future = self._waiting.get(message.request_id)
        if future is not None and not future.done():
            future.set_result(None)

    def blocked(self, message: LeaseBlocked) -> None:
        """The venue lets nobody through for a while: who waits can say so."""
        until_s = monotonic_s() + message.blocked_s
        self._blocked[message.venue, message.pool] = until_s, message.status

    def blocked_until(self, venue: str, pool: str) -> tuple[float, int]:
        """When the venue lets somebody through again (monotonic) and what it had answered with, as
        the supervisor said last.
        """
        return self._blocked.get((venue, pool), (0.0, 0))

    def tell(self, message: LimitFeedback | PlacesWanted) -> None:
        """Pass on what the venue said, or what is held and wanted."""
        self._send(message)

    def placed(self, message: PlacesGranted) -> None:
        """So many may be held now."""
        if take := self._placed.get((message.venue, message.pool, message.holder)):
            take(message)

    def on_places(
        self, venue: str, pool: str, holder: str, take: Callable[[PlacesGranted], None]
    ) -> None:
        """Who is to hear of the seats in a pool that a holder has."""
        self._placed[venue, pool, holder] = take


@dataclass(slots=True)
class Lease:
    """One venue's pool, shared with every other process."""

    client: LeaseClient
    venue: str
    pool: str
    blocked_until_s: float = 0.0
    """What the venue has told this process itself."""
    refused_with: int = 0
    waiting_count: int = 0

    @property
    def is_blocked(self) -> bool:
        """Whether the venue lets nobody through."""
        return self._blocked()[0] > 0

    @property
    def wait(self) -> str:
        """What callers wait for, in words; empty when none waits."""
        if not self.waiting_count:
            return ""
        blocked_s, status = self._blocked()
        why = f" ({words})" if (words := refusal_in_words(status)) else ""
        until = f", blocked {blocked_s:.0f} s{why}" if blocked_s > 0 else ""
        return f"waiting for the budget {self.pool}{until}"

    def _blocked(self) -> tuple[float, int]:
        """For how long, and by which answer."""
        told = self.client.blocked_until(self.venue, self.pool)
        until_s, status = max(told, (self.blocked_until_s, self.refused_with))
        return until_s - monotonic_s(), status

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` may be spent. What was granted before a ban waits for its end, in
        the line of all others.
        """
        self.waiting_count += 1
        try:
            while True:
                await self.client.acquire(self.venue, self.pool, units)
                delay_s = self.blocked_until_s - monotonic_s()
                if delay_s <= 0:
                    return
                await asyncio.sleep(delay_s)
        finally:
            self.waiting_count -= 1

    def refused(self, status: int, wait_s: float | None) -> float:
        """The venue refused (`REFUSALS`): nobody asks for as long as it said
        (`shards.transport.refusals`), or as is usual. Returns those seconds. What everybody knows
        is not told again: a venue may say it a thousand times a second, and each time it is told it
        is written to the disk.
        """
        wait_s = REFUSALS[status].wait_s if wait_s is None else wait_s
        until_s = monotonic_s() + wait_s
        is_known = status == self.refused_with and until_s < self.blocked_until_s + _SAME_BLOCK_S
        if is_known and self.is_blocked:
            return wait_s
        self.blocked_until_s = max(self.blocked_until_s, until_s)
        self.refused_with = status
        self.client.tell(LimitFeedback(self.venue, self.pool, retry_after_s=wait_s, status=status))
        return wait_s

    def venue_says(self, used: float) -> None:
        """The venue's own counter."""
        self.client.tell(LimitFeedback(self.venue, self.pool, used=used))

    def announced(self, budget: float) -> None:
        """What the venue allows us, as it announced."""
        self.client.tell(LimitFeedback(self.venue, self.pool, budget=budget))


class HeldPlaces:
    """What this process may hold of a venue's limit on what is held at once, or in it one `holder`
    of those that share the limit. Say how many are wanted in all, and hold no more than `count`;
    `on_change` is called when that grows.
    """

    def __init__(
        self,
        client: LeaseClient,
        venue: str,
        pool: str,
        limit: int | None,
        on_change: Callable[[], None],
        holder: str = "",
    ) -> None:
        """Without a limit nobody is asked: `count` is what is wanted."""
        self._client = client
        self._venue = venue
        self._pool = pool
        self._limit = limit
        self._on_change = on_change
        self._holder = holder
        self._request_id = 0
        self._wanted = 0
        self._answered_id = 0
        self.count = 0
        if limit is not None:
            client.on_places(venue, pool, holder, self._placed)

    @property
    def why_waiting(self) -> str:
        """Why there are no more."""
        limit = f"{self._limit} {self._pool.removeprefix('ws_')} an address ({self._pool})"
        if self._answered_id != self._request_id:
            return f"asking for a place: {self._venue} allows {limit}"
        return f"no place: {self._venue} allows {limit}, and all are taken"

    @property
    def is_refused(self) -> bool:
        """Whether fewer than wanted were granted."""
        return self.count < self._wanted and self._answered_id == self._request_id

    def want(self, wanted: int) -> None:
        """Say how many are wanted in all, after letting go of what is too many."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if self._limit is None:
            self.count = wanted
            return
        self.count = min(self.count, wanted)
        self._request_id += 1
        self._client.tell(
            PlacesWanted(self._request_id, self._venue, self._pool, wanted, self._holder)
        )

    def _placed(self, message: PlacesGranted) -> None:
        """What answers an earlier request was said before the supervisor heard of the last one."""
        if message.request_id == self._request_id:
            self._answered_id = message.request_id
            self.count = message.count
            self._on_change()
