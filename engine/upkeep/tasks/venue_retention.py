"""Retention by venue: rows of one venue that may go sooner than their day.

They are deleted from the days that are over, once a day: later rows of such a day are found when
the process is born again. The space that this frees is used by rows of the same day alone, so the
file shrinks only where its end is free; `VACUUM FULL` by hand gives back the rest.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, NamedTuple

from psycopg import sql

from engine.base.clock import DAY_NS
from engine.database.partitions import partitions_of, schema_of_partitioned
from engine.upkeep.task import Place
from engine.upkeep.tasks.ages import first_kept_day_ns, is_over
from engine.upkeep.tasks.deletion import (
    delete_archived,
    is_in_one_piece,
    moment,
    oldest_row_ns,
    rows_to_archive,
)
from engine.upkeep.tasks.retention import BeforeDrop

_STREAMS: Final = b"""
    SELECT s.stream_id FROM stream AS s JOIN instrument AS i USING (instrument_id)
    WHERE i.venue = %s ORDER BY 1
"""


class _Days(NamedTuple):
    """Rows of one table that may be over for a venue."""

    identifier: sql.Identifier
    start_ns: int
    end_ns: int


class VenueRetention:
    """On partitions and on tables in one piece."""

    name: ClassVar[str] = "venue_retention"
    every_s: ClassVar[float] = 3600.0

    def __init__(self, before_drop: Sequence[BeforeDrop] = ()) -> None:
        self._before_drop = tuple(before_drop)
        self._done: set[tuple[str, str, int]] = set()
        """Venue, table and end of the days that have been looked through."""

    def run(self, place: Place) -> str:
        """Delete what is over of every venue."""
        said = []
        for venue, keep in place.settings.keep_by_venue.items():
            streams = [row[0] for row in place.session.execute(_STREAMS, (venue,)).fetchall()]
            if not streams:
                said.append(f"no stream of {venue} is known here")
            for table, kept_for in keep.items() if streams else ():
                count = sum(
                    self._delete(place, table, venue, streams, days)
                    for days in _over(place, table, kept_for)
                )
                said += [f"deleted {count:,} rows of {venue} from {table}"] if count else []
        return "; ".join(said)

    def _delete(self, place: Place, table: str, venue: str, streams: list[int], days: _Days) -> int:
        done = (venue, table, days.end_ns)
        if done in self._done:
            return 0
        condition = sql.SQL("stream_id = ANY ({}) AND time >= {} AND time < {}").format(
            sql.Literal(streams), moment(days.start_ns), moment(days.end_ns)
        )
        exists = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(
            days.identifier, condition
        )
        place.pause()
        found = place.session.execute(exists).fetchone()
        count = 0
        if found and found[0]:
            rows = rows_to_archive(place, days.identifier, condition)
            asked = (ask(place, table, days.start_ns, days.end_ns) for ask in self._before_drop)
            if any(asked):
                return 0
            deleted = delete_archived(place, days.identifier, condition, rows)
            if deleted is None:
                return 0
            count = deleted
            place.session.execute(sql.SQL("VACUUM (ANALYZE) {}").format(days.identifier))
        self._done.add(done)
        return count


def _over(place: Place, table: str, kept_for: str) -> Iterator[_Days]:
    if schema_of_partitioned(place.session, table) is not None:
        for each in partitions_of(place.session, table):
            is_whole = each.is_plain and not each.is_pending
            if is_whole and is_over(each.end_ns, kept_for, place.now_ns()):
                yield _Days(each.identifier, each.start_ns or 0, each.end_ns or 0)
    elif is_in_one_piece(place, table):
        oldest_ns, end_ns = oldest_row_ns(place, table), first_kept_day_ns(kept_for, place.now_ns())
        if oldest_ns is not None:
            for start_ns in range(oldest_ns // DAY_NS * DAY_NS, end_ns, DAY_NS):
                yield _Days(sql.Identifier(table), start_ns, start_ns + DAY_NS)
