"""A database as the tasks of the upkeep find it, at a time of the test's own choosing."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from engine.base.clock import DAY_NS
from engine.database.layout import read_layout
from engine.database.partitions import date_of, make_day, partitions_of
from engine.database.session import UPKEEP, session
from engine.messages.upkeep import DatabaseReport, DatabaseUpkeep
from engine.upkeep.task import Place

TODAY = 20_000
"""2024-10-04, in days since 1970."""
NOON_NS = TODAY * DAY_NS + DAY_NS // 2


@contextmanager
def place_in(
    url: str,
    *,
    now_ns: int = NOON_NS,
    pause: Callable[[], None] = lambda: None,
    lock_timeout: str = "5s",
    **settings: Any,
) -> Iterator[Place]:
    """What a task is given."""
    with session(url, UPKEEP) as opened:
        opened.execute("SELECT set_config('lock_timeout', %s, false)", (lock_timeout,))
        asked = DatabaseUpkeep("database", url, **settings)
        report = DatabaseReport("database")
        yield Place(opened, read_layout(opened), asked, report, pause, lambda: now_ns)


def make_days(place: Place, table: str, *days: int) -> None:
    """Partitions for days since 1970."""
    for day in days:
        assert make_day(place.session, "public", table, day)


def days_of(place: Place, table: str) -> list[int]:
    """Which there are."""
    return [(each.start_ns or 0) // DAY_NS for each in partitions_of(place.session, table)]


def partition_name(table: str, day: int) -> str:
    """`trade_p20261122` for the day that is so many days after 1970-01-01."""
    return f"{table}_p{date_of(day):%Y%m%d}"


def moment(day: float) -> dt.datetime:
    """A point in time, in days since 1970."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=day)


def put_trades(
    connection: psycopg.Connection[Any], day: float, count: int, stream_id: int = 1
) -> None:
    """Trades of one stream, a second after each other."""
    connection.execute(
        "INSERT INTO trade SELECT %s + n * interval '1 second', 0, 0, %s, 0, 'B', 1, 1, 0, n"
        " FROM generate_series(0, %s - 1) AS n",
        (moment(day), stream_id, count),
    )


def names_like(place: Place, pattern: str) -> list[str]:
    """Tables by LIKE."""
    found = place.session.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE %s ORDER BY 1",
        (pattern,),
    )
    return [row[0] for row in found.fetchall()]


@contextmanager
def open_copy(url: str, day: float = TODAY + 0.5) -> Iterator[Callable[[], None]]:
    """A transaction with a row and a COPY that is under way into one day; called, it sends one row
    more. Its COMMIT follows at the end.
    """
    with psycopg.connect(url) as connection:
        put_trades(connection, day, 1)
        with connection.cursor() as cursor, cursor.copy("COPY trade FROM STDIN") as copy:
            yield lambda: copy.write_row((moment(day), 0, 0, 1, 0, "B", 1, 1, 0, 0))


@contextmanager
def open_writing(url: str, table: str) -> Iterator[None]:
    """A transaction that has written into a table and does not end."""
    with psycopg.connect(url) as other:
        other.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
        yield


@contextmanager
def open_reading(url: str, table: str) -> Iterator[None]:
    """A query that goes on and on."""
    with psycopg.connect(url, application_name="notebook") as other:
        other.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE".encode())
        yield
