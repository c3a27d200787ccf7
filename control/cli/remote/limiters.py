"""`fts limiters`: the exchanges' budgets, through the API of a running engine."""

import argparse
from typing import Any

from control.cli.exits import Exit
from control.cli.remote.client import EXIT_CODES, add_client_options, connect
from control.cli.terminal.tables import print_json, print_table

_COLUMNS = (
    "exchange", "pool", "used", "remaining", "budget", "window_s", "venue_used", "blocked_s",
    "waiting_count", "others_used", "blocked_reason",
)  # fmt: skip


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts limiters`."""
    parser = commands.add_parser(
        "limiters",
        help="budgets of the exchanges and what is left of them",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--exchange")
    add_client_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print them."""
    rows = connect(options).get("/limiters", exchange=options.exchange)
    if options.json:
        print_json(rows)
    else:
        print_table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows], "no limiters")
    return Exit.OK
