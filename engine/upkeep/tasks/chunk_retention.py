"""Drops chunks of hypertables, and the rows of venues in chunks, where no policy does that.

A policy of TimescaleDB's knows the age of rows and nothing else. So we drop them ourselves where a
day must be archived or turned into bars before it goes, and where the version or licence has no
policies. And a venue's rows may go before the others of their chunk: that no policy can do.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import psycopg

from engine.database.timescale import columns_refused
from engine.upkeep.chunks import Chunk, delete_streams, drop, ended_before, rewrite
from engine.upkeep.hypertables import find, seconds
from engine.upkeep.task import Place, PostponedError
from engine.upkeep.tasks.policies import has_policy

BeforeDrop = Callable[[Place, str, int], bool]
"""(place, table, day since 1970-01-01) to whether rows of that day may go: it may first do with
them what must be done. Asked for the oldest day first, and again until it says so."""
_S_NS: Final = 1_000_000_000
_STREAMS: Final = b"""
    SELECT s.stream_id FROM stream AS s JOIN instrument AS i USING (instrument_id)
    WHERE i.venue = %s ORDER BY s.stream_id
"""


class ChunkRetention:
    """On hypertables."""

    name: ClassVar[str] = "chunk_retention"
    every_s: ClassVar[float] = 600.0

    def __init__(self, before_drop: Sequence[BeforeDrop] = ()) -> None:
        self._before_drop = before_drop
        self._emptied: set[tuple[str, str]] = set()
        """Chunks and the venues that were deleted from them: a chunk without columns is read from
        end to end for that, so not twice."""

    def run(self, place: Place) -> str:
        """Drop what is too old."""
        if place.layout != "hypertables":
            return ""
        refused = columns_refused(place.seen, place.session.info.server_version)
        did = []
        for found in find(place.session):
            table = found.table
            try:
                kept_for = place.settings.keep.get(table)
                if kept_for and (refused or not has_policy(place.settings)):
                    count = self._drop(place, table, kept_for)
                    did += [f"dropped {count} chunks of {table}"] if count else []
                for venue, keeps in place.settings.keep_by_venue.items():
                    if kept_for := keeps.get(table):
                        rows = self._delete(place, table, venue, kept_for)
                        did += [f"deleted {rows:,} rows of {venue} from {table}"] if rows else []
            except psycopg.errors.LockNotAvailable:
                raise PostponedError(f"somebody reads what is too old of {table}") from None
        return "; ".join(did)

    def _drop(self, place: Place, table: str, kept_for: str) -> int:
        """Oldest first, up to the first day that may not go yet."""
        count = 0
        for chunk in ended_before(place, table, _oldest_ns(place, kept_for)):
            if not self._may_go(place, chunk):
                break
            drop(place, chunk)
            count += 1
        return count

    def _delete(self, place: Place, table: str, venue: str, kept_for: str) -> int:
        stream_ids = [row[0] for row in place.session.execute(_STREAMS, (venue,)).fetchall()]
        count = 0
        for chunk in ended_before(place, table, _oldest_ns(place, kept_for)) if stream_ids else ():
            if (chunk.name, venue) in self._emptied:
                continue
            place.pause()
            if not self._may_go(place, chunk):
                break
            deleted = delete_streams(place, chunk, stream_ids)
            if deleted and chunk.has_columns:
                rewrite(place, chunk)  # nobody writes there any more who would use the room
            self._emptied.add((chunk.name, venue))
            count += deleted
        return count

    def _may_go(self, place: Place, chunk: Chunk) -> bool:
        return all(ask(place, chunk.table, day) for day in chunk.days for ask in self._before_drop)


def _oldest_ns(place: Place, kept_for: str) -> int:
    return place.now_ns() - seconds(kept_for) * _S_NS
