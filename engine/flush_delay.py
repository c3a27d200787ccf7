"""How far the database is behind, in seconds."""

from collections import deque


class FlushDelay:
    """How long ago the rows that are stored now were received: the database's lag in seconds."""

    def __init__(self) -> None:
        self._accepted: deque[tuple[float, int]] = deque(maxlen=4096)

    def update(self, now_s: float, stored: int, backlog: int) -> float:
        """Take in the counts; return the delay."""
        accepted = self._accepted
        if accepted and accepted[-1][1] > stored + backlog:  # other counters: a new engine
            accepted.clear()
        accepted.append((now_s, stored + backlog))
        while len(accepted) > 1 and accepted[1][1] <= stored:
            accepted.popleft()
        return now_s - accepted[0][0] if backlog else 0.0
