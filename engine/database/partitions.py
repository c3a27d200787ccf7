"""Partitions of plain PostgreSQL: a day each, made aside and attached, found by their bounds.

A partition is made aside because `ATTACH` takes a lock that lets readers and writers go on, where
`CREATE TABLE ... PARTITION OF` would wait for every query on the table, and make all others wait
behind it. The writer makes the days that it needs, and the upkeep those ahead, both by `LOCK_KEY`.
"""

import datetime as dt
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from engine.base.clock import DAY_NS
from engine.database.session import DatabaseSession

LOCK_KEY: Final = 0x66747302
"""Advisory lock: whoever makes or drops a day holds it in that transaction."""
OVERLAP: Final = "42P17"
"""invalid_object_definition: somebody's own partition covers this day already."""
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


def partition_name(table: str, day: int) -> str:
    """`trade_p20261122` for the day that is so many days after 1970-01-01."""
    return f"{table}_p{date_of(day):%Y%m%d}"


def create_aside(schema: str, table: str, day: int) -> sql.Composed:
    """The table of a day, not a partition yet."""
    return sql.SQL(
        "CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING DEFAULTS "
        "INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)"
    ).format(sql.Identifier(schema, partition_name(table, day)), sql.Identifier(schema, table))


def attach(schema: str, table: str, day: int) -> sql.Composed:
    """Make it one."""
    return sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
        sql.Identifier(schema, table),
        sql.Identifier(schema, partition_name(table, day)),
        sql.Literal(f"{date_of(day)} 00:00:00+00"),
        sql.Literal(f"{date_of(day + 1)} 00:00:00+00"),
    )


def schema_of_partitioned(session: DatabaseSession, table: str) -> str | None:
    """Where a partitioned table is; None for any other table, and for none."""
    found = session.execute(_PARENT, (table,)).fetchone()
    return str(found[0]) if found else None


def partitions_of(session: DatabaseSession, table: str) -> list[Partition]:
    """All of a table, the oldest first."""
    return [Partition(*row) for row in session.execute(_PARTITIONS, (table,)).fetchall()]


def make_day(session: DatabaseSession, schema: str, table: str, day: int) -> bool:
    """Make the partition of a day, if it is not there; whether it was. Raises psycopg.Error."""
    child = sql.Identifier(schema, partition_name(table, day)).as_string(session)
    try:
        with session.transaction():
            session.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
            if session.execute(STATE_OF_DAY.encode(), (child,)).fetchone() is not None:
                return False
            session.execute(create_aside(schema, table, day))
            session.execute(attach(schema, table, day))
    except psycopg.Error as error:
        if error.sqlstate != OVERLAP:
            raise
        return False
    return True


def day_of(time_ns: int) -> int:
    """The day of a moment, counted from 1970-01-01 UTC."""
    return time_ns // DAY_NS
