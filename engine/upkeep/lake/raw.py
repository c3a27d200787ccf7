"""Rows of a table as the database holds them, in numpy, and on the wire of binary COPY.

Every column of a kind has a fixed width and is NOT NULL, so a row on the wire has one too: it is
read and written as a structured array, with no Python a row but what libpq hands out.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.generators import copy_from
from psycopg.pq.abc import PGconn

from engine.base.errors import EngineError
from engine.data.kind import Kind
from engine.database.session import DatabaseSession

RawRows = npt.NDArray[np.void]
"""One field a column of the table, by its name: integers as the database has them, `time` in
microseconds since 2000, `side` as its byte."""

BATCH_ROWS: Final = 131_072
"""So many rows are in memory at once, and in a row group of a file."""
EPOCH_2000_US: Final = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where PostgreSQL begins to count."""

_WIDTHS: Final = {"int8": "i8", "int4": "i4", "int2": "i2", "char": "i1", "timestamptz": "i8"}
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"


class LakeError(EngineError):
    """Rows cannot go into a lake, or files of it cannot be trusted."""


def raw_dtype(kind: Kind) -> np.dtype[np.void]:
    """Layout of the rows of a kind."""
    return np.dtype([(each.name, f"<{_WIDTHS[each.pg_type]}") for each in kind.columns])


def _wire_dtype(kind: Kind) -> np.dtype[np.void]:
    """The same row in binary COPY: a count of fields, and each with its length before it."""
    fields = [("_count", ">i2")]
    for column in kind.columns:
        fields += [(f"_{column.name}", ">i4"), (column.name, f">{_WIDTHS[column.pg_type]}")]
    return np.dtype(fields)


def read_rows(session: DatabaseSession, kind: Kind, query: sql.Composable) -> Iterator[RawRows]:
    """What a query answers that selects the columns of `kind` in their order, in batches. Raises
    psycopg.Error.
    """
    wire = _wire_dtype(kind)
    with session.cursor() as cursor:
        statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)
        with cursor.copy(statement):
            rest, is_first, is_over = b"", True, False
            while not is_over:
                chunk, is_over = session.wait(_take(session.pgconn, BATCH_ROWS))
                body = rest + b"".join(chunk)
                if is_first:
                    body, is_first = body[len(_SIGNATURE) :], False
                whole = len(body) // wire.itemsize * wire.itemsize
                rest = body[whole:]
                if whole:
                    yield _plain(np.frombuffer(body[:whole], wire), kind)
            if rest != _END:
                raise LakeError(
                    f"{kind.name}: the database ended its answer in the middle of a row"
                )


def _take(connection: PGconn, most: int) -> PQGen[tuple[list[bytes], bool]]:
    """Up to so many messages of a COPY, each one row, and whether that was its end. One wait for
    all of them: a wait a row costs more than the row.
    """
    found: list[bytes] = []
    while len(found) < most:
        data = yield from copy_from(connection)
        if not isinstance(data, memoryview):  # the result of the whole
            return found, True
        found.append(bytes(data))
    return found, False


def _plain(wire: npt.NDArray[np.void], kind: Kind) -> RawRows:
    rows = np.empty(len(wire), raw_dtype(kind))
    for column in kind.columns:
        rows[column.name] = wire[column.name]
    return rows


def write_rows(
    session: DatabaseSession, kind: Kind, table: sql.Composable, batches: Iterator[RawRows]
) -> int:
    """COPY rows into a table with the columns of `kind`, in the caller's transaction; how many."""
    wire, count = _wire_dtype(kind), 0
    names = sql.SQL(", ").join(sql.Identifier(each.name) for each in kind.columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, names)
    with session.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_SIGNATURE)
        for rows in batches:
            out = np.empty(len(rows), wire)
            out["_count"] = len(kind.columns)
            for column in kind.columns:
                out[f"_{column.name}"] = rows.dtype[column.name].itemsize
                out[column.name] = rows[column.name]
            copy.write(out.tobytes())
            count += len(rows)
        copy.write(_END)
    return count


def without(rows: RawRows, others: Iterable[RawRows]) -> npt.NDArray[np.bool_]:
    """Which of `rows` are not among `others`; of equal ones as many remain as there are more."""
    waiting: dict[bytes, list[int]] = {}
    for place, body in enumerate(_bodies(rows)):
        waiting.setdefault(body, []).append(place)
    found = np.ones(len(rows), np.bool_)
    first, last = (rows["time"].min(), rows["time"].max()) if len(rows) else (0, -1)
    for batch in others:
        near = batch[(batch["time"] >= first) & (batch["time"] <= last)]
        for body in _bodies(near):
            if places := waiting.get(body):
                found[places.pop()] = False
    return found


def _bodies(rows: RawRows) -> Iterator[bytes]:
    size, body = rows.dtype.itemsize, rows.tobytes()
    return (body[start : start + size] for start in range(0, len(body), size))
