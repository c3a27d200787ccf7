"""`fts instruments`: what the exchanges list, through the API of a running engine."""

import argparse
from typing import Any

from control.cli.exits import Exit
from control.cli.options import EXAMPLE, add_verbs
from control.cli.remote.client import EXIT_CODES, add_client_options, connect
from control.cli.terminal.tables import moment, show
from engine.data.instrument import InstrumentKind, InstrumentState

_EPILOG = f"""\
examples:
  fts instruments list --exchange {EXAMPLE.name} --quote USDT
  fts instruments list PEPE
  fts instruments list --kind perpetual --state trading --settle USDT
  fts instruments refresh
  fts instruments events
{EXIT_CODES}"""

_CONDITIONS = {
    "base": None,
    "quote": None,
    "settle": "currency that gains and losses are paid in",
    "kind": ", ".join(filter(None, InstrumentKind)),
    "state": ", ".join(filter(None, InstrumentState)),
    "venue_kind": "the exchange's own word for the kind",
    "status": "the exchange's own word for the state",
}
"""As the API calls them, each with its help."""
_OTHERWISE = {
    "list": "default: those that are collected from or were asked about",
    "refresh": "default: all",
    "events": "default: all",
}


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
        verb.add_argument("--exchange", help=_OTHERWISE[name])
        if name == "list":
            verb.add_argument("q", metavar="TEXT", nargs="?", help="part of a symbol, in any case")
            for option, hint in _CONDITIONS.items():
                verb.add_argument(f"--{option.replace('_', '-')}", help=hint)
        if name != "refresh":
            verb.add_argument("--limit", type=int)
        add_client_options(verb)


def run_list(options: argparse.Namespace) -> int:
    """Print instruments."""
    conditions = {name: getattr(options, name) for name in _CONDITIONS}
    rows = connect(options).get(
        "/instruments", exchange=options.exchange, q=options.q, limit=options.limit, **conditions
    )
    columns = (
        "exchange", "symbol", "kind", "state", "status", "base", "quote", "settle", "tick_size",
        "lot_size", "contract_size", "contract_unit",
    )  # fmt: skip
    others = "" if options.exchange else "; --exchange NAME asks one that is not collected from"
    show(rows, columns, f"no instruments{others}", as_json=options.json)
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
