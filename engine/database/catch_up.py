"""Rows of a large COPY go into the columns of a hypertable at once.

A writer that catches up copies rows by the ten thousand. Compressed as they come, they cost the
server about the same CPU and a third to a sixth of the WAL. Where streams have few rows each, as in
the small COPYs of a writer that keeps up, they would cost more of both: those go on as ever. What
lies there out of order the upkeep puts in order later (engine/upkeep/tasks/rewriting.py).

Never with `…_client_sorted`: TimescaleDB then believes that COPYs do not overlap, and tells rows in
the wrong order where they do.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from engine.base.clock import monotonic_s
from engine.database.session import AsyncSession
from engine.database.timescale import refused

ROWS_MIN: Final = 10_000
_LOOK_AGAIN_S: Final = 60.0
"""The upkeep, or somebody, may have given a table its columnstore meanwhile."""
_EXTENSION: Final = b"""
    SELECT e.extversion, current_setting('timescaledb.license', true),
        current_setting('timescaledb.enable_direct_compress_copy', true) IS NOT NULL
    FROM pg_extension AS e WHERE e.extname = 'timescaledb'
"""
_HAS_COLUMNS: Final = b"""
    SELECT h.compression_enabled FROM timescaledb_information.hypertables AS h
    WHERE to_regclass(format('%%I.%%I', h.hypertable_schema, h.hypertable_name)) = to_regclass(%s)
"""
_SET: Final = "SET LOCAL timescaledb.enable_direct_compress_copy = "

Connection = AsyncSession


class CatchUp:
    """Knows which tables of one database can take rows so."""

    def __init__(self, clock_s: Callable[[], float] = monotonic_s) -> None:
        self._clock_s = clock_s
        self._seen: dict[str, tuple[float, bool]] = {}

    def forget(self) -> None:
        """The database may be another one."""
        self._seen.clear()

    @asynccontextmanager
    async def way(self, connection: Connection, table: str, row_count: int) -> AsyncIterator[None]:
        """Around one COPY, in its transaction: the way that so many rows are to take."""
        if row_count < ROWS_MIN or not await self._has_columns(connection, table):
            yield
            return
        await connection.execute(f"{_SET}on".encode())
        yield  # what fails ends the transaction, and the setting with it
        await connection.execute(f"{_SET}off".encode())

    async def _has_columns(self, connection: Connection, table: str) -> bool:
        until_s, has_columns = self._seen.get(table, (0.0, False))
        if self._clock_s() >= until_s:
            has_columns = await _look(connection, table)
            self._seen[table] = (self._clock_s() + _LOOK_AGAIN_S, has_columns)
        return has_columns


async def _look(connection: Connection, table: str) -> bool:
    extension = await (await connection.execute(_EXTENSION)).fetchone()
    if extension is None:
        return False
    version, licence, has_setting = extension
    if not has_setting or refused(version, licence or "", connection.info.server_version):
        return False
    row = await (await connection.execute(_HAS_COLUMNS, (table,))).fetchone()
    return bool(row and row[0])
