"""How the tables of a database are kept, and what TimescaleDB there is: from the catalog alone."""

from typing import Final

import msgspec

from engine.database.session import DatabaseSession
from engine.messages.upkeep import Layout

_SEEN: Final = b"""
    SELECT (SELECT c.relkind FROM pg_class AS c WHERE c.oid = to_regclass('trade')),
        e.extversion, n.nspname,
        (SELECT a.default_version FROM pg_available_extensions AS a WHERE a.name = 'timescaledb'),
        current_setting('timescaledb.license', true)
    FROM (SELECT 1) AS one
    LEFT JOIN pg_extension AS e ON e.extname = 'timescaledb'
    LEFT JOIN pg_namespace AS n ON n.oid = e.extnamespace
"""
_IS_HYPERTABLE: Final = b"""
    SELECT FROM timescaledb_information.hypertables AS h
    JOIN pg_namespace AS n ON n.nspname = h.hypertable_schema
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = h.hypertable_name
    WHERE c.oid = to_regclass(%s)
"""


class DatabaseLayout(msgspec.Struct, frozen=True):
    """What was seen. The table of trades speaks for all that come by the row."""

    layout: Layout | None = None
    """None: the tables are not there yet."""
    timescaledb: str | None = None
    """Version of the extension in this database."""
    timescaledb_schema: str | None = None
    """Where its functions are."""
    timescaledb_available: str | None = None
    """Version that the server could make here."""
    timescaledb_licence: str | None = None
    """`timescale`, or `apache`: then there are no policies. None without the extension."""


def read_layout(session: DatabaseSession) -> DatabaseLayout:
    """Look. Raises psycopg.Error."""
    found = session.execute(_SEEN).fetchone()
    assert found is not None
    relkind, version, schema, available, licence = found
    layout: Layout | None = None
    if relkind is not None:
        is_hyper = version is not None and is_hypertable(session, "trade")
        layout = "hypertables" if is_hyper else "partitions" if relkind == "p" else "tables"
    return DatabaseLayout(layout, version, schema, available, licence if version else None)


def is_hypertable(session: DatabaseSession, table: str) -> bool:
    """Whether a table is one, in a database that has TimescaleDB. Raises psycopg.Error."""
    return session.execute(_IS_HYPERTABLE, (table,)).fetchone() is not None
