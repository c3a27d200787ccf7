"""Records as the JSON that readers of live rows get: arrays of events, numbers as shortest floats.

Built per stream from whole columns (`engine.data.kind.Kind.events`), so that Python touches each
event once.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from engine.data.kind import RecordArray

encode: Final = msgspec.json.Encoder().encode


def by_stream(records: RecordArray) -> Iterator[tuple[int, RecordArray]]:
    """(slot, its rows in order) for every slot in `records`."""
    slots = records["stream"]
    order = np.argsort(slots, kind="stable")
    grouped = records[order]
    starts = np.flatnonzero(np.diff(grouped["stream"], prepend=np.uint32(~grouped["stream"][0])))
    bounds = [*starts.tolist(), len(grouped)]
    for start, stop in pairwise(bounds):
        yield int(grouped["stream"][start]), grouped[start:stop]
