"""Whether a process grows: a line through what it held, by least squares, for each of its lives."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.soak.sampling import Held, Sample

_MIB: Final = float(1 << 20)
_LEAST_SAMPLES: Final = 12
Numbers = npt.NDArray[np.float64]


class Trend(NamedTuple):
    """Of one life of a process, which ends with its pid."""

    name: str
    pid: int
    hours: float
    """Looked at, after the warm-up."""
    own_mib_per_h: float
    """Of memory that is its own alone; the peaks are of the whole life."""
    own_error: float
    """Standard error of it, as if samples were independent (they are not: take it thrice)."""
    own_peak_mib: float
    rss_mib_per_h: float
    rss_peak_mib: float
    pss_peak_mib: float
    fds_per_h: float
    fds_peak: int
    threads_peak: int
    lag_peak_ms: float


def lives(samples: Sequence[Sample]) -> dict[tuple[str, int], list[tuple[float, Held]]]:
    """Moments (s) and what was held, by name and pid."""
    found: dict[tuple[str, int], list[tuple[float, Held]]] = {}
    for sample in samples:
        for held in sample.processes:
            found.setdefault((held.name, held.pid), []).append((sample.at_s, held))
    return found


def trends(samples: Sequence[Sample], warm_up_s: float) -> Iterator[Trend]:
    """Of every life that is long enough after its warm-up."""
    for (name, pid), life in lives(samples).items():
        begins_s = life[0][0] + warm_up_s
        later = [(at_s, held) for at_s, held in life if at_s >= begins_s]
        if len(later) < _LEAST_SAMPLES:
            continue
        hours = np.array([at_s / 3600 for at_s, _ in later])
        everything = [held for _, held in life]
        own, error = _slope(hours, [held.own / _MIB for _, held in later])
        yield Trend(
            name, pid, float(hours[-1] - hours[0]), own, error,
            max(held.own for held in everything) / _MIB,
            _slope(hours, [held.rss / _MIB for _, held in later])[0],
            max(held.rss for held in everything) / _MIB,
            max(held.pss for held in everything) / _MIB,
            _slope(hours, [held.fds for _, held in later])[0],
            max(held.fds for held in everything),
            max(held.threads for held in everything),
            max(held.lag_ms for held in everything),
        )  # fmt: skip


def _slope(x: Numbers, y: Sequence[float]) -> tuple[float, float]:
    """Of the line, and its standard error."""
    values = np.asarray(y, np.float64)
    away = x - x.mean()
    spread = float(away @ away)
    slope = float(away @ values) / spread
    rest = values - values.mean() - slope * away
    return slope, float(np.sqrt(rest @ rest / (len(x) - 2) / spread))
