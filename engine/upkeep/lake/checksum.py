"""The same number for the same rows, whatever their order: in SQL from tables, in numpy from files.

Each row becomes a number below 2 ** 31 - 1, column by column, seeded with what its stream is (not
with the id that one database gave it); the sum over the rows is the checksum. Exclusive or before
each multiplication, and once more at the end, sees to it that values cannot change places between
rows unnoticed. Nothing here is secret: it finds damage and mistakes, not forgers.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg import sql

from engine.data.kind import Column, Kind
from engine.upkeep.lake.raw import EPOCH_2000_US, RawRows

Int64s = npt.NDArray[np.int64]

_PRIME: Final = (1 << 31) - 1
_FACTOR: Final = 1_000_000_007
"""Below 2 ** 30: what it multiplies is below 2 ** 32, and int8 has 63 bits."""
_LAST: Final = 0x5BD1_E995
_SQL_PRIME: Final = sql.Literal(_PRIME)


def checked_columns(kind: Kind) -> list[Column]:
    """Those that say the same in every database."""
    return [column for column in kind.columns if column.name != "stream_id"]


def row_sum(rows: RawRows, kind: Kind, seeds: Int64s) -> int:
    """Checksum of rows; `seeds` has one a row (`LakeStream.seed`)."""
    found = seeds
    for column in checked_columns(kind):
        values = rows[column.name].astype(np.int64)
        if column.pg_type == "timestamptz":
            values += EPOCH_2000_US
        found = (found ^ (np.fmod(values, _PRIME) + _PRIME)) * _FACTOR % _PRIME
    return int(((found ^ _LAST) * _FACTOR % _PRIME).sum())


def row_sum_sql(kind: Kind, row: sql.Identifier, seed: sql.Composable) -> sql.Composable:
    """The number of one row, in SQL."""
    found = seed
    for column in checked_columns(kind):
        name = sql.SQL("{}.{}").format(row, sql.Identifier(column.name))
        if column.pg_type == "timestamptz":
            # Exact: microseconds since 1970 have fewer digits than float8 until the year 2255.
            name = sql.SQL("round(date_part('epoch', {}) * 1000000)::int8").format(name)
        elif column.pg_type == "char":
            name = sql.SQL("{}::int4::int8").format(name)
        else:
            name = sql.SQL("{}::int8").format(name)
        found = _round(found, sql.SQL("{} % {prime} + {prime}").format(name, prime=_SQL_PRIME))
    return _round(found, sql.Literal(_LAST))


def _round(found: sql.Composable, value: sql.Composable) -> sql.Composable:
    return sql.SQL("(({} # ({})) * {} % {})").format(found, value, sql.Literal(_FACTOR), _SQL_PRIME)
