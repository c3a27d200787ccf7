"""Days ahead: the partitions of today and the next two days, so that no writer waits for one."""

from typing import ClassVar, Final

from engine.data.kinds import KINDS
from engine.database.partitions import date_of, day_of, make_day, schema_of_partitioned
from engine.upkeep.task import Place

_DAYS: Final = 3
"""Today, and two nights at which nobody need be awake."""


class DaysAhead:
    """On partitions; other layouts need no days."""

    name: ClassVar[str] = "days_ahead"
    every_s: ClassVar[float] = 1800.0

    def run(self, place: Place) -> str:
        """Make what is missing."""
        today, made = day_of(place.now_ns()), set[int]()
        for table in KINDS:
            schema = schema_of_partitioned(place.session, table)
            if schema is None:
                continue
            days = range(today, today + _DAYS)
            made.update(d for d in days if make_day(place.session, schema, table, d))
        return f"made {', '.join(str(date_of(day)) for day in sorted(made))}" if made else ""
