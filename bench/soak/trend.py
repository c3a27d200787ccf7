"""Whether a process grows: lines through what it held, by least squares, for each of its lives.

What a fault makes it take, a buffer for what piled up, it keeps: a step, up to a mark that the next
fault of the kind does not raise. A leak goes on where nothing happens. So there are two slopes: of
one line, and of lines of one slope through the times between faults, each at a height of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.soak.sampling import Held, Sample

_MIB: Final = float(1 << 20)
_LEAST_SAMPLES: Final = 12
_FAULT_S: Final = 60.0
"""After its beginning a fault is over, and what it has delayed is done."""
Numbers = npt.NDArray[np.float64]


class Trend(NamedTuple):
    """Of one life of a process, which ends with its pid."""

    name: str
    pid: int
    hours: float
    """Looked at, after the warm-up."""
    own_mib_per_h: float
    """Of memory that is its own alone; the peaks are of the whole life."""
    own_quiet_mib_per_h: float
    """Between faults."""
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


def trends(
    samples: Sequence[Sample], warm_up_s: float, faults_s: Sequence[float] = ()
) -> Iterator[Trend]:
    """Of every life that is long enough after its warm-up; `faults_s` are moments of faults."""
    for (name, pid), life in lives(samples).items():
        begins_s = life[0][0] + warm_up_s
        later = [(at_s, held) for at_s, held in life if at_s >= begins_s]
        if len(later) < _LEAST_SAMPLES:
            continue
        hours = np.array([at_s / 3600 for at_s, _ in later])
        everything = [held for _, held in life]
        own = np.array([held.own / _MIB for _, held in later])
        yield Trend(
            name, pid, float(hours[-1] - hours[0]),
            _slope([(hours, own)]),
            _slope(_between(np.array(faults_s) / 3600, hours, own)),
            max(held.own for held in everything) / _MIB,
            _slope([(hours, np.array([held.rss / _MIB for _, held in later]))]),
            max(held.rss for held in everything) / _MIB,
            max(held.pss for held in everything) / _MIB,
            _slope([(hours, np.array([held.fds for _, held in later]))]),
            max(held.fds for held in everything),
            max(held.threads for held in everything),
            max(held.lag_ms for held in everything),
        )  # fmt: skip


def _between(faults: Numbers, hours: Numbers, values: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """The parts between faults."""
    begins = np.concatenate([[-np.inf], np.sort(faults) + _FAULT_S / 3600])
    ends = np.concatenate([np.sort(faults), [np.inf]])
    for begin, end in zip(begins, ends, strict=True):
        part = (hours >= begin) & (hours < end)
        yield hours[part], values[part]


def _slope(parts: Iterable[tuple[Numbers, Numbers]]) -> float:
    """The one of lines through all parts, each at a height of its own."""
    both = spread = 0.0
    for x, y in parts:
        if len(x) > 1:
            away = x - x.mean()
            both += float(away @ (y - y.mean()))
            spread += float(away @ away)
    return both / spread if spread else 0.0
