"""The task `bars`, and what retention asks before it drops trades."""

from typing import ClassVar

from engine.data.kinds import TRADE
from engine.database.session import DatabaseSession
from engine.upkeep.task import Place
from engine.upkeep.tasks.bars import aggregates, marks
from engine.upkeep.tasks.bars.hours import one


class Bars:
    """Keeps the bars up to date."""

    name: ClassVar[str] = "bars"
    every_s: ClassVar[float] = 10.0

    def run(self, place: Place) -> str:
        """Make the bars of what was stored since. Raises psycopg.Error and EngineError."""
        are_aggregates = _are_aggregates(place.session)
        if not place.settings.bars:
            return aggregates.stop(place) if are_aggregates else ""
        return aggregates.refresh(place) if are_aggregates else marks.work_off(place)


def bars_are_made(place: Place, table: str, start_ns: int, end_ns: int) -> str:
    """Make the bars of trades that are about to be dropped; why they must stay for now, empty when
    they may go. Raises psycopg.Error and StoppingError.
    """
    if table != TRADE.name or not place.settings.bars:
        return ""
    if _are_aggregates(place.session):
        return aggregates.complete(place, start_ns, end_ns)
    marks.complete(place, start_ns, end_ns)
    return ""


def _are_aggregates(session: DatabaseSession) -> bool:
    return bool(one(session, b"SELECT bars_by()")[0] == "aggregates")
