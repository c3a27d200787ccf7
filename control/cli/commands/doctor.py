"""`fts doctor`: what is configured, what is reachable, and what to do about the rest."""

import argparse
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import starmap
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import psycopg
from redis import Redis
from redis.exceptions import RedisError

from control.cli.exits import Exit
from control.cli.ground import bind, open_files
from control.cli.options import add_config, load
from control.cli.remote import storage
from control.cli.terminal.standard_streams import say
from control.version import version
from engine.base.errors import ConfigError, DatabaseUnavailableError, EngineError
from engine.base.masking import scrub
from engine.data.layout import Layout, open_layout
from engine.data.names import DEFAULT_DATABASE, database_sink
from engine.database.facts import DatabaseFacts, read_facts
from engine.database.session import DOCTOR, session
from engine.database.words import unavailable
from engine.process import instance
from engine.start import migrations, preflight
from engine.start.addresses import masked_url
from engine.start.config import LoadedConfig
from shards.venues import VENUES, preferred_transport, socket_count

_EPILOG = """\
examples:
  fts doctor                    everything about the default state directory
  fts doctor --config fts.toml --json

Exit code 0 when everything needed is there (an unreachable venue is only noted), else 1.
"""
_TIMEOUT_S = 2.0
_IN_QUARANTINE = """
    SELECT count(*) FROM quarantined_row WHERE state = 1 AND starts_with(ring, %s)
"""
_SESSIONS = 6
"""Writer, listings, registry, and for moments migration, witness and doctor."""
_FEW_SEGMENTS = 10

Level = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the report."""

    topic: str
    level: Level
    text: str
    advice: str = ""


class DatabaseFinding(Finding, frozen=True):
    """The database's first line, with everything that is known of it."""

    facts: DatabaseFacts = msgspec.field(default_factory=DatabaseFacts)


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="what is configured, what is reachable, what to do about it",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look at everything; 1 when something needed is missing."""
    loaded = load(options)
    layout = open_layout(loaded.state_dir)
    findings = list(examine(loaded, layout))
    healthy = all(finding.level != "problem" for finding in findings)
    if options.json:
        body = {"healthy": healthy, "findings": findings, "config": masked_config(loaded)}
        say(msgspec.json.encode(body).decode())
    else:
        say("\n".join(_lines(findings)))
    return Exit.OK if healthy else Exit.FAILED


def examine(loaded: LoadedConfig, layout: Layout) -> Iterator[Finding]:
    """Every check, in the order a person would ask."""
    yield Finding(
        "python",
        "ok",
        f"fintickstreams {version()}, Python {platform.python_version()} on"
        f" {platform.system()} {platform.machine()}",
    )
    yield Finding("config", "ok", f"{loaded.source}; {_flat(masked_config(loaded))}")
    for line in loaded.no_symbols():
        yield Finding("config", "note", line, "write it as the venue does")
    yield from _engines(layout)
    yield _control_port(loaded, layout)
    yield from _machine(loaded, layout)
    yield _disk(loaded, layout.state_dir)
    yield _open_files(loaded)
    for sink in loaded.config.all_databases:
        yield from _database(loaded, layout, sink)
        yield _quarantine(loaded, layout, sink)
    yield from starmap(Finding, storage.upkeep_of(loaded))
    yield _redis(loaded)
    for name, venue in VENUES.items():
        override = loaded.config.venues.get(name)
        url = (override.rest_url if override else None) or venue.rest_url
        yield _venue(name, url)


def masked_config(loaded: LoadedConfig) -> dict[str, Any]:
    """The configuration with nothing secret in it."""
    body: dict[str, Any] = msgspec.to_builtins(loaded.config)
    body["state_dir"] = str(loaded.state_dir)
    for name, section in body.items():
        if isinstance(section, dict) and "url" in section:
            section["url"] = masked_url(loaded.urls.get(name))
    for name, section in body["databases"].items():
        section["url"] = masked_url(loaded.urls.get(database_sink(name)))
    return body


def _engines(layout: Layout) -> Iterator[Finding]:
    """The engine on this state directory, and a demo below it."""
    yield _engine("engine", layout.state_dir, layout)
    demo = layout.state_dir / "demo"
    if (demo / "instance").exists():
        yield _engine("demo", demo, open_layout(demo))


def _engine(topic: str, state_dir: Path, layout: Layout) -> Finding:
    if not instance.is_held(layout):
        left = len(instance.leftover_rings(layout))
        text = f"none runs on {state_dir}"
        if left:
            return Finding(
                topic, "note", f"{text}; {left} ring files are left of a crash",
                "start it again: it stores what they hold",
            )  # fmt: skip
        return Finding(topic, "ok", text)
    note = instance.read_note(layout)
    if note is None and (host := instance.read_host_note(layout)) is not None:
        text = f"none runs on {state_dir}; its database is open for readers (pid {host.pid})"
        return Finding(topic, "ok", text)
    if note is None:
        return Finding(topic, "note", f"one is starting on {state_dir}")
    parts = [f"runs on {state_dir} (pid {note.pid})", f"control {note.control_url}"]
    parts += [part for part in (note.psql, note.redis_cli) if part]
    return Finding(topic, "ok", "; ".join(parts))


def _control_port(loaded: LoadedConfig, layout: Layout) -> Finding:
    """Whether an engine could listen where it is to; the one that runs here does already."""
    host, port = loaded.config.control.host, loaded.config.control.port
    if port == 0:
        return Finding("control port", "ok", "a free one")
    note = instance.read_note(layout)
    if note is not None and urlsplit(note.control_url).port == port:
        return Finding("control port", "ok", f"{port} on {host}, the engine's that runs")
    try:
        bind(host, port).close()
    except ConfigError as error:
        text, _, advice = str(error).partition("; ")
        return Finding("control port", "problem", text.removeprefix("control port "), advice)
    return Finding("control port", "ok", f"{port} on {host} is free")


def _machine(loaded: LoadedConfig, layout: Layout) -> Iterator[Finding]:
    allowed = preflight.allowed_cpus()
    try:
        cpus = preflight.shard_cpus(loaded.config, loaded.source, allowed)
    except EngineError as error:
        yield Finding("cpu", "problem", str(error), "change [shards] cpus or the affinity")
        cpus = allowed[-1:]
    else:
        yield Finding("cpu", "ok", f"{len(allowed)} allowed of {os.cpu_count()}, shards on {cpus}")
    try:
        plan = preflight.plan_rings(
            loaded.config, loaded.source, len(cpus), *preflight.ring_room(layout)
        )
    except (EngineError, OSError) as error:
        yield Finding(
            "shared memory",
            "problem",
            str(error),
            f"make {layout.shm_dir.parent} larger or the rings smaller",
        )
        return
    text = f"{plan.bytes_free / 2**20:,.0f} MB free, rings need {plan.bytes_needed / 2**20:,.0f} MB"
    yield Finding("shared memory", "note" if plan.note else "ok", text, plan.note)


def _disk(loaded: LoadedConfig, state_dir: Path) -> Finding:
    """Whether journal, log and private servers have room to grow."""
    usage = os.statvfs(state_dir)
    free_mb, segment_mb = usage.f_bavail * usage.f_frsize / 2**20, loaded.config.journal.segment_mb
    text = f"{free_mb:,.0f} MB free for {state_dir}"
    if usage.f_files and not usage.f_favail:
        return Finding("disk", "problem", f"{text}, but no file can be added", "remove some")
    if free_mb < segment_mb:
        return Finding(
            "disk", "problem", f"{text}: not even one file of the journal, {segment_mb:,} MB",
            "make room: what the database does not take is in memory only, while that has room",
        )  # fmt: skip
    if free_mb < _FEW_SEGMENTS * segment_mb:
        return Finding(
            "disk", "note", text, "rows of a long outage of the database would not fit in there"
        )
    return Finding("disk", "ok", text)


def _open_files(loaded: LoadedConfig) -> Finding:
    """As the engine counts them before it starts anything."""
    allowed = preflight.allowed_cpus()
    shards = len(loaded.config.shards.cpus or allowed[-max(1, len(allowed) // 2) :])
    streams = loaded.stream_keys(preferred_transport)
    try:
        limit, needed = open_files(shards, socket_count(streams, loaded.config.venues))
    except ConfigError as error:
        text, _, advice = str(error).removeprefix("open files: ").partition("; ")
        return Finding("open files", "problem", text, advice)
    return Finding("open files", "ok", f"a process may have {limit:,} and needs {needed:,}")


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


def _redis(loaded: LoadedConfig) -> Finding:
    if (secret := loaded.urls.get("redis")) is None:
        return Finding("redis", "ok", "private Valkey, started with the engine")
    url, shown = secret.reveal(), masked_url(secret)
    waits = {"socket_connect_timeout": _TIMEOUT_S, "socket_timeout": _TIMEOUT_S}
    try:
        with closing(Redis.from_url(url, **waits)) as client:
            client.ping()
    except (RedisError, OSError, ValueError) as error:
        text = scrub(str(error), url)
        return Finding(
            "redis", "problem", f"{shown}: {text}",
            "check the address, or run with --no-redis; the database does not depend on it",
        )  # fmt: skip
    return Finding("redis", "ok", f"{shown} answers")


def _venue(
    name: str, url: str, connect: Callable[..., socket.socket] = socket.create_connection
) -> Finding:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        connect((parts.hostname, port), timeout=_TIMEOUT_S).close()
    except OSError:
        return Finding(
            f"venue {name}", "note", f"{parts.hostname}:{port} cannot be reached from here",
            "`fts demo` needs no network; `fts up` keeps trying",
        )  # fmt: skip
    return Finding(f"venue {name}", "ok", f"{parts.hostname}:{port} answers")


def _flat(config: dict[str, Any]) -> str:
    parts = []
    for section, value in config.items():
        if isinstance(value, dict):
            inner = " ".join(f"{key}={each}" for key, each in value.items())
            parts.append(f"[{section}] {inner}")
        elif section == "streams":
            parts.append(f"{len(value)} stream groups")
        else:
            parts.append(f"{section}={value}")
    return "; ".join(parts)


def _lines(findings: list[Finding]) -> Iterator[str]:
    width = max(len(finding.topic) for finding in findings)
    marks = {"ok": "ok  ", "note": "note", "problem": "BAD "}
    for finding in findings:
        yield f"{marks[finding.level]} {finding.topic:<{width}}  {finding.text}"
        if finding.advice:
            yield f"     {'':<{width}}  -> {finding.advice}"
