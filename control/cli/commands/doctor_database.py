"""What `fts doctor` says of databases: reachable, up to date, what their user lacks, and what they
hold.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import starmap

import msgspec
import psycopg

from control.cli.findings import DatabaseFinding, Finding, Level
from control.cli.remote import storage
from engine.base.errors import DatabaseUnavailableError, EngineError
from engine.data.layout import Layout
from engine.data.names import DEFAULT_DATABASE
from engine.database.condition.facts import DatabaseFacts, read_facts
from engine.database.session import DOCTOR, session
from engine.database.words import unavailable
from engine.process import instance
from engine.start import migrations
from engine.start.addresses import masked_url
from engine.start.config import LoadedConfig

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
    yield from starmap(Finding, storage.upkeep_of(loaded))


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
        yield Finding("database", "ok", "private PostgreSQL, started with the engine")
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
    except (psycopg.Error, EngineError, OSError) as error:
        yield _no_database(shown, unavailable(error, url))
        return
    name = f"{shown}: PostgreSQL {facts.version}, {facts.encoding}, schema {facts.schema}"
    if not is_seen:
        yield DatabaseFinding("database", "ok", f"{name} answers", "", facts)
    elif waiting:
        yield DatabaseFinding(
            "database", "note", f"{name}, {len(waiting)} migrations pending",
            "`fts up` applies them at start, or run `fts migrate`", facts,
        )  # fmt: skip
    else:
        yield DatabaseFinding("database", "ok", f"{name} is up to date", "", facts)
    yield from _rights(facts, has_owner=sink in loaded.owner_urls)
    yield from _about(facts)


def _rights(facts: DatabaseFacts, *, has_owner: bool) -> Iterator[Finding]:
    """What the writer's user lacks, each with the statement that gives it."""
    if (rights := facts.rights) is None:
        return
    for each in rights.missing:
        yield Finding("rights", "problem", f"{rights.user} may not {each.what}", f"{each.grant};")
    if rights.missing:
        return
    if rights.is_owner:
        yield Finding("rights", "ok", f"{rights.user} owns the tables")
    elif has_owner:
        yield Finding("rights", "ok", f"{rights.user} may store rows, {rights.owner} does the rest")
    else:
        yield Finding(
            "rights", "note", f"{rights.user} may store rows, but not change the schema: nothing is"
            " compressed, indexed or dropped, and a new version waits for `fts migrate`",
            f"name an address of {rights.owner} in database.owner.url_file or"
            " FTS_DATABASE_OWNER_URL",
        )  # fmt: skip


def _no_database(shown: str, error: DatabaseUnavailableError) -> Finding:
    text, _, advice = str(error).rpartition("; ")
    if not (error.was_answered and text):
        reach = "" if error.was_answered else "check address, network and password; "
        text, advice = str(error), f"{reach}a running engine keeps rows in its journal"
    return Finding("database", "problem", f"{shown}: {text}", advice)


def _about(facts: DatabaseFacts) -> Iterator[Finding]:
    """What an operator wants to know of a database, beside that it is there."""
    if not facts.holds_any_name:
        yield Finding(
            "encoding", "note", f"{facts.encoding} lacks letters that venues use: they are escaped",
            "make the database in UTF8 (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)",
        )  # fmt: skip
    yield _layout_of(facts)
    if facts.layout == "hypertables":
        yield from hypertables_of(facts)
    size = f"{(facts.size_bytes or 0) / 2**20:,.0f} MB, {facts.days_kept} days kept"
    if facts.rows_a_day is not None and facts.bytes_a_day is not None:
        size += (
            f"; about {facts.rows_a_day:,.0f} rows and {facts.bytes_a_day / 2**20:,.0f} MB a day"
        )
    yield Finding("size", "ok", size)
    yield from starmap(Finding, storage.tables_of(facts))
    yield _sessions_of(facts)
    if facts.synchronous_standbys:
        level: Level = "ok" if facts.standbys_in_sync != 0 else "note"
        yield Finding(
            "standby", level,
            f"COMMIT waits for {facts.synchronous_standbys!r}"
            f" ({facts.standbys_in_sync} in step, as far as this user may see)",
            "" if level == "ok" else "without one in step nothing is stored for good",
        )  # fmt: skip


def _layout_of(facts: DatabaseFacts) -> Finding:
    if facts.layout == "hypertables":
        columns = ", ".join(facts.columnstore) or "none"
        retention = ", ".join(f"{k} {v}" for k, v in facts.retention.items()) or "none"
        return Finding(
            "layout", "ok",
            f"hypertables, TimescaleDB {facts.timescaledb} ({facts.timescaledb_licence} licence);"
            f" columnstore: {columns}; retention: {retention}",
        )  # fmt: skip
    text = "daily partitions" if facts.layout == "partitions" else facts.layout
    available = facts.timescaledb or facts.timescaledb_available
    if available and facts.layout == "partitions":
        return Finding(
            "layout", "note", f"{text}, although TimescaleDB {available} is there",
            "`fts migrate --to timescaledb --dry-run` says what hypertables would take",
        )  # fmt: skip
    return Finding("layout", "ok", f"{text}, without TimescaleDB")


def hypertables_of(facts: DatabaseFacts) -> Iterator[Finding]:
    """What TimescaleDB's workers do, and what keeps them from it."""
    if facts.settings_too_low:
        yield Finding(
            "timescaledb", "note",
            f"too low for its workers and chunks: {', '.join(facts.settings_too_low)}",
            "in postgresql.conf, then restart the server: "
            + ", ".join(f"{name} = {least}" for name, least in facts.settings_too_low.items()),
        )  # fmt: skip
    if facts.timescaledb_lacks:
        text, _, advice = facts.timescaledb_lacks.partition("; ")
        yield Finding("policies", "note", text, advice)
        return
    for each in facts.policies:
        if each.last_status == "Failed":
            yield Finding(
                "policies", "note",
                f"{each.policy} of {each.table} failed ({each.failures} times by now):"
                f" {each.last_error.partition(chr(10))[0] or 'no reason visible to this user'}",
                "SELECT * FROM timescaledb_information.job_errors tells all of them",
            )  # fmt: skip
        elif not each.is_scheduled:
            yield Finding(
                "policies", "note", f"{each.policy} of {each.table} is switched off",
                "alter_job(…, scheduled => true) switches it on",
            )  # fmt: skip
    at_work = [f"{each.policy} of {each.table}" for each in facts.policies if each.is_scheduled]
    yield Finding(
        "policies", "ok", ", ".join(at_work) or "none yet: the engine sets them when it runs"
    )


def _sessions_of(facts: DatabaseFacts) -> Finding:
    free = facts.connections_free
    parts = [f"{free} connections free" if free is not None else "connections not visible"]
    if facts.is_pooled:
        parts.append("a session pool or proxy stands between")
    if facts.inherited:
        given = ", ".join(f"{name} = {value}" for name, value in facts.inherited.items())
        parts.append(f"role and database set {given}: what matters to the engine it sets itself")
    if free is not None and free < _SESSIONS:
        return Finding(
            "sessions", "note", "; ".join(parts),
            f"an engine opens up to {_SESSIONS}: raise max_connections, or close others",
        )  # fmt: skip
    return Finding("sessions", "ok", "; ".join(parts))


def _quarantine(loaded: LoadedConfig, layout: Layout, sink: str) -> Finding:
    """How many rows wait in quarantine; the database knows, wherever the files are."""
    directory = layout.quarantine_of(sink)
    is_default = sink == DEFAULT_DATABASE
    topic = "quarantine" if is_default else f"{sink} quarantine"
    which = "" if is_default else f" --database {sink.partition('.')[2]}"
    if not any(directory.glob("*.jsonl")):
        return Finding(topic, "ok", "empty")
    url, count = _database_url(loaded, layout, sink), None
    with suppress(psycopg.Error, EngineError, OSError):
        if url:  # an empty one would mean whatever PGHOST says
            with session(url, DOCTOR) as connection:
                found = connection.execute(_IN_QUARANTINE, (f"{layout.instance}/",)).fetchone()
                (count,) = found or (0,)
    if count is None:
        return Finding(
            topic, "note", f"{directory} holds rows that were refused",
            f"`fts quarantine list{which}` tells which of them still wait",
        )  # fmt: skip
    if not count:
        return Finding(topic, "ok", "empty: all rows were stored or dropped since")
    return Finding(
        topic, "note", f"{count:,} rows wait in {directory}",
        f"`fts quarantine list{which}` says why; `retry` stores them, `drop` gives them up",
    )  # fmt: skip
