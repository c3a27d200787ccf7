"""`fts config`: what is wrong with a configuration, and what it amounts to."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from control.cli.exits import Exit
from control.cli.options import add_config, add_verbs, load
from control.cli.terminal.standard_streams import say
from control.cli.terminal.tables import print_json
from control.http.auth import Guard
from engine.base.masking import mask_url
from engine.process.logs import escaped
from engine.start.addresses import Secret, masked_url, owner_of, variable_of
from engine.start.config import ENVIRONMENT, LoadedConfig, read_file
from engine.start.file.faults import all_faults
from engine.start.file.keys import key_lines, leaves

_EPILOG = """\
examples:
  fts config check fts.toml           all that is wrong with it, each with its line
  fts config show --config fts.toml   every value, and where it comes from
  FTS_LOG_LEVEL=DEBUG fts config show --json

exit codes: 0 fine, 2 an engine would not start with it
"""
_TOKENS = {
    "control.token_file": "FTS_CONTROL_TOKEN",
    "control.read_token_file": "FTS_CONTROL_READ_TOKEN",
}


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts config`."""
    parser = commands.add_parser(
        "config",
        help="check a configuration, or show each value and where it comes from",
        description="Checks a configuration and starts nothing, or shows what it amounts to.",
        epilog=_EPILOG,
    )
    verbs = {
        "check": ("name everything that is wrong with a file, with lines", _check),
        "show": ("show each value with its origin; secrets are masked", _show),
    }
    for name, verb in add_verbs(parser, verbs, required=True):
        if name == "check":
            verb.add_argument("config", type=Path, metavar="FILE", help="TOML file")
            verb.set_defaults(state_dir=None)
        else:
            add_config(verb)
        verb.add_argument("--json", action="store_true", help="one JSON object")


def _check(options: argparse.Namespace) -> int:
    def check(table: dict[str, Any], env: Mapping[str, str]) -> None:
        loaded = load(options, env, table)
        control = loaded.config.control
        Guard.load(control.token_file, control.read_token_file, env)

    path: Path = options.config
    faults = all_faults(path, os.environ, check)
    if options.json:
        print_json({"file": str(path), "faults": [asdict(fault) for fault in faults]})
    else:
        for fault in faults:
            place = f"{path}:{fault.line}" if fault.line else f"{path}"
            key = f"{fault.key}: " if fault.key and not fault.text.startswith(fault.key) else ""
            say(escaped(f"{place}: {key}{fault.text}"))
        count = f"{len(faults)} fault{'s' * (len(faults) > 1)}" if faults else "no fault"
        say(escaped(f"{path}: {count}"))
    return Exit.USAGE if faults else Exit.OK


def _show(options: argparse.Namespace) -> int:
    loaded = load(options)
    lines = key_lines(read_file(options.config).decode()) if options.config else {}
    values = _values(loaded)
    rows = [(key, values[key], _origin(options, key, lines)) for key in values]
    if options.json:
        found = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        print_json({"file": str(options.config) if options.config else None, "values": found})
        return Exit.OK
    for key, value, origin in rows:
        say(escaped(f"{key} = {_shown(value)}  # {origin}"))
    return Exit.OK


def _values(loaded: LoadedConfig) -> dict[str, Any]:
    """Every key with its value; addresses as they are in the end, masked."""
    found = leaves(loaded.config)
    found["state_dir"] = str(loaded.state_dir)
    addresses: dict[str, Secret] = {
        **loaded.urls,
        **{owner_of(name): url for name, url in loaded.owner_urls.items()},
    }
    found |= {f"{name}.url": masked_url(url) for name, url in addresses.items()}
    tokens = {key: "***" for key, variable in _TOKENS.items() if os.environ.get(variable)}
    found |= {key: masked for key, masked in tokens.items() if found[key] is None}  # files win
    return {
        key: mask_url(value) if isinstance(value, str) else value for key, value in found.items()
    }


def _origin(options: argparse.Namespace, key: str, lines: Mapping[str, int]) -> str:
    """Where the value of a key comes from; of an address that is in a file, where that is named."""
    section, _, name = key.rpartition(".")
    if key == "state_dir" and options.state_dir:
        return "command line"
    variables = {f"{part}.{each}": variable for variable, (part, each) in ENVIRONMENT.items()}
    tokens = {name: variable for name, variable in _TOKENS.items() if name not in lines}
    variables |= {**tokens, "state_dir": "FTS_STATE_DIR", "share": "FTS_SHARE"}
    if name == "url":
        variables[key] = variable_of(section)
    if os.environ.get(variable := variables.get(key, "")):
        return f"environment: {variable}"
    for candidate in (key, f"{section}.url_file" if name == "url" else key):
        if candidate in lines:
            return f"{options.config}:{lines[candidate]}"
    return "default"


def _shown(value: object) -> str:
    return "" if value is None else str(value)
