"""`fts version`."""

import argparse
import platform
from importlib import metadata
from typing import Any

from control.exits import Exit
from control.standard_streams import say


def version() -> str:
    """The installed version, or a note that this is a bare checkout."""
    try:
        return metadata.version("fintickstreams")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"


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
