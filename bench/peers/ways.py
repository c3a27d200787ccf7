"""Ways to bring rows into a table, each in one transaction, from the form it takes best: tuples of
Python's values, or our records as they come from a ring.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.peers.others import installed
from bench.peers.rows import COLUMNS, Known, Row
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.writer.rows.copy import COPY_HEADER, COPY_TRAILER, CopyEncoder, StreamLookup

INSERT_ROWS: Final = 500
"""Of one INSERT that has many."""
_TABLE: Final = TRADE.name
_ONE: Final = "(" + ", ".join(["%s"] * len(TRADE.columns)) + ")"
_COPY: Final = f"COPY {_TABLE} ({COLUMNS}) FROM STDIN"


@dataclass(frozen=True)
class Stock:
    """What is to be stored, in all forms."""

    rows: list[Row]
    records: RecordArray
    lookup: StreamLookup
    file: Path
    """For the server itself, in the format of a binary COPY."""

    @classmethod
    def of(cls, rows: list[Row], records: RecordArray, lookup: StreamLookup, file: Path) -> "Stock":
        """Write the file, too."""
        payload = bytes(CopyEncoder(TRADE, len(records)).encode(records, lookup))
        file.write_bytes(COPY_HEADER + payload + COPY_TRAILER)
        file.chmod(0o644)
        return cls(rows, records, lookup, file)


class Way(Protocol):
    """One of them. `pid` is the server's process that works for it."""

    pid: int

    async def open(self, known: Known) -> None:
        """Connect."""

    async def store(self, stock: Stock) -> None:
        """All rows, committed."""

    async def close(self) -> None:
        """Let go of the server."""


class _Psycopg:
    """What its ways have in common."""

    async def open(self, known: Known) -> None:
        self._connection = await psycopg.AsyncConnection.connect(known.url, autocommit=True)
        self.pid = self._connection.info.backend_pid

    async def close(self) -> None:
        await self._connection.close()


class ExecuteMany(_Psycopg):
    """An INSERT a row, which psycopg sends as a pipeline."""

    async def store(self, stock: Stock) -> None:
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            statement = f"INSERT INTO {_TABLE} ({COLUMNS}) VALUES {_ONE}"
            await cursor.executemany(statement.encode(), stock.rows)


class ManyRowInsert(_Psycopg):
    """An INSERT of 500 rows."""

    async def store(self, stock: Stock) -> None:
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            for start in range(0, len(stock.rows), INSERT_ROWS):
                await insert(cursor, stock.rows[start : start + INSERT_ROWS])


async def insert(cursor: "psycopg.AsyncCursor[Any]", rows: list[Row]) -> None:
    """One INSERT."""
    places = ", ".join([_ONE] * len(rows))
    statement = f"INSERT INTO {_TABLE} ({COLUMNS}) VALUES {places}"
    await cursor.execute(statement.encode(), [value for row in rows for value in row])


class WriteRow(_Psycopg):
    """COPY, row by row."""

    async def store(self, stock: Stock) -> None:
        async with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy(_COPY.encode()) as copy,
        ):
            for row in stock.rows:
                await copy.write_row(row)


class Asyncpg:
    """`copy_records_to_table`, a binary COPY whose rows are encoded in Cython."""

    async def open(self, known: Known) -> None:
        found = conninfo_to_dict(known.url)
        self._connection = await installed("asyncpg").connect(
            host=found["host"], port=found.get("port"), user=found["user"], database=found["dbname"]
        )
        self.pid = self._connection.get_server_pid()

    async def store(self, stock: Stock) -> None:
        columns = COLUMNS.split(", ")
        side = columns.index("side")
        rows = ((*row[:side], row[side].encode(), *row[side + 1 :]) for row in stock.rows)
        async with self._connection.transaction():
            await self._connection.copy_records_to_table(_TABLE, records=rows, columns=columns)

    async def close(self) -> None:
        await self._connection.close()


class Blocks(_Psycopg):
    """Ours without the writer around it: blocks of a binary COPY that numpy has laid out."""

    async def store(self, stock: Stock) -> None:
        encoder = CopyEncoder(TRADE, len(stock.records))
        async with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy(f"{_COPY} (FORMAT binary)".encode()) as copy,
        ):
            await copy.write(COPY_HEADER)
            await copy.write(encoder.encode(stock.records, stock.lookup))
            await copy.write(COPY_TRAILER)


class Ours:
    """The writer's sink: the same, and rows are screened, and a cursor moves with them."""

    async def open(self, known: Known) -> None:
        self._known = known
        assert known.sink._connection is not None
        self.pid = known.sink._connection.info.backend_pid

    async def store(self, stock: Stock) -> None:
        await self._known.take(stock.records)

    async def close(self) -> None:
        """It belongs to who gave it."""


class ServerFile(_Psycopg):
    """The limit: the server reads the rows itself, and has nobody to listen to."""

    async def store(self, stock: Stock) -> None:
        statement = f"COPY {_TABLE} ({COLUMNS}) FROM '{stock.file}' (FORMAT binary)"
        await self._connection.execute(statement.encode())


WAYS: Final[dict[str, type[Way]]] = {
    "ours": Ours,
    "ours, COPY alone": Blocks,
    "server reads a file": ServerFile,
    "asyncpg, copy_records_to_table": Asyncpg,
    "psycopg, write_row": WriteRow,
    "psycopg, INSERT of 500": ManyRowInsert,
    "psycopg, executemany": ExecuteMany,
}
