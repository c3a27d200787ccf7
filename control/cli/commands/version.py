"""`fts version`."""

import argparse
import platform
from typing import Any

from control.cli.exits import Exit
from control.cli.terminal.standard_streams import say
from engine.process.release import version


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts version`."""
    parser = commands.add_parser("version", help="print the version")
    parser.set_defaults(run=run)


def version_text() -> str:
    """What `fts version` and `fts --version` print."""
    return f"fintickstreams {version()} on Python {platform.python_version()}"


def run(_: argparse.Namespace) -> int:
    """Print it."""
    say(f"{version_text()}")
    return Exit.OK
