"""The columns of a file, derived from those of a table, and the rows of one as the other.

Readers get names, one time in nanoseconds, decimals and nulls; nothing is rounded and nothing is
left out, so that every row can be had back. What is nobody's value in the table (a price of 0 where
there is none) is null here, and only where going back is exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.data.flags import Flag, GapReason, GapState, Side
from engine.data.kind import Column, Kind
from engine.data.kinds import NOT_MARKET_DATA
from engine.upkeep.lake import decimals
from engine.upkeep.lake.raw import EPOCH_2000_US, LakeError, RawRows, raw_dtype
from engine.upkeep.lake.streams import Meanings

SCHEMA_VERSION: Final = 1
"""Raised when a column keeps its name and changes its meaning."""

_TIMESTAMP: Final = pa.timestamp("ns", tz="UTC")
_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_TRADED: Final = pa.decimal128(19 + decimals.SHIFT_MAX, decimals.SHIFT_MAX)
"""Every price and quantity: one type for all instruments, so that all files are one data set."""
_INTEGERS: Final = {"int8": pa.int64(), "int4": pa.int32(), "int2": pa.int16()}
_TIME_NS: Final = (np.iinfo(np.int64).min // 1000 + 1, np.iinfo(np.int64).max // 1000 - 1)

_TRADES: Final = ("price", "qty")
_How = Literal["time", "stream", "word", "traded", "fixed", "timestamp", "integer"]
_Mask = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]

_WORDS: Final[dict[str, dict[int, str]]] = {
    "side": {int(side): side.name.lower() for side in Side},
    "reason": {int(reason): reason.name.lower() for reason in GapReason},
    "state": {int(state): state.name.lower() for state in GapState},
}
"""Numbers of a table that a file spells; any other number is spelled in digits."""
_CALLED: Final = {"ts_recv": "recv_time", "mark": "mark_price", "index": "index_price"}


@dataclass(frozen=True, slots=True)
class LakeColumn:
    """One column of a file, and the table's column it is made of."""

    name: str
    how: _How
    type: Any
    source: Column
    absent: int | None = None
    """What the table has where the file has null; None: never null."""
    absent_where: Callable[[RawRows], _Mask] | None = None
    """Only there; everywhere if this is None."""


def lake_columns(kind: Kind) -> list[LakeColumn]:
    """The columns of the files of a kind."""
    found = []
    for column in kind.columns:
        if column.transform == "stream":
            found += [LakeColumn(name, "stream", _WORD, column) for name in _stream_words(kind)]
        elif column.transform != "sub_us":  # part of `time`
            name = _CALLED.get(column.name) or _spelled(column.name)
            found.append(LakeColumn(name, *_how(column), column, *_absent(column, kind)))
    by_name = {column.name: column for column in kind.columns}
    return [*found, LakeColumn("stream_id", "integer", pa.int32(), by_name["stream_id"])]


def _stream_words(kind: Kind) -> list[str]:
    """A row's table says what sort of stream it is of, but for what is said about rows."""
    return ["symbol", *(["kind_of_stream"] if kind.name in NOT_MARKET_DATA else []), "transport"]


def _spelled(name: str) -> str:
    if name.endswith("_ts"):
        return f"{name.removesuffix('_ts')}_time"
    if name.startswith("avg_"):
        return f"average_{name.removeprefix('avg_')}"
    return f"{name.removesuffix('qty')}quantity" if name.endswith("qty") else name


def _how(column: Column) -> tuple[_How, Any]:
    if column.transform == "time_us":
        return "time", _TIMESTAMP
    if column.transform in _TRADES:
        return "traded", _TRADED
    if column.transform == "fixed":
        return "fixed", pa.decimal128(19, column.decimals)
    if column.name in _WORDS:
        return "word", _WORD
    if column.name == "ts_recv" or column.name.endswith("_ts"):
        return "timestamp", _TIMESTAMP
    return "integer", _INTEGERS[column.pg_type]


def _absent(column: Column, kind: Kind) -> tuple[int | None, Callable[[RawRows], _Mask] | None]:
    if column.zero_is_absent or column.name in ("from_ts", "to_ts"):
        return 0, None
    if column.name == "rate":
        return 0, lambda rows: (rows["flags"] & int(Flag.NO_RATE)) != 0
    if column.name == "missing":
        return -1, None
    if column.transform in _TRADES and any(each.name == "side" for each in kind.columns):
        return 0, lambda rows: rows["side"] == int(Side.NONE)
    return None, None


def arrow_schema(kind: Kind) -> Any:
    """The `pyarrow.Schema` of the files of a kind."""
    return pa.schema(
        [
            pa.field(each.name, each.type, nullable=each.how == "stream" or each.absent is not None)
            for each in lake_columns(kind)
        ]
    )


def to_batch(rows: RawRows, kind: Kind, meanings: Meanings) -> Any:
    """Rows of a table as a `pyarrow.RecordBatch`. Raises LakeError for a time that nanoseconds
    cannot hold.
    """
    places = meanings.places(rows["stream_id"])
    arrays = []
    for column in lake_columns(kind):
        values = rows[column.source.name]
        absent = _absent_rows(column, rows)
        if column.how == "stream":
            found = _dictionary(*meanings.words(column.name, places))
        elif column.how == "time":
            found = pa.array(_times(rows, kind)).cast(column.type)
        elif column.how == "word":
            found = _words(values, _WORDS[column.name])
        elif column.how in ("traded", "fixed"):
            found = _decimals(values, _shift(column, meanings, places), column.type, absent)
        else:
            found = pa.array(values, mask=absent).cast(column.type)
        arrays.append(found)
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(kind))


def to_rows(batch: Any, kind: Kind, meanings: Meanings) -> RawRows:
    """Rows of a file (a RecordBatch with the columns of `arrow_schema`) as the table had them.
    Raises LakeError for what no table can have said.
    """
    rows = np.empty(batch.num_rows, raw_dtype(kind))
    rows["stream_id"] = batch.column("stream_id").to_numpy()
    places = meanings.places(rows["stream_id"])
    for column in lake_columns(kind):
        array, target = batch.column(column.name), column.source.name
        if column.how == "time":
            at_ns = _int64s(array, None)
            rows["time"], rows["time_sub_us"] = at_ns // 1000 - EPOCH_2000_US, at_ns % 1000
        elif column.how == "word":
            rows[target] = _numbers(array, _WORDS[column.name])
        elif column.how in ("traded", "fixed"):
            rows[target] = _mantissas(array, _shift(column, meanings, places), column)
        elif column.how != "stream":
            rows[target] = _int64s(array, column.absent)
    return rows


def _shift(column: LakeColumn, meanings: Meanings, places: Int64s) -> Int64s:
    """Between the decimals of each row's instrument and those of the file."""
    if column.how == "fixed":
        return np.zeros(len(places), np.int64)
    return decimals.SHIFT_MAX - meanings.decimals(column.source.transform, places)


def _absent_rows(column: LakeColumn, rows: RawRows) -> _Mask | None:
    if column.absent is None:
        return None
    found: _Mask = rows[column.source.name] == column.absent
    return found if column.absent_where is None else found & column.absent_where(rows)


def _times(rows: RawRows, kind: Kind) -> Int64s:
    at_us, below_us = rows["time"] + EPOCH_2000_US, rows["time_sub_us"]
    if len(rows) and not (
        _TIME_NS[0] <= at_us.min() and at_us.max() <= _TIME_NS[1]
        and below_us.min() >= 0 and below_us.max() <= 999
    ):  # fmt: skip
        raise LakeError(f"table {kind.name} has a time that is no number of nanoseconds since 1970")
    found: Int64s = at_us * 1000 + below_us
    return found


def _dictionary(codes: Int64s, words: list[str]) -> Any:
    """-1 is null."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))


def _words(numbers: npt.NDArray[Any], known: dict[int, str]) -> Any:
    distinct, places = np.unique(numbers, return_inverse=True)
    words = [known.get(number, str(number)) for number in distinct.tolist()]
    return _dictionary(places.astype(np.int64), words)


def _numbers(array: Any, known: dict[int, str]) -> Int64s:
    numbers = {word: number for number, word in known.items()}
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    try:
        found = [numbers.get(word) or int(word) for word in coded.dictionary.to_pylist()]
    except ValueError as error:
        raise LakeError(f"a file says a word that means nothing here: {error}") from None
    numbers_read: Int64s = np.array(found, np.int64)[coded.indices.to_numpy()]
    return numbers_read


def _decimals(mantissas: Int64s, shift: Int64s, to: Any, absent: _Mask | None) -> Any:
    body = decimals.scaled(np.ascontiguousarray(mantissas), shift)
    validity = None
    if absent is not None and absent.any():
        validity = pa.array(~absent).buffers()[1]
    return pa.Array.from_buffers(to, len(mantissas), [validity, pa.py_buffer(body)])


def _mantissas(array: Any, shift: Int64s, column: LakeColumn) -> Int64s:
    body = np.frombuffer(array.buffers()[1], np.uint64).reshape(-1, 2)
    numbers = body[array.offset : array.offset + len(array)]
    if array.null_count:
        numbers = numbers.copy()
        numbers[array.is_null().to_numpy(zero_copy_only=False)] = 0
    try:
        return decimals.unscaled(numbers, shift)
    except ValueError as error:
        raise LakeError(f"column {column.name}: {error}") from None


def _int64s(array: Any, absent: int | None) -> Int64s:
    plain = array.cast(pa.int64())
    if plain.null_count:
        plain = plain.fill_null(0 if absent is None else absent)
    found: Int64s = plain.to_numpy(zero_copy_only=False)
    return found
