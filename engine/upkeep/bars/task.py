"""The task `bars`, and what retention asks before it drops a day of trades."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

from engine.data.kinds import TRADE
from engine.database.session import DatabaseSession
from engine.upkeep.bars import aggregates, marks
from engine.upkeep.task import Place

_LOCK_KEY: Final = 0x66747304
"""Advisory lock: of two upkeeps of one database one makes the bars."""


class Bars:
    """Keeps the bars up to date."""

    name: ClassVar[str] = "bars"
    every_s: ClassVar[float] = 10.0

    def run(self, place: Place) -> str:
        """Make the bars of what was stored since. Raises psycopg.Error and EngineError."""
        if not place.settings.bars:
            return aggregates.stop(place) if _are_aggregates(place.session) else ""
        with _alone(place.session) as is_alone:
            if not is_alone:
                return ""
            if _are_aggregates(place.session):
                return aggregates.refresh(place)
            return marks.work_off(place)


def bars_are_made(place: Place, table: str, day: dt.date) -> bool:
    """Make the bars of a day before its rows of `table` are dropped, or those of a venue among
    them; False where another upkeep is at it: then ask again later. Raises psycopg.Error and
    EngineError.
    """
    if table != TRADE.name or not place.settings.bars:
        return True
    with _alone(place.session) as is_alone:
        if is_alone and _are_aggregates(place.session):
            aggregates.complete_day(place, day)
        elif is_alone:
            marks.complete_day(place, day)
        return is_alone


@contextmanager
def _alone(session: DatabaseSession) -> Iterator[bool]:
    """Whether nobody else makes bars here meanwhile. A session that dies lets go by itself."""
    found = session.execute(b"SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
    is_alone = bool(found and found[0])
    try:
        yield is_alone
    finally:
        if is_alone and not session.closed:
            session.execute(b"SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))


def _are_aggregates(session: DatabaseSession) -> bool:
    return session.execute(b"SELECT bars_by()").fetchone() == ("aggregates",)
