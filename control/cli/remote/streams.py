"""`fts streams`: what runs, begin, end, tune, through the API of a running engine."""

import argparse
import json
import sys
from functools import partial
from typing import Any

from control.cli.exits import Exit
from control.cli.options import EXAMPLE, add_verbs
from control.cli.remote.client import EXIT_CODES, Client, add_client_options, connect, stream_path
from control.cli.terminal.standard_streams import say
from control.cli.terminal.tables import age, moment, print_facts, print_json, show
from engine.base.wrong_input import nearest
from engine.data.instrument import InstrumentKind, InstrumentState
from engine.data.names import StreamKind, Transport
from engine.messages.streams import Knobs

_KINDS = [kind.value for kind in StreamKind]
_TRANSPORTS = [transport.value for transport in Transport]
_KNOBS = list(Knobs.__struct_fields__)
_ONE, _OTHER, *_ = EXAMPLE.examples

_EPILOG = f"""\
examples:
  fts streams list --state stale
  fts streams add {EXAMPLE.name} {_ONE} {_OTHER} --kind Trades --kind L2Book
  fts streams add {EXAMPLE.name} --all --quote USDT --kind Trades
  fts streams remove {EXAMPLE.name} {_ONE} --kind Trades
  fts streams show {EXAMPLE.name} {_ONE} Trades
  fts streams set {EXAMPLE.name} {_ONE} Trades db_writes_enabled=false flush_rows=default
  fts streams snapshot {EXAMPLE.name} {_ONE}

kinds: {" ".join(_KINDS)}
transports: {" ".join(_TRANSPORTS)} (without one: the first that the exchange offers)
knobs: {" ".join(_KNOBS)}
{EXIT_CODES}"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts streams` and its verbs."""
    summary = "list, add, remove, show and tune streams of a running engine"
    parser = commands.add_parser("streams", help=summary, epilog=_EPILOG)
    verbs = {
        "list": ("streams with their state", run_list),
        "add": ("begin streams", run_add),
        "remove": ("end streams", run_remove),
        "show": ("one stream, in full", run_show),
        "set": ("change knobs of a stream", run_set),
        "snapshot": ("have the whole book of a stream fetched and stored now", run_snapshot),
    }
    for name, verb in add_verbs(parser, verbs):
        _add_arguments(name, verb)
        add_client_options(verb)


def _spelled(names: type[StreamKind] | type[Transport], text: str) -> str:
    """As the API spells what was typed in any case."""
    try:
        return names(text).value
    except ValueError:
        near = nearest(text, names)
        hint = f"; did you mean {near}?" if near else ""
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}{hint}") from None


_kind, _transport = partial(_spelled, StreamKind), partial(_spelled, Transport)


def _add_arguments(name: str, verb: argparse.ArgumentParser) -> None:
    if name == "list":
        for option in ("--exchange", "--symbol"):
            verb.add_argument(option)
        verb.add_argument("--kind", type=_kind)
        verb.add_argument("--transport", type=_transport)
        verb.add_argument("--state", help="pending, live, stale, ...")
        return
    verb.add_argument("exchange", metavar="EXCHANGE")
    if name in ("add", "remove"):
        verb.add_argument("symbols", metavar="SYMBOL", nargs="*")
        verb.add_argument("--kind", type=_kind, action="append", required=True, dest="kinds")
        verb.add_argument("--transport", type=_transport)
        verb.add_argument("--all", action="store_true", help="all instruments that pass the filter")
        default = f" (default: {'what trades' if name == 'add' else 'any'})"
        for option, hint in (
            ("--base", ""), ("--quote", ""), ("--settle", ""), ("--match", ": symbols like BTC*"),
            ("--instrument-kind", f": {', '.join(filter(None, InstrumentKind))}"),
            ("--state", f": {', '.join(filter(None, InstrumentState))}{default}"),
            ("--status", f": the exchange's own word{default}"),
        ):  # fmt: skip
            verb.add_argument(option, help=f"filter of --all{hint}")
        verb.add_argument("--limit", type=int, help="of --all: at most so many of each kind")
        return
    verb.add_argument("symbol", metavar="SYMBOL")
    if name == "snapshot":
        verb.set_defaults(kind=StreamKind.L2_BOOK.value)
    else:
        verb.add_argument("kind", metavar="KIND", type=_kind)
    if name == "set":
        verb.add_argument("knobs", metavar="KNOB=VALUE", nargs="+", type=_knob)
    verb.add_argument("--transport", type=_transport)


def run_list(options: argparse.Namespace) -> int:
    """Print the streams."""
    rows = connect(options).get_all(
        "/streams", exchange=options.exchange, symbol=options.symbol, kind=options.kind,
        transport=options.transport, state=options.state,
    )  # fmt: skip
    if not options.json:
        for row in rows:
            row["last"] = age(row["last_recv_ns"])
            row |= {name: row[f"{name[:-1]}_count"] for name in ("rows", "gaps")}
            row["missing"] = row["missing_count"]
    columns = (
        "exchange", "symbol", "kind", "transport", "state", "rows", "gaps", "missing", "last",
        "reason",
    )  # fmt: skip
    show(rows, columns, "no streams", as_json=options.json)
    return Exit.OK


def run_add(options: argparse.Namespace) -> int:
    """Begin streams; 1 when any was refused."""
    return _bulk(options, "POST", "accepted")


def run_remove(options: argparse.Namespace) -> int:
    """End streams; 1 when any was refused."""
    return _bulk(options, "DELETE", "ended")


def run_show(options: argparse.Namespace) -> int:
    """Print one stream."""
    client = connect(options)
    body = client.get(_path(client, options))
    if options.json:
        print_json(body)
        return Exit.OK
    knobs = body.pop("knobs")
    body.pop("spec")
    shown = [(name.removesuffix("_ns"), _time(name, value)) for name, value in body.items()]
    print_facts([*shown, *((f"knobs.{name}", value) for name, value in knobs.items())])
    return Exit.OK


def run_set(options: argparse.Namespace) -> int:
    """Change knobs."""
    client = connect(options)
    path = f"{_path(client, options)}/knobs"
    client.ask("PATCH", path, dict(options.knobs))
    body = client.get(path)
    if options.json:
        print_json(body)
    else:
        print_facts(list(body["knobs"].items()))
    return Exit.OK


def run_snapshot(options: argparse.Namespace) -> int:
    """Ask for a whole book."""
    client = connect(options)
    answer = client.ask("POST", f"{_path(client, options)}/snapshot")
    if options.json:
        print_json(answer)
    else:
        say("asked for: the whole book follows in the stream")
    return Exit.OK


def _bulk(options: argparse.Namespace, method: str, done: str) -> int:
    if bool(options.symbols) == options.all:
        sys.stderr.write(f"fts streams {options.verb}: name symbols, or say --all; not both\n")
        return Exit.USAGE
    client = connect(options)
    results: list[dict[str, Any]] = []
    skipped = 0
    for body in _bodies(options):
        answer = client.ask(method, "/streams", body)
        results += answer["results"]
        skipped += answer["skipped"]
    refused = [result for result in results if not result["ok"]]
    if options.json:
        print_json({"accepted": len(results) - len(refused), "refused": len(refused),
                    "skipped": skipped, "results": results})  # fmt: skip
    else:
        for result in refused:
            name = f"{result['exchange']}/{result['symbol']}/{result['kind']}"
            sys.stderr.write(f"{name}: {result['error']}\n")
        noun = "stream" if len(results) == 1 else "streams"
        say(f"{len(results) - len(refused)} of {len(results)} {noun} {done}{_skipped(skipped)}")
    return Exit.FAILED if refused else Exit.OK


def _skipped(count: int) -> str:
    noun = "instrument" if count == 1 else "instruments"
    return f"; {count} {noun} skipped, whose kind can have no such stream" if count else ""


def _bodies(options: argparse.Namespace) -> list[Any]:
    """One request for named symbols of all kinds, or one a kind for a filter."""
    common = {"exchange": options.exchange}
    if options.transport:
        common["transport"] = options.transport
    if not options.all:
        return [
            [
                {**common, "symbol": symbol, "kind": kind}
                for symbol in options.symbols
                for kind in options.kinds
            ]
        ]
    conditions = {
        name: value
        for name, value in (
            ("base", options.base), ("quote", options.quote), ("symbol", options.match),
            ("settle", options.settle), ("kind", options.instrument_kind),
            ("state", options.state), ("status", options.status), ("limit", options.limit),
        )
        if value is not None
    }  # fmt: skip
    return [{**common, "kind": kind, "filter": conditions} for kind in options.kinds]


def _path(client: Client, options: argparse.Namespace) -> str:
    """Of one stream; without a transport, the one that runs."""
    transport = options.transport
    if transport is None:
        rows = client.get(
            "/streams", exchange=options.exchange, symbol=options.symbol, kind=options.kind
        )
        transport = rows[0]["transport"] if rows else Transport.WS.value
    return stream_path(options.exchange, options.symbol, options.kind, transport)


def _knob(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in _KNOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not KNOB=VALUE; knobs: {', '.join(_KNOBS)}")
    if value == "default":
        return name, True if name.endswith("_enabled") else None
    if name == "database":
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: a value is a number, true, false or default"
        ) from None


def _time(name: str, value: Any) -> Any:
    """A moment as people read it."""
    if not name.endswith("_ns"):
        return value
    return moment(value, "%Y-%m-%d %H:%M:%S.%f") if value else None
