"""Rows deleted in pieces: no transaction is long, and a writer that is behind goes first."""

from typing import Final

import psycopg
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


def rows_to_archive(place: Place, table: sql.Identifier, condition: sql.Composable) -> int | None:
    """How many rows the archive is about to be asked about; None where there is no archive."""
    if place.settings.archive == "none":
        return None
    place.pause()
    count = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(table, condition)
    found = place.session.execute(count).fetchone()
    return int(found[0]) if found else 0


def delete_archived(
    place: Place, table: sql.Identifier, condition: sql.Composable, rows: int | None
) -> int | None:
    """As `delete_rows`; where so many `rows` were asked about, all of them and no other, else
    nothing (None): there are late ones, and they have to be asked about, too.
    """
    if rows is None:
        return delete_rows(place, table, condition)
    with place.session.transaction() as all_or_nothing:
        count = delete_rows(place, table, condition)
        if count != rows:
            raise psycopg.Rollback(all_or_nothing)
    return count if count == rows else None


def moment(time_ns: int) -> sql.Composed:
    """A point in time, whole microseconds, as SQL."""
    return sql.SQL("(timestamptz 'epoch' + {} * interval '1 microsecond')").format(
        sql.Literal(time_ns // 1000)
    )
