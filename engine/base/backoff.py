"""How long to wait before trying again: exponential, capped, with jitter; a pause after many."""

import random


class Backoff:
    """Delays for one connection or request. `reset` after success.

    The first delay is short, so that a planned cut costs less than a second; the spread keeps fifty
    sockets that were cut at once from coming back at once. After `breaks_after` failures in a row
    each next try follows a pause of `pause_s`: a circuit breaker, which 0 leaves out.
    """

    def __init__(
        self,
        first_s: float = 0.25,
        most_s: float = 30.0,
        breaks_after: int = 0,
        pause_s: float = 300.0,
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._breaks_after = breaks_after
        self._pause_s = pause_s
        self._failures = 0

    def next_s(self) -> float:
        """Return the next delay in seconds."""
        ceiling: float = min(self._first_s * 2 ** min(self._failures, 16), self._most_s)
        self._failures += 1
        if self._breaks_after and self._failures >= self._breaks_after:
            ceiling = max(ceiling, self._pause_s)
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """The thing worked: start over from the short delay."""
        self._failures = 0
