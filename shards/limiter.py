"""A budget per window: REST weight, connection attempts, control messages."""

import asyncio
from collections import deque

from engine.clock import monotonic_s


class WindowLimiter:
    """At most `budget` units in any `window_s` seconds. Waiters are served in order.

    `block_until` holds everybody: the venue said Retry-After.
    """

    def __init__(self, budget: float, window_s: float) -> None:
        self._budget = budget
        self._window_s = window_s
        self._spent: deque[tuple[float, float]] = deque()
        self._in_window = 0.0
        self._blocked_until_s = 0.0
        self._turn = asyncio.Lock()

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until `units` fit into the window, and spend them."""
        if units > self._budget:
            raise ValueError(f"{units} units can never fit a budget of {self._budget}")
        async with self._turn:
            while (delay_s := self._delay_s(units)) > 0:
                await asyncio.sleep(delay_s)
            self._spent.append((monotonic_s(), units))
            self._in_window += units

    def block_for(self, seconds: float) -> None:
        """Let nobody through for `seconds` from now."""
        self._blocked_until_s = max(self._blocked_until_s, monotonic_s() + seconds)

    def _delay_s(self, units: float) -> float:
        now_s = monotonic_s()
        while self._spent and self._spent[0][0] <= now_s - self._window_s:
            self._in_window -= self._spent.popleft()[1]
        delay_s = self._blocked_until_s - now_s
        if self._in_window + units > self._budget and self._spent:
            delay_s = max(delay_s, self._spent[0][0] + self._window_s - now_s)
        return delay_s
