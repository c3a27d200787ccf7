"""`fts instruments`: what the exchanges list, through the API of a running engine."""

import argparse
from typing import Any

from control.cli.exits import Exit
from control.cli.options import EXAMPLE, add_verbs
from control.cli.remote.client import EXIT_CODES, add_client_options, connect
from control.cli.terminal.tables import moment, show

_EPILOG = f"""\
examples:
  fts instruments list --exchange {EXAMPLE.name} --quote USDT
  fts instruments list PEPE
  fts instruments refresh
  fts instruments events
{EXIT_CODES}"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts instruments` and its verbs."""
    parser = commands.add_parser(
        "instruments", help="search and refresh what the exchanges list", epilog=_EPILOG
    )
    verbs = {
        "list": ("instruments by filter", run_list),
        "refresh": ("fetch the listings now", run_refresh),
        "events": ("listings, delistings and changes, newest first", run_events),
    }
    for name, verb in add_verbs(parser, verbs):
        verb.add_argument("--exchange")
        if name == "list":
            verb.add_argument("q", metavar="TEXT", nargs="?", help="part of a symbol, in any case")
            for option in ("--base", "--quote", "--status"):
                verb.add_argument(option)
        if name != "refresh":
            verb.add_argument("--limit", type=int)
        add_client_options(verb)


def run_list(options: argparse.Namespace) -> int:
    """Print instruments."""
    rows = connect(options).get(
        "/instruments", exchange=options.exchange, q=options.q, base=options.base,
        quote=options.quote, status=options.status, limit=options.limit,
    )  # fmt: skip
    columns = ("exchange", "symbol", "base", "quote", "status", "tick_size", "lot_size")
    show(rows, columns, "no instruments", as_json=options.json)
    return Exit.OK


def run_refresh(options: argparse.Namespace) -> int:
    """Fetch now; 1 when an exchange did not answer."""
    rows = connect(options).ask("POST", "/instruments/refresh", exchange=options.exchange)
    rows = [{"error": "", "unreadable_count": 0} | row for row in rows]
    columns = ("exchange", "instrument_count", "unreadable_count", "event_count", "error")
    show(rows, columns, "nothing to refresh", as_json=options.json)
    return Exit.FAILED if any(row["error"] for row in rows) else Exit.OK


def run_events(options: argparse.Namespace) -> int:
    """Print events."""
    rows = connect(options).get(
        "/instruments/events", exchange=options.exchange, limit=options.limit
    )
    if not options.json:
        rows = [row | {"at": moment(row["at_ns"])} for row in rows]
    columns = ("at", "exchange", "symbol", "event", "detail")
    show(rows, columns, "no events", as_json=options.json)
    return Exit.OK
