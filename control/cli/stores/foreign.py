"""Command lines of which a part belongs to another program, and becoming that program."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from control.cli.options import add_config, load
from control.cli.stores.which import add_database, chosen_sink
from engine.start.config import LoadedConfig

_OURS = ("--config", "--state-dir")


def add_foreign(
    commands: "argparse._SubParsersAction[Any]", name: str, summary: str
) -> argparse.ArgumentParser:
    """A command whose options are not ours: none of them is looked at, all are `arguments`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, prefix_chars="\0", add_help=False
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def split(
    name: str, epilog: str, arguments: Sequence[str], *, has_databases: bool = False
) -> tuple[LoadedConfig, str, list[str]]:
    """Our options, which come first, as a configuration and the sink that is meant where there may
    be several; and the rest."""
    ours = (*_OURS, "--database") if has_databases else _OURS
    usage = "%(prog)s [--state-dir DIR] [--config FILE]"
    usage += " [--database NAME]" if has_databases else ""
    parser = argparse.ArgumentParser(
        f"fts {name}", f"{usage} [{name} arguments]",
        epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--help", action="help", help="show this help; -? is the program's own")
    add_config(parser)
    if has_databases:
        add_database(parser)
    count = 0
    while count < len(arguments) and arguments[count].partition("=")[0] in (*ours, "--help"):
        count += 1 if "=" in arguments[count] else 2
    options = parser.parse_args(arguments[:count])
    sink = chosen_sink(options) if has_databases else name
    return load(options), sink, list(arguments[count:])


def become(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Turn into another program. What only we need to know it does not get to see."""
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("FTS_")}
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that is inherited
    os.execve(program, [program, *arguments], {**inherited, **environment})  # noqa: S606
