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
        self._aside: list[tuple[npt.NDArray[np.int64], int, int]] = []
        """Batches not counted yet: since when (ns), the weight of each, and until when (ns)."""
        self._received: list[tuple[RecordArray, int]] = []
        """Samples of rows, and the weight of each."""

    def add(self, records: RecordArray, now_ns: int) -> None:
        """Count the age since reception of up to 256 evenly spaced rows, weighted to the batch's
        length.
        """
        step = max(1, len(records) // _MOST_SAMPLES)
        self._put_aside(records["ts_recv"][::step].copy(), step, now_ns)

    def add_receipt(self, records: RecordArray) -> None:
        """Count the time from the venue's event to our reception of it, by two clocks: of live rows
        that carry a time of the venue. Where it gives none, both times are ours and the same.
        """
        step = max(1, len(records) // _MOST_SAMPLES)
        self._received.append((records[::step].copy(), step))
        if len(self._received) >= _MOST_ASIDE:
            self._sort()

    def add_ns(self, ages_ns: npt.NDArray[np.int64], weight: int = 1) -> None:
        """Count latencies given in nanoseconds."""
        self._put_aside(-ages_ns, weight, 0)

    def histogram(self) -> LatencyHistogram:
        """The counts so far, as a message."""
        self._sort()
        return LatencyHistogram(self._counts.tolist(), self._sum_us)

    def _put_aside(self, since_ns: npt.NDArray[np.int64], weight: int, now_ns: int) -> None:
        """To find their buckets costs the same for a few rows as for many: so later, together."""
        self._aside.append((since_ns, weight, now_ns))
        if len(self._aside) >= _MOST_ASIDE:
            self._sort()

    def _sort(self) -> None:
        for rows, step in self._received:
            ages_ns = rows["ts_recv"] - rows["ts_event"]
            is_live = (ages_ns != 0) & (rows["flags"] & _BACKFILLED == 0)
            self._aside.append((-ages_ns[is_live], step, 0))
        self._received.clear()
        if not self._aside:
            return
        since_ns, weights, now_ns = zip(*self._aside, strict=True)
        counts = [len(each) for each in since_ns]
        ages_ns = np.repeat(now_ns, counts) - np.concatenate(since_ns)
        weights_of_all = np.repeat(weights, counts)
        ages_us = np.maximum(ages_ns / 1000.0, 1.0)
        buckets = np.minimum((np.log10(ages_us) * 10).astype(np.int64), _BUCKETS - 1)
        self._counts += np.bincount(buckets, weights_of_all, _BUCKETS).astype(np.int64)
        self._sum_us += float(ages_us @ weights_of_all)
        self._aside.clear()
