"""Records to binary COPY rows without a Python object per row.

PostgreSQL's binary COPY row is a field count (int16) and, for each field, its length (int32) and
its bytes, all big-endian. Every column here has a fixed width, so a row is a packed big-endian
structure whose counts and lengths never change. One array of it is filled once with those; encoding
a batch assigns the value columns, and the array's memory *is* the payload.

Rows are encoded in chunks that stay in the CPU's second-level cache: the mantissa proof passes five
times over the values.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.data.flags import Flag
from engine.data.kind import Column, Kind, PgType, RecordArray
from engine.writer.rows.exact import (
    POWERS_OF_TEN,
    Buffers,
    FloatArray,
    prove,
    storable,
)

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"

_INEXACT: Final = int(Flag.INEXACT)
_CHUNK_ROWS: Final = 2048
_POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01 UTC in microseconds since 1970, from which PostgreSQL counts."""

_WIRE: Final[dict[PgType, str]] = {
    "int8": ">i8",
    "int4": ">i4",
    "int2": ">i2",
    "char": "u1",
    "timestamptz": ">i8",
}


@dataclass(slots=True)
class StreamLookup:
    """What a slot means in the database. Arrays indexed by slot; -1 where not resolved yet."""

    stream_id: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(0, -1, np.int32))
    price_decimals: npt.NDArray[np.int8] = field(default_factory=lambda: np.full(0, -1, np.int8))
    qty_decimals: npt.NDArray[np.int8] = field(default_factory=lambda: np.full(0, -1, np.int8))
    price_scale: FloatArray = field(default_factory=lambda: np.ones(0))
    qty_scale: FloatArray = field(default_factory=lambda: np.ones(0))

    def set(self, slot: int, stream_id: int, price_decimals: int, qty_decimals: int) -> None:
        """Resolve one slot."""
        if slot >= len(self.stream_id):
            self._grow(max(64, 2 * (slot + 1)))
        self.stream_id[slot] = stream_id
        self.price_decimals[slot] = price_decimals
        self.qty_decimals[slot] = qty_decimals
        self.price_scale[slot] = POWERS_OF_TEN[price_decimals]
        self.qty_scale[slot] = POWERS_OF_TEN[qty_decimals]

    def unset(self, slot: int) -> None:
        """Have one slot resolved again. Its decimals are still to be read."""
        self.stream_id[slot] = -1

    def decimals(self, slot: int) -> tuple[int, int]:
        """(price, qty) decimals of a slot, also of one that was unset; -1 where never resolved."""
        if slot >= len(self.stream_id):
            return -1, -1
        return int(self.price_decimals[slot]), int(self.qty_decimals[slot])

    def resolved(self, slots: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether each of `slots` has been resolved."""
        known = np.zeros(len(slots), np.bool_)
        inside = slots < len(self.stream_id)
        known[inside] = self.stream_id[slots[inside]] >= 0
        return known

    def _grow(self, size: int) -> None:
        missing = size - len(self.stream_id)
        self.stream_id = np.append(self.stream_id, np.full(missing, -1, np.int32))
        self.price_decimals = np.append(self.price_decimals, np.full(missing, -1, np.int8))
        self.qty_decimals = np.append(self.qty_decimals, np.full(missing, -1, np.int8))
        self.price_scale = np.append(self.price_scale, np.ones(missing))
        self.qty_scale = np.append(self.qty_scale, np.ones(missing))


class CopyEncoder:
    """Encodes one kind of record. Not for two threads: the buffers are its own."""

    def __init__(self, spec: Kind, capacity: int) -> None:
        self.spec = spec
        self.capacity = capacity
        self.inexact_count = 0
        """Rows stored rounded since this encoder was made."""
        self._rows = _blank_rows(spec.columns, capacity)
        self._bytes = self._rows.view(np.uint8).data
        chunk = min(_CHUNK_ROWS, capacity)
        self._slots = np.empty(chunk, np.intp)
        self._scale = np.empty(chunk)
        self._time_us = np.empty(chunk, np.int64)
        self._proof = Buffers.of(chunk)
        self._all_exact = np.empty(chunk, np.bool_)

    @property
    def row_bytes(self) -> int:
        """Bytes of one encoded row."""
        return self._rows.itemsize

    def encode(self, records: RecordArray, lookup: StreamLookup) -> memoryview:
        """Return the COPY rows of at most `capacity` records, valid until the next call.

        Every slot must be resolved and every mantissa must fit 64 bits
        (`engine.writer.rows.screen`). A row whose proof fails is rounded, flagged INEXACT and
        counted.
        """
        count = len(records)
        assert count <= self.capacity, (count, self.capacity)
        step = len(self._slots)
        for start in range(0, count, step):
            stop = min(start + step, count)
            self._encode_chunk(records[start:stop], self._rows[start:stop], lookup)
        return self._bytes[: count * self._rows.itemsize]

    def _encode_chunk(self, records: RecordArray, rows: RecordArray, lookup: StreamLookup) -> None:
        count = len(records)
        slots = self._slots[:count]
        slots[...] = records["stream"]
        all_exact = self._all_exact[:count]
        all_exact.fill(True)
        time_us = self._time_us[:count]
        flags_column = None
        for column in self.spec.columns:
            target, source = rows[column.name], records[column.source]
            match column.transform:
                case "copy":
                    target[...] = source
                case "stream":
                    target[...] = lookup.stream_id[slots]
                case "time_us":
                    np.floor_divide(source, 1000, out=time_us)
                    np.subtract(time_us, _POSTGRES_EPOCH_US, out=target, casting="unsafe")
                case "sub_us":  # columns are in order: `time_us` has been here
                    np.multiply(time_us, -1000, out=time_us)
                    np.add(source, time_us, out=target, casting="unsafe")
                case "price" | "qty" | "fixed":
                    self._write_mantissas(source, self._scale_of(column, lookup, slots), target)
                case "flags":
                    flags_column = column
        if flags_column is not None:
            self._write_flags(records[flags_column.source], all_exact, rows[flags_column.name])

    def _scale_of(
        self, column: Column, lookup: StreamLookup, slots: npt.NDArray[np.intp]
    ) -> FloatArray | np.float64:
        if column.transform == "fixed":
            fixed: np.float64 = POWERS_OF_TEN[column.decimals]
            return fixed
        by_slot = lookup.price_scale if column.transform == "price" else lookup.qty_scale
        scale = self._scale[: len(slots)]
        np.take(by_slot, slots, out=scale, mode="clip")
        return scale

    def _write_mantissas(
        self,
        values: FloatArray,
        scale: FloatArray | np.float64,
        target: npt.NDArray[np.int64],
    ) -> None:
        scaled, exact = prove(values, scale, self._proof)
        if not exact.all():
            assert storable(values, scale).all(), "such rows are quarantined before"
            self._all_exact[: len(values)] &= exact
        target[...] = scaled

    def _write_flags(
        self,
        source: npt.NDArray[np.uint16],
        exact: npt.NDArray[np.bool_],
        target: npt.NDArray[np.int16],
    ) -> None:
        target[...] = source
        exact &= (source & _INEXACT) == 0  # what a shard has rounded
        rounded = len(exact) - int(np.count_nonzero(exact))
        if rounded:
            self.inexact_count += rounded
            target[~exact] |= _INEXACT


def _blank_rows(columns: tuple[Column, ...], capacity: int) -> RecordArray:
    """Rows with field count and lengths in place."""
    layout: list[tuple[str, str]] = [("_count", ">i2")]
    for column in columns:
        layout += [(f"_len_{column.name}", ">i4"), (column.name, _WIRE[column.pg_type])]
    rows = np.zeros(capacity, np.dtype(layout))
    rows["_count"] = len(columns)
    for column in columns:
        rows[f"_len_{column.name}"] = np.dtype(_WIRE[column.pg_type]).itemsize
    return rows
