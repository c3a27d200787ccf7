"""`fts doctor`: what is configured, what is reachable, and what to do about the rest."""

import argparse
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control.cli.commands.doctor_database import all_databases
from control.cli.commands.doctor_kernel import kernel
from control.cli.commands.doctor_links import control_port, live_server, venues
from control.cli.commands.doctor_machine import machine
from control.cli.commands.doctor_state import releases, state
from control.cli.exits import Exit
from control.cli.findings import Complaint, Finding, Level, fine
from control.cli.options import add_config, load
from control.cli.terminal.standard_streams import say
from control.http.auth import COMMAND_VARIABLE, READ_VARIABLE
from engine.base.wrong_input import nearest
from engine.data.layout import Layout, open_layout
from engine.data.names import database_sink
from engine.process.release import version
from engine.start.addresses import Written, at_home, masked_url, owner_of, variable_of
from engine.start.config import ENVIRONMENT, LoadedConfig

_EPILOG = """\
examples:
  fts doctor                    everything about the default state directory
  fts doctor --config fts.toml --json

Exit code 0 when everything needed is there (an unreachable venue is only noted), else 1. What is
not in order has a name in brackets, and a section of that name in docs/trouble.md.
"""

CONFIG_SYMBOL: Final = Complaint("config_symbol", "its streams are left out, the others run")
CONFIG_IDLE: Final = Complaint("config_idle", "whoever wrote it believes that it does something")
ENVIRONMENT_UNKNOWN: Final = Complaint(
    "environment_unknown", "nobody reads it, and what it was to say comes from elsewhere"
)
SECRET_READABLE: Final = Complaint(
    "secret_readable", "other users of this machine can read the secret in it"
)
_VARIABLES: Final = (
    "FTS_STATE_DIR", "FTS_SHARE", *ENVIRONMENT, "FTS_PYTHON", "FTS_VENV",
    COMMAND_VARIABLE, READ_VARIABLE,
)  # fmt: skip
_OF_TESTS: Final = ("FTS_TEST_", "FTS_RENEW_")


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
    yield fine(
        "python",
        f"fintickstreams {version()}, Python {platform.python_version()} on"
        f" {platform.system()} {platform.machine()}",
    )
    yield fine("config", f"{loaded.source}; {_flat(masked_config(loaded))}")
    yield from wishes(loaded)
    yield from state(layout)
    yield from releases(loaded)
    yield control_port(loaded, layout)
    yield from machine(loaded, layout)
    yield from kernel(layout)
    yield from all_databases(loaded, layout)
    yield from live_server(loaded, layout)
    yield from venues(loaded)


def wishes(loaded: LoadedConfig, env: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What of the configuration does nothing, and which of its secrets others can read."""
    for line in loaded.no_symbols():
        yield CONFIG_SYMBOL.note("config", line, "write it as the venue does")
    for key, reason in _idle(loaded, env):
        yield CONFIG_IDLE.note("config", f"{loaded.source}: {key} does nothing: {reason}",
                               "take it out, or change what it depends on")  # fmt: skip
    known = [*_VARIABLES, *map(variable_of, _addresses(loaded))]
    for name in sorted(env):
        if name.startswith("FTS_") and name not in known and not name.startswith(_OF_TESTS):
            near = nearest(name, known)
            yield ENVIRONMENT_UNKNOWN.note(
                "environment", f"{name} is no variable of ours",
                f"did you mean {near}?" if near else "unset it",
            )  # fmt: skip
    for key, path in _secret_files(loaded):
        if _is_readable_by_others(path):
            text = f"{loaded.source}: {key}: {path} may be read by others"
            # A token in there the engine refuses; an address it takes.
            level: Level = "problem" if key.startswith("control.") else "note"
            yield SECRET_READABLE.of(level, "secrets", text, f"chmod 600 {path}")


def _addresses(loaded: LoadedConfig) -> dict[str, Written]:
    """What is written of each server's address, by its name."""
    config = loaded.config
    found: dict[str, Written] = {
        name: section
        for name in config.__struct_fields__
        if hasattr(section := getattr(config, name), "url_file")
    }
    for sink, database in config.all_databases.items():
        found |= {sink: database, owner_of(sink): database.owner}
    return found


def _idle(loaded: LoadedConfig, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Keys that are set in vain, and why."""
    config = loaded.config
    for name, written in _addresses(loaded).items():
        variable = variable_of(name)
        for key in ("url", "url_file"):
            if getattr(written, key) is not None and env.get(variable):
                yield f"{name}.{key}", f"{variable} is set, and comes first"
    limits, plain = config.limits, type(config.limits)()
    for key in limits.__struct_fields__:
        if not limits.shared and getattr(limits, key) != getattr(plain, key):
            yield f"limits, {key}", "limits.shared is not true"
    if config.database.private_settings and loaded.database_url is not None:
        yield "database.private_settings", "the database is not the private one"
    for sink, database in config.all_databases.items():
        if database.archive_to and database.archive == "none":
            yield f"{sink}.archive_to", f'{sink}.archive is "none"'


def _secret_files(loaded: LoadedConfig) -> Iterator[tuple[str, Path]]:
    """Files with a secret, by the key that names them."""
    base = Path(loaded.source).absolute().parent
    for name, written in _addresses(loaded).items():
        if written.url_file is not None:
            yield f"{name}.url_file", base / at_home(Path(written.url_file))
    for key in ("token_file", "read_token_file"):
        if (file := getattr(loaded.config.control, key)) is not None:
            yield f"control.{key}", Path(file)
    for venue, settings in loaded.config.venues.items():
        if settings.credentials_file is not None:
            yield f"venues.{venue}.credentials_file", Path(settings.credentials_file)


def _is_readable_by_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


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
    said = set()
    for finding in findings:
        name = f"  [{finding.id}]" if finding.id else ""
        yield f"{marks[finding.level]} {finding.topic:<{width}}  {finding.text}{name}"
        for text in (finding.why, finding.advice and f"-> {finding.advice}"):
            if text and text not in said:  # of many venues, say, once
                said.add(text)
                yield f"     {'':<{width}}  {text}"
