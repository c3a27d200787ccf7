"""The same number for the same rows, whatever their order: in SQL from tables, in numpy from files.

Each row becomes a number below 2 ** 31 - 1, column by column, seeded with what its stream is (not
with the id that one database gave it); the sum over the rows is the checksum. Exclusive or between
two multiplications sees to it that values cannot change places between rows unnoticed. Nothing here
is secret: it finds damage and mistakes, not forgers.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg import sql

from engine.data.kind import Column, Kind
from engine.upkeep.lake.raw import EPOCH_2000_US, RawRows

Int64s = npt.NDArray[np.int64]

_PRIME: Final = (1 << 31) - 1
_FACTOR: Final = 1_103_515_245
_MASK: Final = (1 << 31) - 1


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
        found = (found ^ ((values ^ (values >> 32)) & _MASK)) * _FACTOR % _PRIME
    return int(found.sum())


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
        found = sql.SQL("(({0} # (({1} # ({1} >> 32)) & {2})) * {3} % {4})").format(
            found, name, sql.Literal(_MASK), sql.Literal(_FACTOR), sql.Literal(_PRIME)
        )
    return found
