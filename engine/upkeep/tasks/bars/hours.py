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
_SELECT: Final = b"SELECT hour FROM hours_with_trades(%s, %s)"
_LIST: Final = b"""
    INSERT INTO bar_fill (hour) SELECT hour FROM hours_with_trades('-infinity', 'infinity')
    ON CONFLICT DO NOTHING
"""
_LISTED: Final = b"UPDATE bar_state SET is_listed = true"


def list_hours(session: DatabaseSession) -> None:
    """Put every hour with trades on the list. Whatever keeps bars of what is stored from now on
    must be at work. Raises psycopg.Error.
    """
    with session.transaction():
        session.execute(ONE_SNAPSHOT)
        session.execute(_LIST)
        session.execute(_LISTED)


def hours_with_trades(session: DatabaseSession, span: Span) -> list[dt.datetime]:
    """The hours of a span in which there are trades. Raises psycopg.Error."""
    return [hour for (hour,) in session.execute(_SELECT, span).fetchall()]


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
