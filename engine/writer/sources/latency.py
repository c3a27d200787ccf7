"""Latency histograms, sampled: log-spaced buckets, ten to the decade, from 1 µs to 1000 s."""

from typing import Final

import numpy as np
import numpy.typing as npt

from engine.data.flags import Flag
from engine.data.kind import RecordArray
from engine.messages.writer import LatencyHistogram

_BUCKETS: Final = 90
_BACKFILLED: Final = int(Flag.BACKFILLED)
_MOST_SAMPLES: Final = 256
_MOST_ASIDE: Final = 64
"""Batches."""


class Latency:
    """Time from reception of a row to some later point. Samples stand for the rows between."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, dtype=np.int64)
        self._sum_us = 0.0
        self._aside: list[tuple[RecordArray, int, int]] = []
        """Rows not counted yet, the weight of each, and up to when (ns)."""
        self._received: list[tuple[RecordArray, int]] = []

    def add(self, records: RecordArray, now_ns: int, weight: int = 1) -> None:
        """Count the age since reception: of many rows that of a sample. Few are kept for a while as
        they are, so it must not be a ring's memory.
        """
        if len(records) >= 2 * _MOST_SAMPLES:
            records, weight = sample(records)
        self._aside.append((records, weight, now_ns))
        if len(self._aside) >= _MOST_ASIDE:
            self._sort()

    def add_receipt(self, records: RecordArray) -> None:
        """Count the time from the venue's event to our reception of it, by two clocks: of live rows
        that carry a time of the venue. Where it gives none, both times are ours and the same.
        """
        self._received.append(sample(records))
        if len(self._received) >= _MOST_ASIDE:
            self._sort()

    def add_ns(self, ages_ns: npt.NDArray[np.int64], weight: int = 1) -> None:
        """Count latencies given in nanoseconds."""
        self._count(ages_ns, np.full(len(ages_ns), weight))

    def histogram(self) -> LatencyHistogram:
        """The counts so far, as a message."""
        self._sort()
        return LatencyHistogram(self._counts.tolist(), self._sum_us)

    def _sort(self) -> None:
        """To find buckets costs the same for a few rows as for many: so later, together."""
        if self._aside:
            found, weights, now_ns = zip(*self._aside, strict=True)
            counts = [len(rows) for rows in found]
            recv_ns = np.concatenate([rows["ts_recv"] for rows in found])
            self._count(np.repeat(now_ns, counts) - recv_ns, np.repeat(weights, counts))
            self._aside.clear()
        for rows, weight in self._received:
            ages_ns = rows["ts_recv"] - rows["ts_event"]
            is_live = (ages_ns != 0) & (rows["flags"] & _BACKFILLED == 0)
            self.add_ns(ages_ns[is_live], weight)
        self._received.clear()

    def _count(self, ages_ns: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> None:
        ages_us = np.maximum(ages_ns / 1000.0, 1.0)
        buckets = np.minimum((np.log10(ages_us) * 10).astype(np.int64), _BUCKETS - 1)
        self._counts += np.bincount(buckets, weights, _BUCKETS).astype(np.int64)
        self._sum_us += float(ages_us @ weights)


def sample(records: RecordArray) -> tuple[RecordArray, int]:
    """Some 256 evenly spaced rows or all, as a copy, and how many each stands for."""
    step = max(1, len(records) // _MOST_SAMPLES)
    return records[::step].copy(), step
