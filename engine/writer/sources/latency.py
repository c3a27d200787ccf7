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
        self._ages_ns: list[npt.NDArray[np.int64]] = []
        self._weights: list[int] = []

    def add(self, records: RecordArray, now_ns: int) -> None:
        """Count the age since reception of up to 256 evenly spaced rows, weighted to the batch's
        length.
        """
        step = max(1, len(records) // _MOST_SAMPLES)
        self.add_ns(now_ns - records["ts_recv"][::step], weight=step)

    def add_receipt(self, records: RecordArray) -> None:
        """Count the time from the venue's event to our reception of it, by two clocks: of live rows
        that carry a time of the venue. Where it gives none, both times are ours and the same.
        """
        step = max(1, len(records) // _MOST_SAMPLES)
        rows = records[::step]
        ages_ns = rows["ts_recv"] - rows["ts_event"]
        is_live = (ages_ns != 0) & (rows["flags"] & _BACKFILLED == 0)
        self.add_ns(ages_ns[is_live], weight=step)

    def add_ns(self, ages_ns: npt.NDArray[np.int64], weight: int = 1) -> None:
        """Count latencies given in nanoseconds. To find their buckets costs the same for a few rows
        as for many, so they are put aside for a while.
        """
        self._ages_ns.append(ages_ns)
        self._weights.append(weight)
        if len(self._ages_ns) >= _MOST_ASIDE:
            self._sort()

    def histogram(self) -> LatencyHistogram:
        """The counts so far, as a message."""
        self._sort()
        return LatencyHistogram(self._counts.tolist(), self._sum_us)

    def _sort(self) -> None:
        if not self._ages_ns:
            return
        weights = np.repeat(self._weights, [len(ages_ns) for ages_ns in self._ages_ns])
        ages_us = np.maximum(np.concatenate(self._ages_ns) / 1000.0, 1.0)
        buckets = np.minimum((np.log10(ages_us) * 10).astype(np.int64), _BUCKETS - 1)
        self._counts += np.bincount(buckets, weights, _BUCKETS).astype(np.int64)
        self._sum_us += float(ages_us @ weights)
        self._ages_ns, self._weights = [], []
