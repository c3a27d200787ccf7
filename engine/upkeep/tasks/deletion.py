"""Rows deleted in pieces: no transaction is long, and a writer that is behind goes first."""

from typing import Final

from psycopg import sql

from engine.database.layout import is_hypertable
from engine.upkeep.task import Place

_ROWS_AT_ONCE: Final = 50_000
_IN_ONE_PIECE: Final = b"SELECT c.relkind = 'r' FROM pg_class AS c WHERE c.oid = to_regclass(%s)"
_OLDEST: Final = "SELECT (extract(epoch FROM min(time)) * 1000000)::int8 * 1000 FROM {}"


def is_in_one_piece(place: Place, table: str) -> bool:
    """Whether it is a table without partitions or chunks."""
    found = place.session.execute(_IN_ONE_PIECE, (table,)).fetchone()
    if not (found and found[0]):
        return False
    return place.seen.timescaledb is None or not is_hypertable(place.session, table)


def oldest_row_ns(place: Place, table: str) -> int | None:
    """Time of the oldest row, ns since 1970; None for an empty table."""
    found = place.session.execute(sql.SQL(_OLDEST).format(sql.Identifier(table))).fetchone()
    assert found is not None
    oldest: int | None = found[0]
    return oldest


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
