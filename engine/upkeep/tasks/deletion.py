"""Rows deleted in pieces: no transaction is long, and a writer that is behind goes first."""

from typing import Final

from psycopg import sql

from engine.upkeep.task import Place

_ROWS_AT_ONCE: Final = 50_000
_IN_ONE_PIECE: Final = b"SELECT c.relkind = 'r' FROM pg_class AS c WHERE c.oid = to_regclass(%s)"
_IS_HYPERTABLE: Final = b"""
    SELECT EXISTS (
        SELECT FROM timescaledb_information.hypertables AS h JOIN pg_namespace AS n
            ON n.nspname = h.hypertable_schema JOIN pg_class AS c ON c.relnamespace = n.oid
            AND c.relname = h.hypertable_name WHERE c.oid = to_regclass(%s))
"""


def is_in_one_piece(place: Place, table: str) -> bool:
    """Whether it is a table without partitions or chunks."""
    found = place.session.execute(_IN_ONE_PIECE, (table,)).fetchone()
    if not (found and found[0]):
        return False
    if place.seen.timescaledb is None:
        return True
    is_hypertable = place.session.execute(_IS_HYPERTABLE, (table,)).fetchone()
    return not (is_hypertable and is_hypertable[0])


def delete_rows(place: Place, table: sql.Identifier, condition: sql.Composable) -> int:
    """Delete the rows for which `condition` holds; return how many there were."""
    delete = sql.SQL(
        "DELETE FROM {} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {} WHERE {} LIMIT {}))"
    ).format(table, table, condition, sql.Literal(_ROWS_AT_ONCE))
    count = 0
    while True:
        place.pause()
        deleted = place.session.execute(delete).rowcount
        count += deleted
        if deleted < _ROWS_AT_ONCE:
            return count


def moment(time_ns: int) -> sql.Composed:
    """A point in time, whole microseconds, as SQL."""
    return sql.SQL("(timestamptz 'epoch' + {} * interval '1 microsecond')").format(
        sql.Literal(time_ns // 1000)
    )
