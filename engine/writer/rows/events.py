"""Records as the JSON that readers of live rows get: arrays of events, numbers as shortest floats.

Built from whole columns (`engine.data.kind.Kind.events`), so that Python touches each event once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np

from engine.data.kind import Kind, RecordArray

encode: Final = msgspec.json.Encoder().encode


def by_stream(records: RecordArray) -> Iterator[tuple[int, RecordArray]]:
    """(slot, its rows in order) for every slot in `records`."""
    grouped = records[np.argsort(records["stream"], kind="stable")]
    slots = grouped["stream"]
    starts = (np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist()
    for start, stop in pairwise([0, *starts, len(grouped)]):
        yield int(slots[start]), grouped[start:stop]


def events_by_stream(spec: Kind, records: RecordArray) -> Iterable[tuple[int, Sequence[Any]]]:
    """(slot, what its rows say, in order) for every slot, of a kind whose rows are events: sorting
    what Python has to touch anyway is cheaper than to have numpy sort the rows.
    """
    by_slot: defaultdict[int, list[Any]] = defaultdict(list)
    for slot, event in zip(records["stream"].tolist(), spec.events(records), strict=True):
        by_slot[slot].append(event)
    return by_slot.items()
