"""A process's way to the venues' shared budgets, which the supervisor holds.

`LeaseClient` asks over the pipe and waits for its turn. A request that dies with its process or
with its task leaves nothing behind but units that count as spent.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.clock import monotonic_s
from engine.commands import FromChild, LeaseBlocked, LeaseGranted, LeaseRequest, LimitFeedback

Send = Callable[[FromChild], None]


class Turnstile(Protocol):
    """Lets callers through as fast as a budget allows."""

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` may be spent."""


class LeaseClient:
    """One process's requests. Feed it every `LeaseGranted` and `LeaseBlocked` that arrives."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[float]] = {}
        self._blocked_until_s: dict[tuple[str, str], float] = {}

    async def acquire(self, venue: str, pool: str, units: float) -> None:
        """Wait until the supervisor lets `units` through."""
        request_id = next(self._ids)
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        self._send(LeaseRequest(request_id, venue, pool, units))
        try:
            delay_s = await future
        finally:
            self._waiting.pop(request_id, None)
        if delay_s > 0:
            await asyncio.sleep(delay_s)

    def granted(self, message: LeaseGranted) -> None:
        """An answer came. Its asker may have been cancelled meanwhile."""
        future = self._waiting.get(message.request_id)
        if future is not None and not future.done():
            future.set_result(message.delay_s)

    def blocked(self, message: LeaseBlocked) -> None:
        """The venue lets nobody through for a while: who waits can say so."""
        self._blocked_until_s[message.venue, message.pool] = monotonic_s() + message.blocked_s

    def blocked_s(self, venue: str, pool: str) -> float:
        """Seconds until the venue lets anybody through again, as the supervisor said last."""
        until_s = self._blocked_until_s.get((venue, pool), float("-inf"))
        return max(until_s - monotonic_s(), 0.0)

    def tell(self, feedback: LimitFeedback) -> None:
        """Pass on what the venue said."""
        self._send(feedback)


@dataclass(slots=True)
class Lease:
    """One venue's pool, shared with every other process."""

    client: LeaseClient
    venue: str
    pool: str
    blocked_until_s: float = 0.0
    """What the venue has told this process itself."""
    waiting_count: int = 0

    @property
    def wait(self) -> str:
        """What callers wait for, in words; empty when none waits."""
        if not self.waiting_count:
            return ""
        told_s = self.client.blocked_s(self.venue, self.pool)
        blocked_s = max(told_s, self.blocked_until_s - monotonic_s())
        until = f", blocked {blocked_s:.0f} s" if blocked_s > 0 else ""
        return f"waiting for the budget {self.pool}{until}"

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

    def refused(self, status: int, retry_after_s: float) -> None:
        """The venue refused (429, 418): nobody asks until `retry_after_s` have passed."""
        self.blocked_until_s = max(self.blocked_until_s, monotonic_s() + retry_after_s)
        self.client.tell(
            LimitFeedback(self.venue, self.pool, retry_after_s=retry_after_s, status=status)
        )

    def venue_says(self, used: float) -> None:
        """The venue's own counter."""
        self.client.tell(LimitFeedback(self.venue, self.pool, used=used))
