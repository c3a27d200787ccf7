"""Drops chunks of hypertables, and the rows of venues in chunks, where no policy does that.

A policy of TimescaleDB's knows the age of rows and nothing else. So we drop them ourselves where a
day must be archived or turned into bars before it goes, and where the version or licence has no
policies. And a venue's rows may go before the others of their chunk: that no policy can do.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import psycopg

from engine.database.timescale import columns_refused
from engine.upkeep.chunks import (
    Chunk,
    count_rows,
    delete_streams,
    drop,
    ended_before,
    in_pieces,
    rewrite,
)
from engine.upkeep.hypertables import hypertables
from engine.upkeep.task import Place, PostponedError
from engine.upkeep.tasks.ages import age_ns
from engine.upkeep.tasks.policies import has_policy, merges_chunks
from engine.upkeep.tasks.retention import BeforeDrop

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
        said = list[str]()
        for table in hypertables(place.session):
            try:
                said += self._look(place, table)
            except psycopg.errors.LockNotAvailable:
                raise PostponedError(f"somebody reads what is too old of {table}") from None
        return "; ".join(said)

    def _look(self, place: Place, table: str) -> Iterator[str]:
        refused = columns_refused(place.seen, place.session.info.server_version)
        kept_for = place.settings.keep.get(table)
        if kept_for and (refused or not has_policy(place.settings)):
            count, why_not = self._drop(place, table, kept_for)
            if count:
                yield f"dropped {count} chunks of {table}"
            if why_not:
                yield f"{table} kept for now ({why_not})"
        for venue, keeps in place.settings.keep_by_venue.items():
            if kept_for := keeps.get(table):
                count = self._delete(place, table, venue, kept_for)
                if count:
                    yield f"deleted {count:,} rows of {venue} from {table}"

    def _drop(self, place: Place, table: str, kept_for: str) -> tuple[int, str]:
        """Oldest first, up to what may not go yet: how many, and why no more."""
        count = 0
        for piece in _too_old(place, table, kept_for):
            rows = count_rows(place, piece) if place.settings.archive != "none" else None
            if why_not := self._why_not(place, piece):
                return count, why_not
            if not drop(place, piece, rows):
                return count, "late rows have come"
            count += len(piece)
        return count, ""

    def _delete(self, place: Place, table: str, venue: str, kept_for: str) -> int:
        stream_ids = [row[0] for row in place.session.execute(_STREAMS, (venue,)).fetchall()]
        count = 0
        for piece in _too_old(place, table, kept_for) if stream_ids else ():
            names = {(chunk.name, venue) for chunk in piece}
            if names <= self._emptied:
                continue
            place.pause()
            is_archived = place.settings.archive != "none"
            before = count_rows(place, piece, stream_ids) if is_archived else None
            if self._why_not(place, piece):
                break
            with place.session.transaction() as all_or_nothing:
                deleted = [delete_streams(place, chunk, stream_ids) for chunk in piece]
                if before not in (None, sum(deleted)):  # late rows, which nobody was asked about
                    raise psycopg.Rollback(all_or_nothing)
            if before not in (None, sum(deleted)):
                break
            for chunk, rows in zip(piece, deleted, strict=True):
                if rows and chunk.has_columns:
                    rewrite(place, chunk)  # nobody writes there any more who would use the room
            self._emptied |= names
            count += sum(deleted)
        return count

    def _why_not(self, place: Place, piece: Sequence[Chunk]) -> str:
        first, last = piece[0], piece[-1]
        reasons = (
            ask(place, first.table, first.start_ns, last.end_ns) for ask in self._before_drop
        )
        return next((reason for reason in reasons if reason), "")


def _too_old(place: Place, table: str, kept_for: str) -> list[list[Chunk]]:
    """Whoever is asked is never asked about a time of which a part is gone already."""
    end_ns = place.now_ns() - age_ns(kept_for)
    by_day = not merges_chunks(place.settings)
    return in_pieces(ended_before(place, table, end_ns), end_ns, by_day=by_day)
