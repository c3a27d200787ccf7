"""Looks at rows before the database does: which can never be stored, which need more decimals."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.base.clock import DAY_NS, wall_ns
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import GAP
from engine.writer.rows.copy import StreamLookup
from engine.writer.rows.exact import (
    POWERS_OF_TEN,
    Buffers,
    FloatArray,
    any_number,
    holds,
    prove,
    storable,
)

_CHUNK_ROWS: Final = 4096
_MINUTE_NS: Final = 60_000_000_000
TIME_MIN_NS: Final = 1_230_768_000_000_000_000
"""2009-01-01 UTC. Earlier or far future times would make absurd partitions."""
FUTURE_NS: Final = DAY_NS

_UNKNOWN_SLOT = "its slot is not in the stream table"
_BAD_TIME = "ts_event is before 2009 or more than a day ahead"
_BAD_NUMBER = "a price, quantity or rate is not a finite number that fits 64 bits"

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Refused:
    """Rows of one slice that go to quarantine: their offsets in it, and why."""

    offsets: Offsets
    reason: str


def number_fields(spec: Kind) -> tuple[tuple[str, str], ...]:
    """(field, transform) of the columns that become mantissas with the instrument's decimals."""
    return tuple((c.source, c.transform) for c in spec.columns if c.transform in ("price", "qty"))


def _fixed_fields(spec: Kind) -> tuple[tuple[str, np.float64], ...]:
    """(field, scale) of the columns whose decimals never change."""
    return tuple(
        (c.source, POWERS_OF_TEN[c.decimals]) for c in spec.columns if c.transform == "fixed"
    )


def unstorable(records: RecordArray, spec: Kind, lookup: StreamLookup) -> list[Refused]:
    """Rows no database would take, each once, under its first reason."""
    refused: list[Refused] = []
    good = np.ones(len(records), np.bool_)
    checks = (
        (_UNKNOWN_SLOT, lookup.resolved(records["stream"])),
        (_BAD_TIME, _may_be_stored_at(records, spec)),
        (_BAD_NUMBER, _numbers_fit(records, spec, lookup)),
    )
    for reason, passed in checks:
        bad = good & ~passed
        if bad.any():
            refused.append(Refused(np.flatnonzero(bad), reason))
            good &= ~bad
    return refused


def is_clean(records: RecordArray, spec: Kind, lookup: StreamLookup) -> bool:
    """Whether `unstorable` and `unproven` would find nothing: one pass, and nearly always True.

    A number with fixed decimals need not be proven here: nothing could be raised for it.
    Every slot must lie inside the lookup.
    """
    times = records["ts_event"]
    if spec.name != GAP.name and (times.min() < TIME_MIN_NS or times.max() > wall_ns() + FUTURE_NS):
        return False
    for name, scale in _fixed_fields(spec):
        if not holds(storable(records[name], scale)):
            return False
    fields = number_fields(spec)
    if not fields:
        return True
    buffers = Buffers.of(min(len(records), _CHUNK_ROWS))
    with any_number():
        for start in range(0, len(records), _CHUNK_ROWS):
            chunk = records[start : start + _CHUNK_ROWS]
            slots = chunk["stream"].astype(np.intp)
            for name, transform in fields:
                _, exact = prove(chunk[name], scales(lookup, transform).take(slots), buffers)
                if not holds(exact):
                    return False
    return True


def unproven(records: RecordArray, field: str, scale_by_slot: FloatArray) -> RecordArray:
    """The rows whose `field` is not exact with their slot's decimals."""
    scale = scale_by_slot[records["stream"].astype(np.intp)]
    with any_number():
        _, exact = prove(records[field], scale, Buffers.of(len(records)))
    rows: RecordArray = records[~exact]
    return rows


def scales(lookup: StreamLookup, transform: str) -> FloatArray:
    """The lookup's scales for `price` or `qty`."""
    return lookup.price_scale if transform == "price" else lookup.qty_scale


def days(records: RecordArray) -> set[int]:
    """Days since 1970 UTC that the rows fall on."""
    times = records["ts_event"]
    first, last = int(times.min()) // DAY_NS, int(times.max()) // DAY_NS
    if last - first < 2:
        return {first, last}
    return {int(day) for day in np.unique(times // DAY_NS)}


def minutes(records: RecordArray) -> set[int]:
    """Minutes since 1970 UTC that the rows fall on."""
    times = records["ts_event"]
    first, last = int(times.min()) // _MINUTE_NS, int(times.max()) // _MINUTE_NS
    if last - first < 2:
        return {first, last}
    return {int(minute) for minute in np.unique(times // _MINUTE_NS)}


def _may_be_stored_at(records: RecordArray, spec: Kind) -> npt.NDArray[np.bool_]:
    """A gap may be of any time: it is stamped by our clock, which may be wrong, and its table has
    no partitions that could become absurd."""
    if spec.name == GAP.name:
        return np.ones(len(records), np.bool_)
    return time_is_sane(records["ts_event"])


def time_is_sane(times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each can be a venue's time of what has happened."""
    return (times >= TIME_MIN_NS) & (times <= wall_ns() + FUTURE_NS)


def _numbers_fit(records: RecordArray, spec: Kind, lookup: StreamLookup) -> npt.NDArray[np.bool_]:
    fits = np.ones(len(records), np.bool_)
    for name, scale in _fixed_fields(spec):
        fits &= storable(records[name], scale)
    slots = np.minimum(records["stream"], max(len(lookup.stream_id) - 1, 0)).astype(np.intp)
    if len(lookup.stream_id) == 0:
        return fits
    for name, transform in number_fields(spec):
        fits &= storable(records[name], scales(lookup, transform)[slots])
    return fits
