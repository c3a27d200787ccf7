"""What a database is like, for who has to look after it: `fts doctor` shows all of it.

Everything here is read, nothing is changed. What a user may not see is left out (None), for a
report that fails on its least important line is no report.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
import psycopg

from engine.base.clock import wall_ns
from engine.data.kinds import KINDS
from engine.database.condition.extent import read_extent
from engine.database.condition.growth import sum_known
from engine.database.condition.rights import Rights, read_rights
from engine.database.layout import read_layout
from engine.database.session import DatabaseSession
from engine.database.timescale import SERVER_SETTINGS, columns_refused, settings_too_low
from engine.messages.upkeep import KeptFor, TableSize

_TABLES: Final = [spec.name for spec in KINDS.values()]

_SERVER: Final = """
    SELECT current_setting('server_version'), current_setting('server_encoding'),
        (SELECT datcollate FROM pg_database WHERE datname = current_database()),
        pg_database_size(current_database()),
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
        current_setting('synchronous_standby_names'),
        (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))
"""
_INHERITED: Final = """
    SELECT split_part(c.said, '=', 1), substr(c.said, strpos(c.said, '=') + 1)
    FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c (said)
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
    ORDER BY s.setrole <> 0, s.setdatabase <> 0
"""
_SWITCHED_OFF: Final = """
    SELECT name FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'autovacuum') AND setting = 'off' ORDER BY name
"""
_HYPERTABLES: Final = """
    SELECT h.hypertable_name::text, h.compression_enabled,
        (SELECT j.config ->> 'drop_after' FROM timescaledb_information.jobs AS j
         WHERE j.proc_name = 'policy_retention' AND j.hypertable_schema = h.hypertable_schema
            AND j.hypertable_name = h.hypertable_name LIMIT 1)
    FROM timescaledb_information.hypertables AS h
    WHERE h.hypertable_schema = current_schema() AND h.hypertable_name = ANY (%s)
"""
_SERVER_SETTINGS: Final = "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)"
_JOBS: Final = """
    SELECT j.hypertable_name::text,
        CASE j.proc_name WHEN 'policy_compression' THEN 'columnstore'
            WHEN 'policy_retention' THEN 'retention' ELSE j.proc_name::text END,
        j.scheduled, s.last_run_status, coalesce(s.total_failures, 0)::int8,
        CASE s.last_run_status WHEN 'Failed' THEN coalesce(
            (SELECT e.err_message FROM timescaledb_information.job_errors AS e
             WHERE e.job_id = j.job_id ORDER BY e.finish_time DESC LIMIT 1), '') ELSE '' END
    FROM timescaledb_information.jobs AS j
    LEFT JOIN timescaledb_information.job_stats AS s USING (job_id)
    WHERE j.hypertable_schema = current_schema()
    ORDER BY j.job_id
"""


class PolicyFacts(msgspec.Struct):
    """One job of TimescaleDB's for a table of ours."""

    table: str
    policy: str
    """`columnstore`, `retention`, or as TimescaleDB calls it."""
    is_scheduled: bool = True
    last_status: str | None = None
    """`Success` or `Failed`; None before it first ran, or where this user may not see it."""
    failures: int = 0
    last_error: str = ""


class DatabaseFacts(msgspec.Struct):
    """One database. None: this user may not see it, or it is not there yet."""

    version: str = ""
    encoding: str = ""
    collation: str = ""
    holds_any_name: bool = True
    """Names that the encoding lacks are stored escaped (engine/database/text.py)."""
    schema: str = ""
    layout: str = "none yet"
    """`hypertables`, `partitions`, `tables`."""
    timescaledb: str | None = None
    """Version of the extension in this database."""
    timescaledb_available: str | None = None
    timescaledb_licence: str | None = None
    timescaledb_lacks: str = ""
    """Why this one has no columnstore and no policies, and what to do; empty when it has."""
    settings_too_low: dict[str, int] = {}
    """Settings of the server that TimescaleDB needs higher, and how high at least."""
    policies: list[PolicyFacts] = []
    columnstore: list[str] = []
    """Hypertables with it."""
    retention: dict[str, str] = {}
    """Tables whose old rows are dropped, and after how long."""
    size_bytes: int | None = None
    tables: list[TableSize] = []
    rows_by_table: dict[str, int] = {}
    """As the statistics say."""
    days_kept: int = 0
    """Days of UTC of which there are rows."""
    rows_a_day: float | None = None
    bytes_a_day: float | None = None
    """Of all tables whose rate is known; None: of none."""
    disk_free_bytes: int | None = None
    """None where the server is not on this machine, or not this user's."""
    days_until_full: float | None = None
    """As in `DatabaseReport`."""
    connections_free: int | None = None
    """For this user, who is in the one that asked."""
    synchronous_standbys: str = ""
    """`synchronous_standby_names`, whose answer a durable COMMIT waits for."""
    standbys_in_sync: int | None = None
    is_pooled: bool = False
    """Somebody stands between: a session pool, or a proxy."""
    inherited: dict[str, str] = {}
    """What `ALTER ROLE … SET` and `ALTER DATABASE … SET` give a session; the engine's own sessions
    take of it only what they do not set themselves."""
    switched_off: list[str] = []
    """Of `fsync`, `full_page_writes` and `autovacuum`."""
    rights: Rights | None = None
    """None also while there are no tables of ours."""


def read_facts(
    session: DatabaseSession, keep: Mapping[str, KeptFor] | None = None
) -> DatabaseFacts:
    """Everything about this session's database, where rows are kept so long by table."""
    facts = DatabaseFacts(encoding=session.seen.encoding, schema=_text(session, "current_schema()"))
    facts.is_pooled = session.seen.backend_pid != session.pgconn.backend_pid
    facts.holds_any_name = facts.encoding in ("UTF8", "SQL_ASCII")
    for values in _rows(session, _SERVER):
        (
            facts.version, _, facts.collation, facts.size_bytes, slots, taken,
            facts.synchronous_standbys, facts.standbys_in_sync,
        ) = values  # fmt: skip
        facts.connections_free = max(slots - taken, 0)
    facts.inherited = dict(_rows(session, _INHERITED))
    facts.switched_off = [name for (name,) in _rows(session, _SWITCHED_OFF)]
    _read_layout(session, facts)
    _read_growth(session, facts, keep or {})
    with suppress(psycopg.errors.InsufficientPrivilege):
        facts.rights = read_rights(session)
    return facts


def _read_layout(session: DatabaseSession, facts: DatabaseFacts) -> None:
    seen = read_layout(session)
    facts.timescaledb, facts.timescaledb_available = seen.timescaledb, seen.timescaledb_available
    facts.timescaledb_licence = seen.timescaledb_licence
    facts.layout = seen.layout or facts.layout
    if facts.timescaledb is None:
        return
    facts.timescaledb_lacks = columns_refused(seen, session.info.server_version)
    settings = dict(_rows(session, _SERVER_SETTINGS, (list(SERVER_SETTINGS),)))
    facts.settings_too_low = settings_too_low(settings)
    facts.policies = [PolicyFacts(*values) for values in _rows(session, _JOBS)]
    for name, has_columnstore, drop_after in _rows(session, _HYPERTABLES, (_TABLES,)):
        if has_columnstore:
            facts.columnstore.append(name)
        if drop_after:
            facts.retention[name] = drop_after


def _read_growth(
    session: DatabaseSession, facts: DatabaseFacts, keep: Mapping[str, KeptFor]
) -> None:
    """The same numbers as those of an engine that runs."""
    try:
        extent = read_extent(session, read_layout(session), keep, wall_ns())
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return
    facts.tables, facts.days_kept = extent.tables, extent.day_count
    facts.disk_free_bytes, facts.days_until_full = extent.disk_free_bytes, extent.days_until_full
    facts.rows_by_table = {each.table: each.row_count for each in extent.tables}
    facts.rows_a_day = sum_known(each.rows_a_day for each in extent.tables)
    facts.bytes_a_day = sum_known(each.bytes_a_day for each in extent.tables)


def _text(session: DatabaseSession, expression: str) -> str:
    rows = _rows(session, f"SELECT {expression}")
    return str(rows[0][0] or "") if rows else ""


def _rows(
    session: DatabaseSession, query: str, values: tuple[Any, ...] = ()
) -> list[tuple[Any, ...]]:
    """Nothing where this user may not look, or the server is too old to know."""
    try:
        return session.execute(query.encode(), values or None).fetchall()
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return []
