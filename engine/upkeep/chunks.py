"""The chunks of hypertables, and what is done with one that is over.

Of TimescaleDB's own schemas only what it documents or shows by name is used; their functions are in
`_timescaledb_functions` wherever the extension is.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from engine.base.clock import DAY_NS
from engine.upkeep.task import Place

_CHUNKS: Final = b"""
    SELECT c.hypertable_name::text, c.chunk_schema::text, c.chunk_name::text,
        (extract(epoch FROM c.range_start) * 1000000)::int8 * 1000,
        (extract(epoch FROM c.range_end) * 1000000)::int8 * 1000, c.is_compressed
    FROM timescaledb_information.chunks AS c
    WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = %s
        AND c.range_end <= timestamptz 'epoch' + %s::int8 / 1000 * interval '1 microsecond'
    ORDER BY c.range_end
"""
_STATE: Final = b"""
    SELECT _timescaledb_functions.chunk_status_text(c.oid), pg_total_relation_size(c.oid)
    FROM pg_class AS c WHERE c.oid = to_regclass(%s)
"""
_UNDONE: Final = frozenset({"UNORDERED", "PARTIAL"})
ROOM: Final = "ROOM"
"""Loose rows were there, and the room they took still is."""
_ROOM_BYTES_MIN: Final = 1 << 18
_REWRITES: Final = 2
"""A chunk with loose rows in it first gets these into its columns, and then into their order."""


class Chunk(NamedTuple):
    """One. Times are ns since 1970."""

    table: str
    schema: str
    name: str
    start_ns: int
    end_ns: int
    """The first moment that is not in it."""
    has_columns: bool

    @property
    def identifier(self) -> sql.Identifier:
        """Its quoted name."""
        return sql.Identifier(self.schema, self.name)


def in_pieces(chunks: Sequence[Chunk], end_ns: int, *, by_day: bool) -> list[list[Chunk]]:
    """Chunks that go together, of those that ended before `end_ns`, the oldest first: each by
    itself, or, by day, as many as have whole days (UTC). A day that is not over is in no piece.
    """
    if not by_day:
        return [[chunk] for chunk in chunks]
    pieces, piece = list[list[Chunk]](), list[Chunk]()
    for chunk in chunks:
        if piece and _day_end_ns(piece) <= chunk.start_ns:
            pieces.append(piece)
            piece = []
        piece.append(chunk)
    if piece and _day_end_ns(piece) <= end_ns:
        pieces.append(piece)
    return pieces


def _day_end_ns(piece: Sequence[Chunk]) -> int:
    return -(-piece[-1].end_ns // DAY_NS) * DAY_NS


def ended_before(place: Place, table: str, end_ns: int) -> list[Chunk]:
    """Chunks without a row at or after a moment, the oldest first. Raises psycopg.Error."""
    found = place.session.execute(_CHUNKS, (table, end_ns)).fetchall()
    return [Chunk(*row) for row in found]


def undone(place: Place, chunk: Chunk) -> frozenset[str]:
    """What is not as it should be: rows came past its columns, were compressed as they came and not
    in their order, or have left their `ROOM` behind.

    Whoever freezes a chunk wants it as it is.
    """
    if not chunk.has_columns:
        return frozenset()
    name = chunk.identifier.as_string(place.session)
    row = place.session.execute(_STATE, (name,)).fetchone()
    if row is None:  # it was dropped meanwhile
        return frozenset()
    words, size_bytes = frozenset(row[0] or ()), int(row[1])
    if "FROZEN" in words:
        return frozenset()
    room = {ROOM} if size_bytes >= _ROOM_BYTES_MIN else set()
    return words & _UNDONE | room


def put_in_order(place: Place, chunk: Chunk) -> bool:
    """Rewrite it until all is in order; False when somebody works on it, or rows keep coming. Room
    that a long transaction still holds is left, though all is written anew.
    """
    try:
        for _ in range(_REWRITES):
            if undone(place, chunk) & _UNDONE:
                rewrite(place, chunk)
        left = undone(place, chunk)
        if left & _UNDONE:
            return False
        if left:
            _give_back(place, chunk)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        return False
    return True


def rewrite(place: Place, chunk: Chunk) -> None:
    """Write its columns anew. Late rows for it wait meanwhile, others do not."""
    place.session.execute(
        sql.SQL("CALL {}({}, recompress => true)").format(
            _function(place, "convert_to_columnstore"), _regclass(place, chunk)
        )
    )


def _give_back(place: Place, chunk: Chunk) -> None:
    """The room of loose rows that are in columns now: their indexes would keep it for ever. Next to
    nothing is left that has to be copied.
    """
    place.session.execute(sql.SQL("VACUUM (FULL) {}").format(chunk.identifier))


def delete_streams(place: Place, chunk: Chunk, stream_ids: Sequence[int]) -> int:
    """Delete the rows of streams; how many. In columns whole segments go, unread: only where their
    numbers are in the statement's text, and nothing else is, can TimescaleDB see that.
    """
    deleted = place.session.execute(
        sql.SQL("DELETE FROM {} WHERE stream_id IN ({})").format(
            chunk.identifier, sql.SQL(", ").join(map(sql.Literal, stream_ids))
        )
    )
    return deleted.rowcount


def count_rows(place: Place, piece: Sequence[Chunk], stream_ids: Sequence[int] = ()) -> int:
    """Rows from the first to the last moment of a piece: of some streams, or all."""
    of_streams = sql.SQL(" AND stream_id = ANY ({})").format(sql.Literal(list(stream_ids)))
    found = place.session.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE time >= {} AND time < {}{}").format(
            sql.Identifier(piece[0].table), _moment(piece[0].start_ns), _moment(piece[-1].end_ns),
            of_streams if stream_ids else sql.SQL(""),
        )
    ).fetchone()  # fmt: skip
    return int(found[0]) if found else 0


def drop(place: Place, piece: Sequence[Chunk], rows: int | None = None) -> bool:
    """Drop all of it at once; with `rows`, only if it has so many: whether it was done. Raises
    psycopg.errors.LockNotAvailable while one is read.
    """
    with place.session.transaction():
        if rows is not None:
            names = sql.SQL(", ").join(chunk.identifier for chunk in piece)
            lock = sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(names)
            place.session.execute(lock)
            if count_rows(place, piece) != rows:
                return False
        for chunk in piece:  # each by itself: one that is made between them was never counted
            place.session.execute(
                sql.SQL("SELECT {}({}, older_than => {}, newer_than => {})").format(
                    _function(place, "drop_chunks"), sql.Literal(chunk.table),
                    _moment(chunk.end_ns), _moment(chunk.start_ns),
                )
            )  # fmt: skip
    return True


def _moment(time_ns: int) -> sql.Composed:
    return sql.SQL("timestamptz 'epoch' + {}::int8 * interval '1 microsecond'").format(
        sql.Literal(time_ns // 1000)
    )


def _function(place: Place, name: str) -> sql.Identifier:
    schema = place.seen.timescaledb_schema
    assert schema is not None, "there are hypertables, so there is an extension"
    return sql.Identifier(schema, name)


def _regclass(place: Place, chunk: Chunk) -> sql.Composable:
    return sql.Literal(chunk.identifier.as_string(place.session))
