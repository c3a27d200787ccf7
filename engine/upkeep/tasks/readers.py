"""Who is in the way: what takes place concurrently waits for the transactions that began before."""

from typing import Final

from engine.upkeep.task import Place

_TOLD: Final = """
    SELECT 'process ' || a.pid || coalesce(' of ' || nullif(a.application_name, ''), '')
        || ' is in a transaction since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI') || ' UTC'
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
        AND a.xact_start < now() - %s * interval '1 second' AND {}
    ORDER BY a.xact_start LIMIT 1
"""
_ANYWHERE: Final = _TOLD.format("a.backend_xmin IS NOT NULL").encode()
_IN_TABLE: Final = _TOLD.format(
    "a.pid IN (SELECT l.pid FROM pg_locks AS l WHERE l.granted AND l.locktype = 'relation'"
    " AND l.relation = to_regclass(%s))"
).encode()


def who_reads(place: Place, table: str, longer_than_s: float) -> str:
    """Whose transaction has used a table for so long; empty for nobody's, as far as may be seen."""
    found = place.session.execute(_IN_TABLE, (longer_than_s, table)).fetchone()
    return str(found[0]) if found else ""


def who_looks_back(place: Place, longer_than_s: float) -> str:
    """Whose transaction sees the database as it was so long ago, wherever it reads."""
    found = place.session.execute(_ANYWHERE, (longer_than_s,)).fetchone()
    return str(found[0]) if found else ""
