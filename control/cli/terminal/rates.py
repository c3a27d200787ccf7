"""Rates from counters: over the time between what the processes said, not between our looks.

A process reports twice a second. Who looks more often sees the same numbers again, and would call
that silence; who divides by his own time calls a late report a lull and the next one a burst.
"""

from collections import deque
from collections.abc import Callable

from engine.base.clock import monotonic_s
from engine.messages.status import EngineStatus

_SMOOTHED_S = 2.5
_LATE_S = 1.5
"""A report that has not come for so long is no jitter: the time since it counts, too."""
_SILENT_S = 5.0
"""After that nobody knows."""


class _Reporter:
    """The counters of one process."""

    def __init__(self) -> None:
        self._said: deque[tuple[float, dict[str, int]]] = deque()

    def is_news(self, taken_s: float) -> bool:
        return taken_s > 0 and (not self._said or taken_s > self._said[-1][0])

    def take(self, taken_s: float, counts: dict[str, int]) -> None:
        self._said.append((taken_s, counts))
        while len(self._said) > 2 and self._said[1][0] <= taken_s - _SMOOTHED_S:
            self._said.popleft()

    def rates(self, now_s: float) -> dict[str, float]:
        """A second; nothing before there are two reports, nor when there are none any more."""
        if len(self._said) < 2 or now_s - self._said[-1][0] > _SILENT_S:
            return {}
        (first_s, first), (last_s, last) = self._said[0], self._said[-1]
        elapsed_s = (now_s if now_s - last_s > _LATE_S else last_s) - first_s
        # What is new since then has counted from zero.
        return {name: max(0, n - first.get(name, 0)) / elapsed_s for name, n in last.items()}


class Rates:
    """The engine's. A name that is not there has no rate yet, which is not the rate zero."""

    def __init__(self, clock_s: Callable[[], float] = monotonic_s) -> None:
        self._clock_s = clock_s
        self._shards: dict[int, _Reporter] = {}
        self._writer = _Reporter()

    def update(self, status: EngineStatus) -> dict[str, float]:
        """Take in what is new. `frames` and `rows` are received, `stored` and `published` written,
        all a second; `frames 7` and `rows 7` are those of slot 7.
        """
        now_s = self._clock_s()
        rates = self._of_writer(status, now_s)
        for shard in status.shards:
            reporter = self._shards.setdefault(shard.shard, _Reporter())
            if reporter.is_news(shard.taken_s):
                reporter.take(shard.taken_s, _counts(status, shard.shard))
            for name, rate in reporter.rates(now_s).items():
                total = name.partition(" ")[0]
                rates[name] = rate
                rates[total] = rates.get(total, 0.0) + rate
        return rates

    def _of_writer(self, status: EngineStatus, now_s: float) -> dict[str, float]:
        writer = status.writer
        if self._writer.is_news(writer.taken_s):
            counts = {
                "stored": writer.database_rows().total(),
                "published": writer.live_rows().total(),
            }
            self._writer.take(writer.taken_s, counts)
        return self._writer.rates(now_s)


def _counts(status: EngineStatus, shard: int) -> dict[str, int]:
    counts = {}
    for stream in status.streams:
        if stream.shard == shard:
            counts[f"frames {stream.slot}"] = stream.frame_count
            counts[f"rows {stream.slot}"] = stream.row_count
    return counts
