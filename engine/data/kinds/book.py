"""Levels of a book: one row a level, flagged where an event of the venue begins and ends."""

from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from engine.data.flags import Flag, Side
from engine.data.kind import FLAGS, TIME, Column, Kind, RecordArray, flagged, lists


class BookJson(msgspec.Struct, omit_defaults=True):
    """One event of the venue. Where a flush cut it in two, the parts say so: `more` on the first,
    `continued` on the second."""

    seq: int
    prev_seq: int
    time: int
    recv: int
    snapshot: bool
    bids: list[list[float]]
    asks: list[list[float]]
    more: bool = False
    continued: bool = False


def _to_json(rows: RecordArray) -> list[BookJson]:
    """One event for each venue event, of one stream."""
    flags = rows["flags"]
    is_first = (flags & int(Flag.FIRST_IN_EVENT)) != 0
    continued = not is_first[0]
    is_first[0] = True
    starts = np.flatnonzero(is_first)
    event_of_row = np.cumsum(is_first) - 1
    bids = _levels(rows, event_of_row, Side.BID, len(starts))
    asks = _levels(rows, event_of_row, Side.ASK, len(starts))
    heads = rows[starts]
    events = list(
        map(
            BookJson,
            *lists(heads, "seq", "prev_seq", "ts_event", "ts_recv"),
            flagged(heads, Flag.SNAPSHOT),
            bids,
            asks,
        )
    )
    events[0].continued = bool(continued)
    events[-1].more = not flags[-1] & int(Flag.LAST_IN_EVENT)
    return events


def _levels(
    rows: RecordArray, event_of_row: npt.NDArray[np.int64], side: Side, event_count: int
) -> list[list[list[float]]]:
    """[[price, qty], ...] of one side, for each event."""
    chosen = rows["side"] == side
    pairs: list[list[float]] = np.column_stack(
        (rows["price"][chosen], rows["qty"][chosen])
    ).tolist()
    bounds: list[int] = np.searchsorted(event_of_row[chosen], np.arange(event_count + 1)).tolist()
    return [pairs[start:stop] for start, stop in pairwise(bounds)]


BOOK = Kind(
    name="book",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("side", "u1"), ("_pad", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("seq", "<i8"), ("prev_seq", "<i8"),
            ("price", "<f8"), ("qty", "<f8"),
        ]
    ),
    columns=(
        *TIME,
        FLAGS,
        Column("side", "char", "side"),
        Column("price", "int8", "price", "price"),
        Column("qty", "int8", "qty", "qty"),
        Column("seq", "int8", "seq"),
        Column("prev_seq", "int8", "prev_seq"),
    ),
    id_field="seq",
    ring_records=1 << 20,
    is_fast=True,
    word="book",
    to_json=_to_json,
    json_row_bytes=40,  # a level of an event of ten
    newest_shown=0,
)  # fmt: skip
