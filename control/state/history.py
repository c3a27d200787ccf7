"""How the engine did: a sample a second for an hour and one a minute for a day, in memory of fixed
size (`History.nbytes`, 0.33 MB). It survives whoever looks at it, and no restart.

A sample is of a whole second or minute that is over. A second in which nobody looked has none: a
chart then has a hole there, and not a line through what nobody knows.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from control.state.health import HealthLight
from engine.messages.judgement import RANK
from engine.messages.status import EngineStatus

SAMPLE: Final = np.dtype(
    [
        ("at_s", "<i8"), ("received", "<f8"), ("stored", "<f8"), ("published", "<f8"),
        ("latency_p50", "<f8"), ("latency_p99", "<f8"), ("backlog", "<f8"), ("gaps", "<f8"),
        ("health", "u1"),
    ]
)  # fmt: skip
"""`at_s`: when it began (s since 1970, our clock). Rows are per second, latencies us from reception
to the commit, backlog rows, gaps how many were found in that time; NaN is not known. `health` is a
rank of `RANK`."""
SECONDS: Final = 3600
MINUTES: Final = 1440
_COUNTED: Final = ("received", "stored", "published")

Samples = npt.NDArray[np.void]


class _Ring:
    """The newest samples of one width, oldest first."""

    def __init__(self, capacity: int) -> None:
        self._samples = np.zeros(capacity, SAMPLE)
        self._count = 0

    @property
    def nbytes(self) -> int:
        return self._samples.nbytes

    def put(self, sample: Samples) -> None:
        self._samples[self._count % len(self._samples)] = sample
        self._count += 1

    def since(self, at_s: float) -> Samples:
        """A copy of those that began then or later."""
        capacity = len(self._samples)
        if self._count <= capacity:
            ordered = self._samples[: self._count]
        else:
            ordered = np.roll(self._samples, -(self._count % capacity))
        return ordered[np.searchsorted(ordered["at_s"], at_s) :].copy()

    def clear(self) -> None:
        self._count = 0


class History:
    """What was looked at last, and the rings."""

    def __init__(self) -> None:
        self._seconds = _Ring(SECONDS)
        self._minutes = _Ring(MINUTES)
        self._second = 0
        self._before = self._now = _Looked()
        self._rank = 0

    @property
    def nbytes(self) -> int:
        """The memory of all samples."""
        return self._seconds.nbytes + self._minutes.nbytes

    def samples(self, step_s: int, since_s: float) -> Samples:
        """Those of `SAMPLE`, of a second (`step_s` 1) or a minute (60), that began at `since_s` or
        later, oldest first.
        """
        return {1: self._seconds, 60: self._minutes}[step_s].since(since_s)

    def look(self, status: EngineStatus | None, light: HealthLight, now_ns: int) -> None:
        """See how it is, a few times a second. `light`: the verdict on the whole engine."""
        second = now_ns // 10**9
        if second < self._second:
            # Our clock was set back: what follows has no place beside what is there.
            self._seconds.clear()
            self._minutes.clear()
        elif second > self._second > 0:
            self._close(second)
        if second != self._second:
            self._second, self._rank = second, 0
        self._rank = max(self._rank, RANK[light.status])
        self._now = _Looked(status)

    def _close(self, second: int) -> None:
        """The second that is over becomes a sample, and so does its minute with its last one."""
        sample = np.zeros((), SAMPLE)
        sample["at_s"], sample["health"] = self._second, self._rank
        self._now.describe(sample, self._before)
        self._before = self._now
        self._seconds.put(sample)
        minute = self._second // 60
        if second // 60 > minute:
            self._minutes.put(_together(self._seconds.since(minute * 60), minute * 60))


class _Looked:
    """The counters of one look. `taken_s`: when the writer counted, by the monotonic clock."""

    def __init__(self, status: EngineStatus | None = None) -> None:
        self.taken_s = self.backlog = 0.0
        self.counts: dict[str, int] = {}
        self.latency: dict[str, float] = {}
        self.gap_count: int | None = None
        if status is None:
            return
        writer = status.writer
        self.taken_s = writer.taken_s
        self.counts = {
            "received": sum(writer.received_rows.values()),
            "stored": writer.database_rows().total(),
            "published": writer.live_rows().total(),
        }
        self.latency = writer.recent_latency_us.get("database", {})
        self.backlog = max(each.backlog_rows for each in writer.databases)
        self.gap_count = sum(each.gap_count for each in status.counts_by_kind.values())

    def describe(self, sample: Samples, before: "_Looked") -> None:
        """Rates since `before`: of the time that the writer says, whenever its word came here."""
        passed_s = self.taken_s - before.taken_s
        for name in _COUNTED:
            is_known = passed_s > 0 and name in before.counts and name in self.counts
            rate = (self.counts[name] - before.counts[name]) / passed_s if is_known else np.nan
            sample[name] = max(rate, 0.0)
        for name in ("p50", "p99"):
            sample[f"latency_{name}"] = self.latency.get(name, np.nan)
        sample["backlog"] = self.backlog if self.counts else np.nan
        is_known = self.gap_count is not None and before.gap_count is not None
        sample["gaps"] = max((self.gap_count or 0) - (before.gap_count or 0), 0) if is_known else 0


def _together(rows: Samples, at_s: int) -> Samples:
    """A minute of its seconds: rates and the middle latency on average, all else at its worst."""
    sample = np.zeros((), SAMPLE)
    sample["at_s"], sample["health"] = at_s, rows["health"].max()
    sample["gaps"] = rows["gaps"].sum()
    for name in (*_COUNTED, "latency_p50", "latency_p99", "backlog"):
        known = rows[name][~np.isnan(rows[name])]
        is_worst = name in ("latency_p99", "backlog")
        value = known.max(initial=0.0) if is_worst else known.sum() / max(len(known), 1)
        sample[name] = value if len(known) else np.nan
    return sample
