"""Records as the JSON that readers of live rows get: arrays of events, numbers as shortest floats.

Built from whole columns (`engine.data.kind.Kind.events`), so that Python touches each event once.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np

from engine.data.kind import Kind, RecordArray
from engine.data.kinds import BOOK

encode: Final = msgspec.json.Encoder().encode


def by_stream(records: RecordArray) -> Iterator[tuple[int, RecordArray]]:
    """(slot, its rows in order) for every slot in `records`."""
    yield from _runs(_in_stream_order(records))


def events_by_stream(
    spec: Kind, records: RecordArray
) -> Iterator[tuple[int, RecordArray, Sequence[Any]]]:
    """(slot, its rows in order, what they say) for every slot in `records`. Where each row is an
    event, all are made at once: to begin costs more than the few rows of a stream.
    """
    grouped = _in_stream_order(records)
    if spec is BOOK:
        yield from ((slot, rows, spec.events(rows)) for slot, rows in _runs(grouped))
        return
    events, stop = spec.events(grouped), 0
    assert len(events) == len(grouped), spec.name
    for slot, rows in _runs(grouped):
        start, stop = stop, stop + len(rows)
        yield slot, rows, events[start:stop]


def _in_stream_order(records: RecordArray) -> RecordArray:
    grouped: RecordArray = records[np.argsort(records["stream"], kind="stable")]
    return grouped


def _runs(grouped: RecordArray) -> Iterator[tuple[int, RecordArray]]:
    slots = grouped["stream"]
    starts = (np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist()
    for start, stop in pairwise([0, *starts, len(grouped)]):
        yield int(slots[start]), grouped[start:stop]
