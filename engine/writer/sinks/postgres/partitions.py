"""Daily partitions of the tick tables on plain PostgreSQL, made before a row needs them.

A partition is made aside and attached: that takes a lock which lets readers and writers go on,
where `CREATE TABLE ... PARTITION OF` would wait for every query on the table, and make all others
wait behind it.
"""

import datetime as dt

import psycopg
from psycopg import sql

from engine.base.clock import wall_ns
from engine.base.errors import DatabaseUnavailableError
from engine.database.locks import PARTITIONS
from engine.database.session import AsyncSession
from engine.writer.rows.screen import DAY_NS

_OVERLAP = "42P17"
"""invalid_object_definition: somebody's own partition covers this day already."""

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
        Raises DatabaseUnavailableError when the table itself is missing.
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


def partition_name(table: str, day: int) -> str:
    """`trade_p20261122` for the day that is so many days after 1970-01-01."""
    return f"{table}_p{_date(day):%Y%m%d}"


async def _create(connection: Connection, schema: str, table: str, day: int) -> None:
    parent = sql.Identifier(schema, table)
    child = sql.Identifier(schema, partition_name(table, day))
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (PARTITIONS,))
            if await _is_attached(connection, child):
                return
            await connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING DEFAULTS "
                    "INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)"
                ).format(child, parent)
            )
            await connection.execute(
                sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                    parent,
                    child,
                    sql.Literal(f"{_date(day)} 00:00:00+00"),
                    sql.Literal(f"{_date(day + 1)} 00:00:00+00"),
                )
            )
    except psycopg.Error as error:
        if error.sqlstate != _OVERLAP:
            raise


async def _is_attached(connection: Connection, child: sql.Identifier) -> bool:
    cursor = await connection.execute(
        "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%s))",
        (child.as_string(connection),),
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


def _date(day: int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=day)
