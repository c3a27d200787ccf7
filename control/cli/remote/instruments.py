"""`fts instruments`: what the exchanges list, through the API of a running engine."""

import argparse
from datetime import UTC, datetime
from typing import Any

from control.cli.exits import Exit
from control.cli.remote.client import EXIT_CODES, add_client_options, connect
from control.cli.terminal.tables import print_json, print_table

_EPILOG = f"""\
examples:
  fts instruments list --exchange binance_linear --quote USDT
  fts instruments list PEPE
  fts instruments refresh
  fts instruments events
{EXIT_CODES}"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts instruments` and its verbs."""
    parser = commands.add_parser(
        "instruments",
        help="search and refresh what the exchanges list",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=None)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, text, run in (
        ("list", "instruments by filter", run_list),
        ("refresh", "fetch the listings now", run_refresh),
        ("events", "listings, delistings and changes, newest first", run_events),
    ):
        verb = verbs.add_parser(
            name, help=text, description=f"fts instruments {name}: {text}.", epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        verb.add_argument("--exchange")
        if name == "list":
            verb.add_argument("q", metavar="TEXT", nargs="?", help="part of a symbol, in any case")
            for option in ("--base", "--quote", "--status"):
                verb.add_argument(option)
        if name != "refresh":
            verb.add_argument("--limit", type=int)
        add_client_options(verb)
        verb.set_defaults(run=run)


def run_list(options: argparse.Namespace) -> int:
    """Print instruments."""
    rows = connect(options).get(
        "/instruments", exchange=options.exchange, q=options.q, base=options.base,
        quote=options.quote, status=options.status, limit=options.limit,
    )  # fmt: skip
    columns = ("exchange", "symbol", "base", "quote", "status", "tick_size", "lot_size")
    return _show(options, rows, columns, "no instruments")


def run_refresh(options: argparse.Namespace) -> int:
    """Fetch now; 1 when an exchange did not answer."""
    rows = connect(options).ask("POST", "/instruments/refresh", exchange=options.exchange)
    columns = ("exchange", "instrument_count", "unreadable_count", "event_count", "error")
    _show(
        options,
        [{"error": "", "unreadable_count": 0} | row for row in rows],
        columns,
        "nothing to refresh",
    )
    return Exit.FAILED if any(row.get("error") for row in rows) else Exit.OK


def run_events(options: argparse.Namespace) -> int:
    """Print events."""
    rows = connect(options).get(
        "/instruments/events", exchange=options.exchange, limit=options.limit
    )
    if not options.json:
        for row in rows:
            at = datetime.fromtimestamp(row["at_ns"] / 1e9, UTC)
            row["at"] = f"{at:%Y-%m-%d %H:%M:%S}Z"
    return _show(options, rows, ("at", "exchange", "symbol", "event", "detail"), "no events")


def _show(
    options: argparse.Namespace, rows: list[Any], columns: tuple[str, ...], empty: str
) -> int:
    if options.json:
        print_json(rows)
    else:
        print_table(columns, [[row[name] for name in columns] for row in rows], empty)
    return Exit.OK
