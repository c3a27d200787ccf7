"""Daily partitions of the tick tables on plain PostgreSQL, made before a row needs them."""

import psycopg
from psycopg import sql

from engine.base.clock import DAY_NS, wall_ns
from engine.base.errors import DatabaseUnavailableError
from engine.database.locks import PARTITIONS
from engine.database.partitions import (
    OVERLAP,
    STATE_OF_DAY,
    attach,
    create_aside,
    partition_name,
)
from engine.database.session import AsyncSession

Connection = AsyncSession


class Partitions:
    """Knows which days are there. Hypertables and plain tables need nothing and get nothing."""

    def __init__(self) -> None:
        self._schema_by_table: dict[str, str | None] = {}
        self._known: set[tuple[str, int]] = set()

    def forget(self) -> None:
        """Look again: the database may be another one, or retention may have dropped a day."""
        self._schema_by_table.clear()
        self._known.clear()

    async def ensure(self, connection: Connection, table: str, days: set[int]) -> None:
        """Make what is missing for `days` (since 1970 UTC), and for tomorrow if today is new.

        Own transactions; safe against another writer doing the same.
        Raises DatabaseUnavailableError when the table itself is missing, and while a day of these
        is being dropped.
        """
        missing = sorted(day for day in days if (table, day) not in self._known)
        if not missing:
            return
        schema = await self._schema(connection, table)
        if schema is not None:
            today = wall_ns() // DAY_NS
            ahead = [today + 1] if today in missing else []
            for day in (*missing, *ahead):
                await _create(connection, schema, table, day)
        # Not `ahead`: tomorrow is to be looked at again, and its own tomorrow made with it.
        self._known.update((table, day) for day in missing)

    async def _schema(self, connection: Connection, table: str) -> str | None:
        """Schema of a partitioned table; None for any other table."""
        if table not in self._schema_by_table:
            cursor = await connection.execute(
                "SELECT relkind = 'p', relnamespace::regnamespace::text FROM pg_class "
                "WHERE oid = to_regclass(%s)",
                (table,),
            )
            row = await cursor.fetchone()
            if row is None:
                raise DatabaseUnavailableError(f"table {table} is missing: run `fts migrate`")
            self._schema_by_table[table] = row[1] if row[0] else None
        return self._schema_by_table[table]


async def _create(connection: Connection, schema: str, table: str, day: int) -> None:
    child = sql.Identifier(schema, partition_name(table, day)).as_string(connection)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (PARTITIONS,))
            found = await (await connection.execute(STATE_OF_DAY.encode(), (child,))).fetchone()
            if found is not None and found[0]:
                name = partition_name(table, day)
                raise DatabaseUnavailableError(f"{name} is being dropped: its rows wait for that")
            if found is not None:
                return
            await connection.execute(create_aside(schema, table, day))
            await connection.execute(attach(schema, table, day))
    except psycopg.Error as error:
        if error.sqlstate != OVERLAP:
            raise
