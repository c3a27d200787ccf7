"""Spans of rows (table `row_span`) are for days without an index by stream: those of other days go.

What stays is the newest span of each stream, by which its newest row is found, and those of the
snapshots of books for as long as there are the books.
"""

import datetime as dt
from typing import ClassVar, Final

from engine.data.kinds import BOOK, GAP, KINDS
from engine.database.partitions import partitions_of
from engine.upkeep.task import Place

_LEAST_AGE: Final = dt.timedelta(days=1)
_INDEXED: Final = b"""
    SELECT x.indrelid::int8 FROM pg_index AS x
    JOIN pg_inherits AS i ON i.inhrelid = x.indrelid
    JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
    WHERE i.inhparent = to_regclass(%s) AND x.indisvalid AND x.indpred IS NULL
        AND a.attname = 'stream_id'
"""
_UNCOMPRESSED: Final = b"""
    SELECT min(c.range_start) FROM timescaledb_information.chunks AS c
    WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = %s AND NOT c.is_compressed
"""
_OLDEST_BOOK: Final = b"SELECT min(time) FROM book"
_FORGET: Final = b"SELECT forget_row_spans(%s, %s)"


class ForgetRowSpans:
    """In both layouts; where the tables are in one piece, no day ever has an index."""

    name: ClassVar[str] = "row_spans"
    every_s: ClassVar[float] = 3600.0

    def run(self, place: Place) -> str:
        """Forget what serves nobody any more."""
        now = dt.datetime.fromtimestamp(place.now_ns() / 1e9, dt.UTC)
        count = 0
        for kind, spec in KINDS.items():
            if not spec.columns or spec is GAP:
                continue
            place.pause()
            before = _served_until(place, kind)
            if before is not None:
                count += _forget(place, kind, min(before, now - _LEAST_AGE))
        (oldest,) = place.session.execute(_OLDEST_BOOK).fetchone() or (None,)
        if oldest is not None:
            count += _forget(place, f"{BOOK.name}_snapshot", oldest)
        return f"forgot {count} spans" if count else ""


def _forget(place: Place, kind: str, before: dt.datetime) -> int:
    row = place.session.execute(_FORGET, (kind, before)).fetchone()
    return int(row[0]) if row else 0


def _served_until(place: Place, kind: str) -> dt.datetime | None:
    """Before this time every day has an index by stream, or is compressed by stream."""
    if place.layout == "hypertables":
        (start,) = place.session.execute(_UNCOMPRESSED, (kind,)).fetchone() or (None,)
        return start if isinstance(start, dt.datetime) else None
    indexed = {oid for (oid,) in place.session.execute(_INDEXED, (kind,)).fetchall()}
    bare = [each for each in partitions_of(place.session, kind) if each.oid not in indexed]
    starts_ns = [each.start_ns for each in bare]
    if not starts_ns or None in starts_ns:
        return None
    return dt.datetime.fromtimestamp(min(filter(None, starts_ns)) / 1e9, dt.UTC)
