"""A budget in a sliding window, and who waits for it. Pure: time comes in as an argument.

`used(now)` never exceeds the budget in any window. What the venue forbids (Retry-After) holds
everybody. Waiters are served strictly in order, so that a large request is not starved by small
ones; a request larger than the budget takes a whole window for itself.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

_BUCKET_S = 1.0


class Waiter(NamedTuple):
    """A request that has not been granted: whose, its id there, and how much."""

    client: str
    request_id: int
    units: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Units that count until they leave the window."""

    at_s: float
    units: float


class Budget:
    """At most `budget` units in any `window_s` seconds."""

    def __init__(self, budget: float, window_s: float) -> None:
        assert budget > 0
        assert window_s > 0
        self.budget = budget
        self.window_s = window_s
        self.blocked_until_s = float("-inf")
        self.venue_used: float | None = None
        """What the venue's own counter said last."""
        self._spent: deque[Spent] = deque()
        self._in_window = 0.0
        self._waiters: deque[Waiter] = deque()

    @property
    def waiting_count(self) -> int:
        """Requests that wait."""
        return len(self._waiters)

    def used(self, now_s: float) -> float:
        """Units spent in the window that ends now."""
        self._forget(now_s)
        return self._in_window

    def blocked_s(self, now_s: float) -> float:
        """Seconds until the venue lets anybody through again."""
        return max(self.blocked_until_s - now_s, 0.0)

    def ask(self, waiter: Waiter) -> None:
        """Queue a request; `grant` hands it out when it fits."""
        self._waiters.append(waiter)

    def grant(self, now_s: float) -> list[Waiter]:
        """Return the waiters that may go now, in order; their units are spent."""
        granted = []
        while self._waiters and self._delay_s(self._waiters[0].units, now_s) <= 0:
            waiter = self._waiters.popleft()
            self._spend(now_s, min(waiter.units, self.budget))
            granted.append(waiter)
        return granted

    def next_grant_s(self, now_s: float) -> float | None:
        """Seconds until `grant` will hand something out again; None when nobody waits."""
        return self._delay_s(self._waiters[0].units, now_s) if self._waiters else None

    def forget_client(self, client: str) -> None:
        """A client is gone; what it waited for, nobody waits for. What it spent stays spent."""
        self._waiters = deque(waiter for waiter in self._waiters if waiter.client != client)

    def block_until(self, until_s: float) -> None:
        """Let nobody through before `until_s`."""
        self.blocked_until_s = max(self.blocked_until_s, until_s)

    def venue_says(self, used: float, now_s: float) -> None:
        """The venue's counter. What it has seen and we have not, somebody else on our address
        spent: it counts like our own.
        """
        self.venue_used = used
        unseen = used - self.used(now_s)
        if unseen > 0:
            self._spend(now_s, unseen)

    def recent(self, now_s: float) -> list[Spent]:
        """What the window holds, by the second (each at the latest moment it may have been)."""
        self._forget(now_s)
        buckets: dict[float, Spent] = {}
        for spent in self._spent:
            second = spent.at_s // _BUCKET_S
            before = buckets.get(second)
            units = spent.units + (before.units if before else 0.0)
            buckets[second] = Spent(spent.at_s, units)
        return list(buckets.values())

    def restore(self, recent: list[Spent], now_s: float) -> None:
        """Count what an earlier process spent. A clock that went back must not free anything."""
        for spent in sorted(recent, key=lambda each: each.at_s):
            self._spend(min(spent.at_s, now_s), spent.units)

    def _spend(self, at_s: float, units: float) -> None:
        self._spent.append(Spent(at_s, units))
        self._in_window += units

    def _delay_s(self, units: float, now_s: float) -> float:
        """Seconds until `units` fit. Exact: never positive once they do."""
        self._forget(now_s)
        delay_s = self.blocked_s(now_s)
        excess = self._in_window + min(units, self.budget) - self.budget
        for spent in self._spent:
            if excess <= 1e-9:
                break
            excess -= spent.units
            delay_s = max(delay_s, spent.at_s + self.window_s - now_s)
        return delay_s

    def _forget(self, now_s: float) -> None:
        while self._spent and self._spent[0].at_s + self.window_s <= now_s:
            self._in_window -= self._spent.popleft().units
        if not self._spent:
            self._in_window = 0.0  # what rounding left behind
