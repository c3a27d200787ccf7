"""What a kind of record is: one value, from which everything else follows.

Ring layout, journal header, packers, COPY payload, live payload, ring sizes, positions, what the
proof compares and what the dashboard shows are derived from it. Times are int64 nanoseconds since
1970 UTC; prices and quantities are float64 here and exact integer mantissas in the database
(`engine.writer.rows.exact` proves it).

What is traded has the instrument's decimals. Rates, mark and index prices and average prices are
computed by the venue and have more; so that a mark price cannot raise the decimals of every trade,
their columns have fixed exponents (RATE_DECIMALS, MARK_DECIMALS), proven row by row like any other.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from struct import Struct
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from engine.data.flags import Flag, Side

LAYOUT_VERSION = 1
"""Part of every fingerprint: raise it when a field keeps its name and changes its meaning."""

RATE_DECIMALS = 12
"""Of funding rates; venues send 8 to 10. Rates below 4503 are proven."""
MARK_DECIMALS = 8
"""Of mark, index and average prices; venues send up to 8. Prices below 45 million are proven."""

RecordArray = npt.NDArray[np.void]
ToJson = Callable[[RecordArray], Sequence[Any]]
Transform = Literal["copy", "stream", "time_us", "sub_us", "price", "qty", "fixed", "flags"]
PgType = Literal["int8", "int4", "int2", "char", "timestamptz"]

_STRUCT_CODES: Final = {"u1": "B", "u2": "H", "u4": "I", "i8": "q", "f8": "d"}
SIDE_NAMES: Final = {int(Side.BUY): "buy", int(Side.SELL): "sell"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table and where its value comes from.

    `transform`: `copy` takes the field as it is; `stream` maps the slot to the database's stream
    id; `time_us` turns nanoseconds into PostgreSQL's microseconds since 2000 and `sub_us` keeps
    the remaining 0-999 ns; `price` and `qty` become exact mantissas with the instrument's decimals,
    `fixed` ones with `decimals`; `flags` gains `INEXACT` where the proof of exactness failed.
    """

    name: str
    pg_type: PgType
    source: str
    transform: Transform = "copy"
    decimals: int = 0
    zero_is_absent: bool = False
    """Whether 0 says that there is no such value: readers get null."""


TIME: Final = (
    Column("time", "timestamptz", "ts_event", "time_us"),
    Column("time_sub_us", "int2", "ts_event", "sub_us"),
    Column("ts_recv", "int8", "ts_recv"),
    Column("stream_id", "int4", "stream", "stream"),
)
"""With these the columns of every table begin."""
FLAGS: Final = Column("flags", "int2", "flags", "flags")


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Everything the rest of the system needs to know of one kind of record."""

    name: str
    """Of its table, its rings, its files, and the label of its metrics."""
    dtype: np.dtype[np.void]
    """The layout, written out, pads and all: a field that begins with `_` is one."""
    columns: tuple[Column, ...]
    """None where the records are no rows of a table."""
    id_field: str
    """Field that orders the rows of a stream: trade id or sequence."""
    wide_id_field: str = ""
    """Field with the upper half of ids that have 128 bits."""
    ring_records: int = 1 << 14
    """The most that its ring has unless told otherwise; a power of two."""
    is_fast: bool = False
    """Whether rows come all the time: its ring is as large as its streams want, and gives way where
    memory is short."""
    word: str = ""
    """Its word in the keys of live rows; empty where it has no streams of its own there."""
    to_json: ToJson | None = None
    """Rows of one stream to its events; None where a row says by itself what happened."""
    json_row_bytes: int = 0
    """Memory that a live row takes in a quiet market, where an entry holds one (measured)."""
    view: str = ""
    """The view of its table in SQL; empty where the proof does not compare it value by value."""
    view_values: str = ""
    """The columns of it that say what the venue said, in the order of `columns`."""
    newest_shown: int = 1
    """Rows of a symbol the dashboard keeps in view; 0 where it has a panel of its own, or none."""
    events: ToJson = field(init=False)
    """The rows of one stream as the events that readers of JSON get."""
    fingerprint: bytes = field(init=False)
    """16 bytes that change with any change of the layout."""

    def __post_init__(self) -> None:
        plain = partial(_rows_to_json, self.own_columns)
        object.__setattr__(self, "events", self.to_json or plain)
        text = f"{LAYOUT_VERSION}:{self.name}:{np.lib.format.dtype_to_descr(self.dtype)}"
        fingerprint = hashlib.blake2b(text.encode(), digest_size=16).digest()
        object.__setattr__(self, "fingerprint", fingerprint)

    @property
    def ring_records_min(self) -> int:
        """What its ring has where no stream of it is known yet, and shared memory is ample."""
        return self.ring_records // 8 if self.is_fast else self.ring_records

    @property
    def own_columns(self) -> list[Column]:
        """Those that not every table has: what its rows say."""
        return [column for column in self.columns if column not in (*TIME, FLAGS)]

    def packer(self, *zero: str) -> Callable[..., None]:
        """What packs a record: (buffer, offset, a value for each field in order). Pads and the
        fields of `zero` have no value, and become 0.
        """
        codes = ["="]
        for name in self.dtype.names or ():
            field = self.dtype[name]
            is_zero = name in zero or name.startswith("_")
            codes.append(_zeros(field.itemsize) if is_zero else _STRUCT_CODES[field.str[1:]])
        return Struct("".join(codes)).pack_into


def lists(rows: RecordArray, *names: str) -> list[list[Any]]:
    """The values of some fields, so that Python touches each once."""
    return [rows[name].tolist() for name in names]


def flagged(rows: RecordArray, flag: Flag) -> list[bool]:
    """Whether each row has a flag."""
    found: list[bool] = ((rows["flags"] & int(flag)) != 0).tolist()
    return found


def _rows_to_json(own: Sequence[Column], rows: RecordArray) -> list[dict[str, Any]]:
    """One event a row: its times, what its own columns say, and `inexact`, true, where the venue
    wrote more digits than these.
    """
    names = ("time", "recv", *(column.name for column in own))
    values = zip(
        *lists(rows, "ts_event", "ts_recv"), *(_shown(each, rows) for each in own), strict=True
    )
    events = [dict(zip(names, each, strict=True)) for each in values]
    for place in np.flatnonzero(flagged(rows, Flag.INEXACT)).tolist():
        events[place]["inexact"] = True
    return events


def _shown(column: Column, rows: RecordArray) -> Iterable[Any]:
    if column.source == "side":
        return map(SIDE_NAMES.get, rows["side"].tolist())
    values: list[Any] = rows[column.source].tolist()
    return [value or None for value in values] if column.zero_is_absent else values


def _zeros(size: int) -> str:
    return "x" if size == 1 else f"{size}x"
