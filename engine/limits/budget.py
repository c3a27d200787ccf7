"""A budget in a sliding window, and who waits for it. Pure: time comes in as an argument.

`used(now)` never exceeds the budget in any window. What the venue forbids (Retry-After) holds
everybody. Waiters are served strictly in order, so that a large request is not starved by small
ones; a request larger than the budget takes a whole window for itself.
"""

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

_BUCKET_S = 1.0
_ROUNDING = 1e-9
_SAME_BLOCK_S = 5.0
"""By so little one block differs between two engines' clocks."""
BLOCK_S_MAX = 3 * 86_400.0
"""No venue bans for longer; who says more is mistaken."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an HTTP status means that says "not now" to whatever is asked."""

    why: str
    wait_s: float
    """Where the venue does not say how long."""
    is_of_address: bool = True
    """Whether everything we ask is refused, or only what draws on one budget."""


REFUSALS: Mapping[int, Refusal] = {
    403: Refusal("its firewall refuses this address", 600.0),
    418: Refusal("it has banned this address", 60.0),
    429: Refusal("too many requests", 60.0, is_of_address=False),
    451: Refusal("it does not serve this region", 3600.0),
}


def refusal_in_words(status: int) -> str:
    """For people; empty where there is none."""
    return f"HTTP {status}: {REFUSALS[status].why}" if status in REFUSALS else ""


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


_AT_S = attrgetter("at_s")


class Budget:
    """At most `budget` units in any `window_s` seconds."""

    def __init__(self, budget: float, window_s: float) -> None:
        assert budget > 0
        assert window_s > 0
        self.budget = budget
        self._budget_max = budget
        self.window_s = window_s
        self.blocked_until_s = float("-inf")
        self.refused_with = 0
        """The HTTP status that blocked it last."""
        self.venue_used: float | None = None
        """What the venue's own counter said last."""
        self._spent: deque[Spent] = deque()
        self._in_window = 0.0
        self._others: Sequence[Spent] = ()
        self._waiters: deque[Waiter] = deque()

    @property
    def waiting_count(self) -> int:
        """Requests that wait."""
        return len(self._waiters)

    @property
    def waiting_clients(self) -> set[str]:
        """Whose they are."""
        return {waiter.client for waiter in self._waiters}

    def used(self, now_s: float) -> float:
        """Units spent in the window that ends now, by us and by other engines."""
        self._forget(now_s)
        return self._in_window + self.used_by_others(now_s)

    def used_by_others(self, now_s: float) -> float:
        """Of those, what other engines spent, as far as `others_spent` was told."""
        return sum(spent.units for spent in self._others if spent.at_s + self.window_s > now_s)

    def blocked_s(self, now_s: float) -> float:
        """Seconds until the venue lets anybody through again."""
        return max(self.blocked_until_s - now_s, 0.0)

    @property
    def waiters(self) -> Sequence[Waiter]:
        """Requests that wait, in order."""
        return tuple(self._waiters)

    def ask(self, waiter: Waiter) -> None:
        """Queue a request; `grant` hands it out when it fits."""
        self._waiters.append(waiter)

    def fitting(self, now_s: float) -> float:
        """Units of the waiters, from the front, who may go now."""
        if self.blocked_s(now_s) > 0:
            return 0.0
        free = self.budget - self.used(now_s) + _ROUNDING
        units = 0.0
        for waiter in self._waiters:
            wanted = min(waiter.units, self.budget)
            if units + wanted > free:
                break
            units += wanted
        return units

    def grant(self, now_s: float, units: float | None = None) -> list[Waiter]:
        """Return the waiters that may go now, in order; their units are spent.

        `units` is what `fitting` said, where somebody else had to agree to it first.
        """
        if self.blocked_s(now_s) > 0:
            return []
        left = (self.fitting(now_s) if units is None else units) + _ROUNDING
        granted = []
        while self._waiters and (wanted := min(self._waiters[0].units, self.budget)) <= left:
            left -= wanted
            self._spend(now_s, wanted)
            granted.append(self._waiters.popleft())
        return granted

    def next_grant_s(self, now_s: float) -> float | None:
        """Seconds until `grant` will hand something out again; None when nobody waits."""
        return self._delay_s(self._waiters[0].units, now_s) if self._waiters else None

    def forget_client(self, client: str) -> None:
        """A client is gone; what it waited for, nobody waits for. What it spent stays spent."""
        self._waiters = deque(waiter for waiter in self._waiters if waiter.client != client)

    def block_until(self, until_s: float, status: int = 0) -> None:
        """Let nobody through before `until_s`, because the venue answered with `status`. Where that
        is not known (another engine was answered), what we were told ourselves is kept, should it
        be the same.
        """
        if until_s > self.blocked_until_s:
            if status or until_s > self.blocked_until_s + _SAME_BLOCK_S:
                self.refused_with = status
            self.blocked_until_s = until_s

    def announced(self, budget: float) -> bool:
        """The venue allows so much. Less than we thought counts from now on, more does not.
        Returns whether that changed anything.
        """
        before, self.budget = self.budget, min(budget, self._budget_max)
        assert self.budget > 0
        return self.budget != before

    def venue_says(self, used: float, now_s: float) -> None:
        """The venue's counter. What it has seen and we have not, somebody else on our address
        spent: it counts like our own.
        """
        self.venue_used = used
        unseen = used - self.used(now_s)
        if unseen > 0:
            self._spend(now_s, unseen)

    def others_spent(self, others: Sequence[Spent]) -> None:
        """What other engines spent of the same budget, oldest first: all of it, as known now."""
        self._others = others

    def recent(self, now_s: float) -> list[Spent]:
        """What we spent in the window, by the second, each at the latest it may have been."""
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
        delay_s = self.blocked_s(now_s)
        excess = self.used(now_s) + min(units, self.budget) - self.budget
        for spent in heapq.merge(self._spent, self._others, key=_AT_S):
            if excess <= _ROUNDING:
                break
            if spent.at_s + self.window_s <= now_s:
                continue
            excess -= spent.units
            delay_s = max(delay_s, spent.at_s + self.window_s - now_s)
        return delay_s

    def _forget(self, now_s: float) -> None:
        while self._spent and self._spent[0].at_s + self.window_s <= now_s:
            self._in_window -= self._spent.popleft().units
        if not self._spent:
            self._in_window = 0.0  # what rounding left behind
