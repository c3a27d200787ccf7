"""How far the database is behind, in seconds."""

from collections import deque
from typing import Final

_STEPS_MAX: Final = 4096


class FlushDelay:
    """How long ago the rows that are stored now were received: the database's lag in seconds. An
    outage of days is remembered from its beginning, in steps that grow with it.
    """

    def __init__(self) -> None:
        self._accepted: deque[tuple[float, int]] = deque()
        self._step_s = 0.0

    def update(self, now_s: float, stored: int, backlog: int) -> float:
        """Take in the counts; return the delay."""
        accepted = self._accepted
        if accepted and accepted[-1][1] > stored + backlog:  # other counters: a new engine
            accepted.clear()
        if len(accepted) < 2:
            self._step_s = 0.0
        if not accepted or now_s - accepted[-1][0] >= self._step_s:
            accepted.append((now_s, stored + backlog))
        if len(accepted) > _STEPS_MAX:
            accepted = self._accepted = deque(list(accepted)[::2])
            self._step_s = (accepted[-1][0] - accepted[0][0]) / len(accepted)
        while len(accepted) > 1 and accepted[1][1] <= stored:
            accepted.popleft()
        return now_s - accepted[0][0] if backlog else 0.0
