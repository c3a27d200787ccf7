"""Command lines of which a part belongs to another program, and becoming that program."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from control.cli.options import add_config, load
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


def split(name: str, epilog: str, arguments: Sequence[str]) -> tuple[LoadedConfig, list[str]]:
    """Our options, which come first, as a configuration; and the rest."""
    parser = argparse.ArgumentParser(
        f"fts {name}", f"%(prog)s [--state-dir DIR] [--config FILE] [{name} arguments]",
        epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--help", action="help", help="show this help; -? is the program's own")
    add_config(parser)
    count = 0
    while count < len(arguments) and arguments[count].partition("=")[0] in (*_OURS, "--help"):
        count += 1 if "=" in arguments[count] else 2
    return load(parser.parse_args(arguments[:count])), list(arguments[count:])


def become(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Turn into another program. What only we need to know it does not get to see."""
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("FTS_")}
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that is inherited
    os.execve(program, [program, *arguments], {**inherited, **environment})  # noqa: S606
