"""`fts doctor`: what is configured, what is reachable, and what to do about the rest."""

import argparse
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from control.cli.commands.doctor_database import all_databases
from control.cli.exits import Exit
from control.cli.findings import Finding
from control.cli.ground import bind, open_files
from control.cli.options import add_config, load
from control.cli.terminal.standard_streams import say
from control.version import version
from engine.base.errors import ConfigError, EngineError
from engine.base.masking import scrub
from engine.data.layout import Layout, open_layout
from engine.data.names import database_sink
from engine.process import instance
from engine.start import preflight
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
_FEW_SEGMENTS = 10


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
    yield from all_databases(loaded, layout)
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
