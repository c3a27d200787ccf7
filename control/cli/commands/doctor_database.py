"""What `fts doctor` says of databases: reachable, up to date, what their user lacks, and what they
hold.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec
import psycopg

from control.cli.findings import Complaint, Finding, Level, fine
from control.cli.remote import storage
from engine.base.clock import DAY_NS, wall_ns
from engine.base.errors import (
    DatabaseUnavailableError,
    EngineError,
    MigrationError,
    NewerSchemaError,
)
from engine.data.layout import Layout
from engine.data.names import DEFAULT_DATABASE
from engine.database.condition.facts import DatabaseFacts, read_facts
from engine.database.session import DOCTOR, session
from engine.database.settling import SHARED_POOL
from engine.database.words import unavailable
from engine.messages.upkeep import age_ns
from engine.process import instance
from engine.start import migrations
from engine.start.addresses import masked_url
from engine.start.config import LoadedConfig

_WAITS: Final = "rows wait in the journal meanwhile, as long as its disk has room"
DATABASE_UNREACHABLE: Final = Complaint("database_unreachable", f"nothing is stored; {_WAITS}")
DATABASE_POOL: Final = Complaint(
    "database_pool", f"settings, locks and COPY of one session would meet in another; {_WAITS}"
)
SCHEMA_OLD: Final = Complaint("schema_old", f"nothing is stored before it is up to date; {_WAITS}")
SCHEMA_NEWER: Final = Complaint(
    "schema_newer",
    "this version does not know what the newer one changed, and stores nothing there",
)
SCHEMA_FOREIGN: Final = Complaint("schema_foreign", "the engine does not start")
RIGHTS_MISSING: Final = Complaint("rights_missing", f"what needs them is not stored; {_WAITS}")
OWNER_UNKNOWN: Final = Complaint(
    "owner_unknown", "nothing is compressed, indexed or dropped, and a new version waits"
)
DATABASE_ENCODING: Final = Complaint(
    "database_encoding", "letters that it lacks are stored escaped, and are to be searched for so"
)
DATABASE_UNSAFE: Final = Complaint(
    "database_unsafe",
    "after a crash of the machine rows that were stored for good are gone, or all",
)
VACUUM_OFF: Final = Complaint(
    "vacuum_off", "plans become wrong, and in the end the server refuses every write"
)
STANDBY_MISSING: Final = Complaint(
    "standby_missing", "COMMIT waits, and nothing is stored for good"
)
SESSIONS_FEW: Final = Complaint("sessions_few", f"some part of the engine gets none; {_WAITS}")
TIMESCALEDB_UNUSED: Final = Complaint(
    "timescaledb_unused", "nothing is compressed, which takes several times the room"
)
TIMESCALEDB_SETTINGS: Final = Complaint(
    "timescaledb_settings", "its workers find no place, so that nothing is compressed or dropped"
)
TIMESCALEDB_LACKS: Final = Complaint(
    "timescaledb_lacks", "rows are stored, but not compressed or dropped by policies"
)
POLICY_FAILS: Final = Complaint("policy_fails", "what it compresses or drops stays as it is")
POLICY_OFF: Final = Complaint("policy_off", "what it compresses or drops stays as it is")
RETENTION_LATE: Final = Complaint(
    "retention_late", "the disk fills with rows nobody wants any more"
)
DATABASE_ROOM: Final = Complaint("database_room", f"a full disk takes no rows; {_WAITS}")
UPKEEP_FAILS: Final = Complaint(
    "upkeep_fails", "days are not made ahead, compressed, archived or dropped"
)
QUARANTINE_WAITS: Final = Complaint("quarantine_waits", "they are gaps until somebody decides")

_LATE_NS: Final = 3 * DAY_NS
"""Rows go by whole days, and the upkeep looks for them some times a day."""
_IN_QUARANTINE = """
    SELECT count(*) FROM quarantined_row WHERE state = 1 AND starts_with(ring, %s)
"""
_SESSIONS = 6
"""Writer, listings, registry, and for moments migration, witness and doctor."""


def all_databases(loaded: LoadedConfig, layout: Layout) -> Iterator[Finding]:
    """What is to be said of each database and its quarantine, and of the upkeep."""
    for sink in loaded.config.all_databases:
        yield from _database(loaded, layout, sink)
        yield _quarantine(loaded, layout, sink)
    for said in storage.upkeep_of(loaded):
        yield UPKEEP_FAILS.of(said.level, said.topic, said.text, said.advice)


def _database_url(loaded: LoadedConfig, layout: Layout, sink: str) -> str:
    """The configured database, else that of the engine that runs; empty where none is open."""
    if (configured := loaded.urls.get(sink)) is not None:
        return configured.reveal()
    note = instance.read_note(layout)
    return note.database if note is not None and note.database.startswith("postgres") else ""


def _database(loaded: LoadedConfig, layout: Layout, sink: str) -> Iterator[Finding]:
    """What is to be said of one; beside the default each line says of which."""
    of = "" if sink == DEFAULT_DATABASE else f"{sink} "
    for finding in database_findings(loaded, _database_url(loaded, layout, sink), sink):
        topic = sink if finding.topic == "database" else f"{of}{finding.topic}"
        yield msgspec.structs.replace(finding, topic=topic)


def database_findings(
    loaded: LoadedConfig, url: str, sink: str = DEFAULT_DATABASE
) -> Iterator[Finding]:
    """All about the database at this address; empty: none is configured, and none is open."""
    if not url:
        yield fine("database", "private PostgreSQL, started with the engine")
        return
    configured = loaded.urls.get(sink)
    shown = masked_url(configured) if configured else f"private, {url}"
    try:
        with session(url, DOCTOR) as connection:
            facts = read_facts(connection, loaded.config.all_databases[sink].keep)
        owner = loaded.owner_urls.get(sink)
        owner_url = owner.reveal() if owner else url
        is_seen = facts.rights is None or not facts.rights.missing or owner_url != url
        waiting = migrations.pending(owner_url) if is_seen else []
    except NewerSchemaError as error:
        text, _, advice = str(error).partition("; ")
        yield SCHEMA_NEWER.problem("database", f"{shown}: {text}", advice)
        return
    except MigrationError as error:
        yield SCHEMA_FOREIGN.problem(
            "database", f"{shown}: {error}", "set it back to its backup, or choose another database"
        )
        return
    except (psycopg.Error, EngineError, OSError) as error:
        yield _no_database(shown, unavailable(error, url))
        return
    name = f"{shown}: PostgreSQL {facts.version}, {facts.encoding}, schema {facts.schema}"
    if not is_seen:
        yield fine("database", f"{name} answers", facts=facts)
    elif waiting:
        yield SCHEMA_OLD.note(
            "database", f"{name}, {len(waiting)} migrations pending",
            "`fts up` applies them at start, or run `fts migrate`", facts=facts,
        )  # fmt: skip
    else:
        yield fine("database", f"{name} is up to date", facts=facts)
    yield from _rights(facts, has_owner=sink in loaded.owner_urls)
    yield from about(facts)


def _rights(facts: DatabaseFacts, *, has_owner: bool) -> Iterator[Finding]:
    """What the writer's user lacks, each with the statement that gives it."""
    if (rights := facts.rights) is None:
        return
    for each in rights.missing:
        yield RIGHTS_MISSING.problem(
            "rights", f"{rights.user} may not {each.what}", f"{each.grant};"
        )
    if rights.missing:
        return
    if rights.is_owner:
        yield fine("rights", f"{rights.user} owns the tables")
    elif has_owner:
        yield fine("rights", f"{rights.user} may store rows, {rights.owner} does the rest")
    else:
        yield OWNER_UNKNOWN.note(
            "rights", f"{rights.user} may store rows, but not change the schema",
            f"name an address of {rights.owner} in database.owner.url_file or"
            " FTS_DATABASE_OWNER_URL",
        )  # fmt: skip


def _no_database(shown: str, error: DatabaseUnavailableError) -> Finding:
    complaint = DATABASE_POOL if SHARED_POOL in str(error) else DATABASE_UNREACHABLE
    text, _, advice = str(error).rpartition("; ")
    if not (error.was_answered and text):
        text = str(error)
        advice = "ask its operator" if error.was_answered else "check address, network and password"
    return complaint.problem("database", f"{shown}: {text}", advice)


def about(facts: DatabaseFacts) -> Iterator[Finding]:
    """What an operator wants to know of a database, beside that it is there."""
    if not facts.holds_any_name:
        yield DATABASE_ENCODING.note(
            "encoding", f"{facts.encoding} lacks letters that venues use: they are escaped",
            "make the database in UTF8 (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)",
        )  # fmt: skip
    yield from _settings_of(facts)
    yield _layout_of(facts)
    if facts.layout == "hypertables":
        yield from hypertables_of(facts)
    size = f"{(facts.size_bytes or 0) / 2**20:,.0f} MB, {facts.days_kept} days kept"
    if facts.rows_a_day is not None and facts.bytes_a_day is not None:
        size += (
            f"; about {facts.rows_a_day:,.0f} rows and {facts.bytes_a_day / 2**20:,.0f} MB a day"
        )
    yield fine("size", size)
    for said in storage.tables_of(facts):
        yield DATABASE_ROOM.of(said.level, said.topic, said.text, said.advice)
    yield from _retention_of(facts)
    yield _sessions_of(facts)
    if facts.synchronous_standbys:
        level: Level = "ok" if facts.standbys_in_sync != 0 else "note"
        yield STANDBY_MISSING.of(
            level, "standby",
            f"COMMIT waits for {facts.synchronous_standbys!r}"
            f" ({facts.standbys_in_sync} in step, as far as this user may see)",
            "start one of them, or change synchronous_standby_names",
        )  # fmt: skip


def _settings_of(facts: DatabaseFacts) -> Iterator[Finding]:
    """Settings of the server that its rows pay for."""
    unsafe = [name for name in ("fsync", "full_page_writes") if name in facts.switched_off]
    if unsafe:
        yield DATABASE_UNSAFE.problem(
            "settings", f"off: {', '.join(unsafe)}",
            "; ".join(f"ALTER SYSTEM SET {name} = on" for name in unsafe)
            + "; SELECT pg_reload_conf()",
        )  # fmt: skip
    if "autovacuum" in facts.switched_off:
        yield VACUUM_OFF.note(
            "settings", "off: autovacuum",
            "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()",
        )  # fmt: skip


def _retention_of(facts: DatabaseFacts) -> Iterator[Finding]:
    """Tables with rows that should have gone."""
    for table in facts.tables:
        if table.oldest_ns is None or not table.kept_for:
            continue
        late_ns = wall_ns() - table.oldest_ns - age_ns(table.kept_for)
        if late_ns > _LATE_NS:
            yield RETENTION_LATE.note(
                f"table {table.table}",
                f"kept for {table.kept_for}, and its oldest row is {late_ns // DAY_NS} days older",
                "let an engine run: it drops them, as the owner of the tables (`fts health` and the"
                " lines `upkeep` say why it cannot)",
            )  # fmt: skip


def _layout_of(facts: DatabaseFacts) -> Finding:
    if facts.layout == "hypertables":
        columns = ", ".join(facts.columnstore) or "none"
        retention = ", ".join(f"{k} {v}" for k, v in facts.retention.items()) or "none"
        return fine(
            "layout",
            f"hypertables, TimescaleDB {facts.timescaledb} ({facts.timescaledb_licence} licence);"
            f" columnstore: {columns}; retention: {retention}",
        )  # fmt: skip
    text = "daily partitions" if facts.layout == "partitions" else facts.layout
    available = facts.timescaledb or facts.timescaledb_available
    if available and facts.layout == "partitions":
        return TIMESCALEDB_UNUSED.note(
            "layout", f"{text}, although TimescaleDB {available} is there",
            "`fts migrate --to timescaledb --dry-run` says what hypertables would take",
        )  # fmt: skip
    return fine("layout", f"{text}, without TimescaleDB")


def hypertables_of(facts: DatabaseFacts) -> Iterator[Finding]:
    """What TimescaleDB's workers do, and what keeps them from it."""
    if facts.settings_too_low:
        yield TIMESCALEDB_SETTINGS.note(
            "timescaledb",
            f"too low for its workers and chunks: {', '.join(facts.settings_too_low)}",
            "in postgresql.conf, then restart the server: "
            + ", ".join(f"{name} = {least}" for name, least in facts.settings_too_low.items()),
        )  # fmt: skip
    if facts.timescaledb_lacks:
        text, _, advice = facts.timescaledb_lacks.partition("; ")
        yield TIMESCALEDB_LACKS.note("policies", text, advice)
        return
    for each in facts.policies:
        if each.last_status == "Failed":
            yield POLICY_FAILS.note(
                "policies",
                f"{each.policy} of {each.table} failed ({each.failures} times by now):"
                f" {each.last_error.partition(chr(10))[0] or 'no reason visible to this user'}",
                "SELECT * FROM timescaledb_information.job_errors tells all of them",
            )  # fmt: skip
        elif not each.is_scheduled:
            yield POLICY_OFF.note(
                "policies", f"{each.policy} of {each.table} is switched off",
                "alter_job(…, scheduled => true) switches it on",
            )  # fmt: skip
    at_work = [f"{each.policy} of {each.table}" for each in facts.policies if each.is_scheduled]
    yield fine("policies", ", ".join(at_work) or "none yet: the engine sets them when it runs")


def _sessions_of(facts: DatabaseFacts) -> Finding:
    free = facts.connections_free
    parts = [f"{free} connections free" if free is not None else "connections not visible"]
    if facts.is_pooled:
        parts.append("a session pool or proxy stands between")
    if facts.inherited:
        given = ", ".join(f"{name} = {value}" for name, value in facts.inherited.items())
        parts.append(f"role and database set {given}: what matters to the engine it sets itself")
    if free is not None and free < _SESSIONS:
        return SESSIONS_FEW.note(
            "sessions", "; ".join(parts),
            f"an engine opens up to {_SESSIONS}: raise max_connections, or close others",
        )  # fmt: skip
    return fine("sessions", "; ".join(parts))


def _quarantine(loaded: LoadedConfig, layout: Layout, sink: str) -> Finding:
    """How many rows wait in quarantine; the database knows, wherever the files are."""
    directory = layout.quarantine_of(sink)
    is_default = sink == DEFAULT_DATABASE
    topic = "quarantine" if is_default else f"{sink} quarantine"
    which = "" if is_default else f" --database {sink.partition('.')[2]}"
    if not any(directory.glob("*.jsonl")):
        return fine(topic, "empty")
    url, count = _database_url(loaded, layout, sink), None
    with suppress(psycopg.Error, EngineError, OSError):
        if url:  # an empty one would mean whatever PGHOST says
            with session(url, DOCTOR) as connection:
                found = connection.execute(_IN_QUARANTINE, (f"{layout.instance}/",)).fetchone()
                (count,) = found or (0,)
    if count is None:
        return QUARANTINE_WAITS.note(
            topic, f"{directory} holds rows that were refused",
            f"`fts quarantine list{which}` tells which of them still wait",
        )  # fmt: skip
    if not count:
        return fine(topic, "empty: all rows were stored or dropped since")
    return QUARANTINE_WAITS.note(
        topic, f"{count:,} rows wait in {directory}",
        f"`fts quarantine list{which}` says why; `retry` stores them, `drop` gives them up",
    )  # fmt: skip
