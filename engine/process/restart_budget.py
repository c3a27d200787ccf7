"""When to start a dead child again: at once, then after growing delays.

There is no last attempt: a collector that gives up at night collects nothing until morning. The
delay is capped instead, and a child that keeps dying shows as red in the status.
"""

from collections import deque


class RestartBudget:
    """Counts deaths within a sliding window. Time comes in as an argument, so tests own it."""

    def __init__(
        self,
        free_restarts: int = 1,
        first_delay_s: float = 0.5,
        delay_s_max: float = 30.0,
        window_s: float = 120.0,
    ) -> None:
        assert free_restarts >= 0
        assert 0 < first_delay_s <= delay_s_max < window_s, "deaths must not age out by waiting"
        self._free_restarts = free_restarts
        self._first_delay_s = first_delay_s
        self._delay_s_max = delay_s_max
        self._window_s = window_s
        self._deaths_s: deque[float] = deque()

    def died(self, now_s: float) -> float:
        """Record a death and return how long to wait before the next start."""
        while self._deaths_s and self._deaths_s[0] <= now_s - self._window_s:
            self._deaths_s.popleft()
        self._deaths_s.append(now_s)
        excess = len(self._deaths_s) - self._free_restarts
        if excess <= 0:
            return 0.0
        # 2.0 ** 64 is far above any cap; bounding the exponent keeps the power finite.
        return float(min(self._delay_s_max, self._first_delay_s * 2.0 ** min(excess - 1, 64)))
