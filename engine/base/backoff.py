"""How long to wait before trying again: exponential, capped, with full jitter."""

import random


class Backoff:
    """Delays for one connection or request. `reset` after success.

    The first delay is short, so that a planned cut costs less than a second; the spread keeps fifty
    sockets that were cut at once from coming back at once.
    """

    def __init__(self, first_s: float = 0.25, most_s: float = 30.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._failures = 0

    def next_s(self) -> float:
        """Return the next delay in seconds."""
        ceiling: float = min(self._first_s * 2**self._failures, self._most_s)
        self._failures = min(self._failures + 1, 16)
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """The thing worked: start over from the short delay."""
        self._failures = 0
