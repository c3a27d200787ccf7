"""Partitions of plain PostgreSQL: a day each, made by the database, found by their bounds."""

import datetime as dt
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from engine.base.clock import DAY_NS
from engine.database.session import DatabaseSession

_MAKE: Final = b"SELECT make_day(%s::regclass, %s)"
STATE_OF_DAY: Final = """
    SELECT coalesce((to_jsonb(i) ->> 'inhdetachpending')::bool, false)
    FROM pg_inherits AS i WHERE i.inhrelid = to_regclass(%s)
"""
"""No row: not attached. True: half detached, and no row of that day can be stored."""
_PARENT: Final = b"""
    SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(%s) AND c.relkind = 'p'
"""
_PARTITIONS: Final = b"""
    WITH part AS (
        SELECT c.oid, n.nspname, c.relname, c.relkind, i.inhdetachpending,
            pg_get_expr(c.relpartbound, c.oid) AS bound, obj_description(c.oid, 'pg_class') AS said
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE i.inhparent = to_regclass(%s)
    )
    SELECT p.nspname, p.relname, p.oid::int8,
        (extract(epoch FROM substring(p.bound FROM 'FROM \\(''([^'']+)''\\)')::timestamptz)
            * 1000000)::int8 * 1000,
        (extract(epoch FROM substring(p.bound FROM 'TO \\(''([^'']+)''\\)')::timestamptz)
            * 1000000)::int8 * 1000,
        p.bound = 'DEFAULT', p.inhdetachpending, p.relkind = 'r', coalesce(p.said, '')
    FROM part AS p ORDER BY 5 NULLS LAST, 2
"""


class Partition(NamedTuple):
    """One partition of a table, a day as a rule. Times are ns since 1970."""

    schema: str
    name: str
    oid: int
    start_ns: int | None
    """None: it has no lower bound."""
    end_ns: int | None
    """The first moment that is not in it; None: it has no upper bound."""
    is_default: bool
    is_pending: bool
    """Half detached: what detached it has died."""
    is_plain: bool
    """A table; not a foreign one, nor one with partitions of its own."""
    comment: str

    @property
    def identifier(self) -> sql.Identifier:
        """Its quoted name."""
        return sql.Identifier(self.schema, self.name)


def date_of(day: int) -> dt.date:
    """The day that is so many days after 1970-01-01."""
    return dt.date(1970, 1, 1) + dt.timedelta(days=day)


def schema_of_partitioned(session: DatabaseSession, table: str) -> str | None:
    """Where a partitioned table is; None for any other table, and for none."""
    found = session.execute(_PARENT, (table,)).fetchone()
    return str(found[0]) if found else None


def partitions_of(session: DatabaseSession, table: str) -> list[Partition]:
    """All of a table, the oldest first."""
    return [Partition(*row) for row in session.execute(_PARTITIONS, (table,)).fetchall()]


def make_day(session: DatabaseSession, schema: str, table: str, day: int) -> bool:
    """Have the partition of a day made, if it is not there; whether it was made. Raises
    psycopg.Error.
    """
    parent = sql.Identifier(schema, table).as_string(session)
    try:
        found = session.execute(_MAKE, (parent, date_of(day))).fetchone()
    except psycopg.errors.ObjectInUse:
        return False  # half detached: whoever drops it goes on
    return bool(found and found[0])


def day_of(time_ns: int) -> int:
    """The day of a moment, counted from 1970-01-01 UTC."""
    return time_ns // DAY_NS
