"""`fts limiters`: the exchanges' budgets, through the API of a running engine."""

import argparse
from typing import Any

from control.cli.exits import Exit
from control.cli.remote.client import EXIT_CODES, add_client_options, connect
from control.cli.terminal.tables import show

_COLUMNS = (
    "exchange", "pool", "used", "remaining", "budget", "window_s", "venue_used", "blocked_s",
    "waiting_count", "others_used", "blocked_reason",
)  # fmt: skip


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts limiters`."""
    summary = "budgets of the exchanges and what is left of them"
    parser = commands.add_parser("limiters", help=summary, epilog=EXIT_CODES)
    parser.add_argument("--exchange")
    add_client_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print them."""
    rows = connect(options).get("/limiters", exchange=options.exchange)
    show(rows, _COLUMNS, "no limiters", as_json=options.json)
    return Exit.OK
