"""How large the tables are, piece by piece: from the catalog and the statistics, never by counting.

What it costs grows with the number of partitions and chunks, not with that of rows.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from psycopg import sql

from engine.data.kinds import KINDS
from engine.database.layout import DatabaseLayout
from engine.database.partitions import partitions_of
from engine.database.session import DatabaseSession

_RELKIND: Final = b"""
    SELECT c.relkind, n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(%s)
"""
_OF_TREE: Final = """
    SELECT {}, sum(nullif(c.reltuples, -1))::int8,
        coalesce(sum(pg_relation_size(c.oid)), 0)::int8,
        coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8
    FROM {} JOIN pg_class AS c ON c.oid = t.relid AND t.isleaf
"""
_PARTITIONS: Final = (
    _OF_TREE.format(
        "i.inhrelid::int8",
        "pg_inherits AS i CROSS JOIN LATERAL pg_partition_tree(i.inhrelid) AS t",
    )
    + "WHERE i.inhparent = to_regclass(%s) GROUP BY 1"
).encode()
_ONE_PIECE: Final = b"""
    SELECT nullif(c.reltuples, -1)::int8, pg_relation_size(c.oid), pg_total_relation_size(c.oid)
    FROM pg_class AS c WHERE c.oid = to_regclass(%s)
"""
_HYPERTABLE: Final = b"""
    SELECT h.compression_enabled FROM timescaledb_information.hypertables AS h
    WHERE h.hypertable_schema = %s AND h.hypertable_name = %s
"""
_CHUNKS: Final = """
    WITH counted AS (
        SELECT coalesce((to_jsonb(h) ->> 'relid')::regclass::oid, to_regclass(
            format('%%I.%%I', to_jsonb(h) ->> 'schema_name', to_jsonb(h) ->> 'table_name')
        )::oid) AS oid, z.numrows_pre_compression AS rows
        FROM _timescaledb_catalog.compression_chunk_size AS z
        JOIN _timescaledb_catalog.chunk AS h ON h.id = z.chunk_id
    )
    SELECT c.chunk_schema, c.chunk_name,
        (extract(epoch FROM c.range_start) * 1000000)::int8 * 1000,
        (extract(epoch FROM c.range_end) * 1000000)::int8 * 1000,
        CASE WHEN NOT c.is_compressed THEN nullif(k.reltuples, -1)::int8
            WHEN r.rows > 0 THEN r.rows + greatest(k.reltuples, 0)::int8
            ELSE {extension}.approximate_row_count(k.oid::regclass) END,
        coalesce(s.table_bytes, 0), coalesce(s.total_bytes, 0),
        p.after_compression_total_bytes, p.before_compression_total_bytes
    FROM timescaledb_information.chunks AS c
    JOIN pg_namespace AS n ON n.nspname = c.chunk_schema
    JOIN pg_class AS k ON k.relnamespace = n.oid AND k.relname = c.chunk_name
    JOIN {extension}.chunks_detailed_size(to_regclass(%s)) AS s
        ON s.chunk_schema = c.chunk_schema AND s.chunk_name = c.chunk_name
    LEFT JOIN {extension}.chunk_compression_stats(to_regclass(%s)) AS p
        ON p.chunk_schema = c.chunk_schema AND p.chunk_name = c.chunk_name
    LEFT JOIN counted AS r ON r.oid = k.oid
    WHERE c.hypertable_schema = %s AND c.hypertable_name = %s
    ORDER BY c.range_end, c.range_start
"""
"""How many rows went into columns only the catalog of TimescaleDB tells, in two spellings: newer
versions have a chunk's oid there, older ones its name. Rows that were compressed as they came it
does not count; those are estimated."""
_OLDEST: Final = "SELECT (extract(epoch FROM min(time)) * 1000000)::int8 * 1000 FROM {}"


class Piece(NamedTuple):
    """A partition, a chunk, or a table in one piece. Times are ns since 1970."""

    schema: str
    name: str
    start_ns: int | None
    """None: it has no lower bound."""
    end_ns: int | None
    """The first moment that is not in it; None: it has no upper bound."""
    row_count: int | None
    """As the statistics say; None: they say nothing yet."""
    is_empty: bool
    size_bytes: int
    """On disk, with indexes and columns."""
    compressed_bytes: int | None = None
    """Of `size_bytes`, what is in columns; None: nothing is."""
    before_compression_bytes: int | None = None

    def is_over(self, now_ns: int) -> bool:
        """Whether all its time has passed."""
        return self.end_ns is not None and self.end_ns <= now_ns


class TablePieces(NamedTuple):
    """One table."""

    table: str
    pieces: list[Piece]
    """The oldest first."""
    has_columns: bool = False
    """Whether what is over is compressed, sooner or later."""


def read_pieces(session: DatabaseSession, seen: DatabaseLayout) -> list[TablePieces]:
    """All tables of rows that there are. Raises psycopg.Error."""
    return list(_tables(session, seen))


def oldest_row_ns(session: DatabaseSession, piece: Piece) -> int | None:
    """Time of the oldest row of a piece, ns since 1970, by its index on time or the bounds of its
    columns; None where it has none. Raises psycopg.Error.
    """
    query = sql.SQL(_OLDEST).format(sql.Identifier(piece.schema, piece.name))
    found = session.execute(query).fetchone()
    oldest: int | None = found[0] if found else None
    return oldest


def _tables(session: DatabaseSession, seen: DatabaseLayout) -> Iterator[TablePieces]:
    for table in (kind.name for kind in KINDS.values() if kind.columns):
        found = session.execute(_RELKIND, (table,)).fetchone()
        if found is None:
            continue
        relkind, schema = found
        if relkind == "p":
            yield TablePieces(table, _partitions(session, table))
            continue
        hyper = None
        if seen.timescaledb is not None:
            hyper = session.execute(_HYPERTABLE, (schema, table)).fetchone()
        if hyper is None:
            yield TablePieces(table, _one_piece(session, schema, table))
        else:
            pieces = _chunks(session, seen.timescaledb_schema or "", schema, table)
            yield TablePieces(table, pieces, bool(hyper[0]))


def _partitions(session: DatabaseSession, table: str) -> list[Piece]:
    sizes = {
        oid: (rows, heap_bytes, size_bytes)
        for oid, rows, heap_bytes, size_bytes in session.execute(_PARTITIONS, (table,)).fetchall()
    }
    pieces = []
    for each in partitions_of(session, table):
        if each.oid in sizes:  # else it was made or dropped in between, or is a foreign table
            rows, heap_bytes, size_bytes = sizes[each.oid]
            pieces.append(
                Piece(
                    each.schema, each.name, each.start_ns, each.end_ns,
                    _known(rows, heap_bytes), not heap_bytes, size_bytes,
                )
            )  # fmt: skip
    return pieces


def _one_piece(session: DatabaseSession, schema: str, table: str) -> list[Piece]:
    return [
        Piece(schema, table, None, None, _known(rows, heap_bytes), not heap_bytes, size_bytes)
        for rows, heap_bytes, size_bytes in session.execute(_ONE_PIECE, (table,)).fetchall()
    ]


def _chunks(session: DatabaseSession, extension: str, schema: str, table: str) -> list[Piece]:
    query = sql.SQL(_CHUNKS).format(extension=sql.Identifier(extension))
    found = session.execute(query, (table, table, schema, table)).fetchall()
    return [
        Piece(
            chunk_schema, name, start_ns, end_ns, _known(rows, heap_bytes), not heap_bytes,
            size_bytes, columns_bytes, before_bytes,
        )
        for (
            chunk_schema, name, start_ns, end_ns, rows, heap_bytes, size_bytes, columns_bytes,
            before_bytes,
        ) in found
    ]  # fmt: skip


def _known(rows: int | None, heap_bytes: int) -> int | None:
    """A table that has rows and was never looked at has none in the statistics."""
    return (rows or None) if heap_bytes else 0
