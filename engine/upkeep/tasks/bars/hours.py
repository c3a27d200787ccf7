"""Hours with trades, and the list of those whose bars are still to be made (`bar_fill`)."""

import datetime as dt
from typing import Any, Final

from engine.database.session import DatabaseSession

HOUR: Final = dt.timedelta(hours=1)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Span = tuple[dt.datetime, dt.datetime]
"""From, up to but not at."""

EVER: Final[Span] = (_EPOCH, dt.datetime.max.replace(tzinfo=dt.UTC))

ONE_SNAPSHOT: Final = b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
_HOURS: Final = """
    WITH RECURSIVE found AS (
        SELECT date_trunc('hour', min(t.time), 'UTC') AS hour FROM trade AS t
        WHERE t.time >= %(since)s AND t.time < %(until)s
        UNION ALL
        SELECT date_trunc('hour', (
            SELECT min(t.time) FROM trade AS t
            WHERE t.time >= f.hour + interval '1 hour' AND t.time < %(until)s), 'UTC')
        FROM found AS f WHERE f.hour IS NOT NULL
    ), hours AS (SELECT hour FROM found WHERE hour IS NOT NULL)
"""
_SELECT: Final = (_HOURS + "SELECT hour FROM hours ORDER BY hour").encode()
_LIST: Final = (
    _HOURS + "INSERT INTO bar_fill (hour) SELECT hour FROM hours ON CONFLICT DO NOTHING"
).encode()
_LISTED: Final = b"UPDATE bar_state SET is_listed = true"


def list_hours(session: DatabaseSession) -> None:
    """Put every hour with trades on the list. Whatever keeps bars of what is stored from now on
    must be at work. Raises psycopg.Error.
    """
    with session.transaction():
        session.execute(ONE_SNAPSHOT)
        session.execute(_LIST, {"since": EVER[0], "until": EVER[1]})
        session.execute(_LISTED)


def hours_with_trades(session: DatabaseSession, span: Span) -> list[dt.datetime]:
    """The hours of a span in which there are trades. Raises psycopg.Error."""
    found = session.execute(_SELECT, {"since": span[0], "until": span[1]}).fetchall()
    return [hour for (hour,) in found]


def moment(time_ns: int) -> dt.datetime:
    """ns since 1970, whole microseconds."""
    return _EPOCH + dt.timedelta(microseconds=time_ns // 1000)


def ns_of(time: dt.datetime) -> int:
    """ns since 1970."""
    return (time - _EPOCH) // dt.timedelta(microseconds=1) * 1000


def one(session: DatabaseSession, query: bytes, values: Any = None) -> tuple[Any, ...]:
    """The row of a query that has one."""
    found = session.execute(query, values).fetchone()
    assert found is not None
    return found
