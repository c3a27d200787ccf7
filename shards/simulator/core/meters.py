"""Counts per window of the wall clock, with the largest window so far."""

from engine.base.clock import wall_ns

__all__ = ["MINUTE_NS", "SECOND_NS", "Meter"]

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS


class Meter:
    """A running sum that starts anew with each window, as venues' budgets do."""

    __slots__ = ("_used", "_window", "_window_ns", "peak", "total")

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._window = 0
        self._used = 0
        self.peak = 0
        self.total = 0

    def add(self, amount: int = 1) -> int:
        """Add to the current window and give its sum."""
        self._used = self.used() + amount
        self.total += amount
        self.peak = max(self.peak, self._used)
        return self._used

    def used(self) -> int:
        """Give the sum of the current window."""
        window = wall_ns() // self._window_ns
        if window != self._window:
            self._window, self._used = window, 0
        return self._used

    def left_s(self) -> int:
        """Give the whole seconds until the next window, at least one."""
        return -(-(self._window_ns - wall_ns() % self._window_ns) // SECOND_NS)
