"""Daily partitions of the tick tables on plain PostgreSQL, there before a row needs them.

The database makes them (function `make_day`), so that a writer without rights to change a schema
has its days, too.
"""

import datetime as dt

import psycopg

from engine.base.clock import DAY_NS, wall_ns
from engine.base.errors import DatabaseUnavailableError
from engine.database.session import AsyncSession

_FIND = """
    SELECT c.oid::regclass::text, c.relkind = 'p' FROM pg_class AS c WHERE c.oid = to_regclass(%s)
"""
_MAKE = "SELECT make_day(%s::regclass, %s)"

Connection = AsyncSession


class Partitions:
    """Knows which days are there. Hypertables and plain tables need nothing and get nothing."""

    def __init__(self) -> None:
        self._parents: dict[str, str | None] = {}
        self._known: set[tuple[str, int]] = set()

    def forget(self) -> None:
        """Look again: the database may be another one, or retention may have dropped a day."""
        self._parents.clear()
        self._known.clear()

    async def ensure(self, connection: Connection, table: str, days: set[int]) -> None:
        """Have what is missing made for `days` (since 1970 UTC), and for tomorrow if today is new.

        Own transactions; safe against another writer doing the same, and where the table has become
        a hypertable meanwhile. Raises DatabaseUnavailableError when table or function is missing,
        and while a day of these is being dropped.
        """
        missing = sorted(day for day in days if (table, day) not in self._known)
        if not missing:
            return
        parent = await self._parent(connection, table)
        if parent is not None:
            today = wall_ns() // DAY_NS
            ahead = [today + 1] if today in missing else []
            for day in (*missing, *ahead):
                await _make(connection, parent, day)
        # Not `ahead`: tomorrow is to be looked at again, and its own tomorrow made with it.
        self._known.update((table, day) for day in missing)

    async def _parent(self, connection: Connection, table: str) -> str | None:
        """A partitioned table as the server writes it; None for any other table."""
        if table not in self._parents:
            row = await (await connection.execute(_FIND, (table,))).fetchone()
            if row is None:
                raise DatabaseUnavailableError(f"table {table} is missing: run `fts migrate`")
            self._parents[table] = row[0] if row[1] else None
        return self._parents[table]


async def _make(connection: Connection, parent: str, day: int) -> None:
    date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
    try:
        await connection.execute(_MAKE, (parent, date))
    except psycopg.errors.ObjectInUse as error:
        raise DatabaseUnavailableError(str(error).split("\n")[0]) from error
    except psycopg.errors.UndefinedFunction as error:
        text = "function make_day is missing: run `fts migrate`"
        raise DatabaseUnavailableError(text) from error
