"""Percentiles of latencies, in milliseconds. No bucket, no sampling: each one that was measured."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

NAMES: Final = ("p50", "p90", "p99", "p99.9")
PLACES: Final = (50.0, 90.0, 99.0, 99.9)


def percentiles_ms(chunks: Sequence[npt.NDArray[np.int64]]) -> dict[str, float]:
    """Of latencies in ns; nothing where there is none."""
    if not sum(map(len, chunks)):
        return {}
    found = np.percentile(np.concatenate(chunks), PLACES) / 1e6
    return {name: round(float(value), 3) for name, value in zip(NAMES, found, strict=True)}
