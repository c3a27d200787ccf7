"""`fts quarantine`: rows that were received and refused; store them after all, or give them up."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from control.cli.exits import Exit
from control.cli.options import add_config, add_verbs, load
from control.cli.stores.which import Stores, add_database, chosen_sink
from control.cli.terminal.tables import print_json, print_table, show
from engine.base.errors import EngineError, MigrationError
from engine.data.kinds import COVERAGE, KINDS
from engine.data.layout import Layout, open_layout
from engine.data.names import DEFAULT_DATABASE
from engine.process import instance
from engine.servers import host
from engine.servers.postgres import has_database
from engine.start import migrations
from engine.start.config import LoadedConfig
from engine.writer.rows.quarantine import QuarantinedRow
from engine.writer.sinks.postgres.quarantine_desk import Kept, QuarantineDesk

_EPILOG = """\
A row goes into quarantine when the database cannot hold it (a price that is no number, a time
before 2009 or more than a day ahead) or refuses it beside others that it takes (a constraint of
yours). It is then in `gaps`, reason quarantined, state open, and its content is in
STATE_DIR/quarantine.

  fts quarantine list                      what is there, grouped by stream and error
  fts quarantine show --table trade        the rows themselves
  fts quarantine retry --all               store what can be stored now; its gaps are repaired
  fts quarantine retry ROW                 one row, named as `show` names it
  fts quarantine drop --stream VENUE/SYMBOL   give rows up; their gaps stay, unrecoverable

It works while an engine runs and while none does: a private database is started for it then. Each
row is stored once, however often and by whomever it is tried.

exit codes: 0 done, 1 rows are still refused, 2 cannot be asked like this, 3 there is no database
"""
_TABLES = [kind for kind in KINDS if kind != COVERAGE.name]
_STATES = {"open": "waits", "repaired": "stored", "unrecoverable": "dropped"}


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts quarantine` and its verbs."""
    parser = commands.add_parser(
        "quarantine",
        help="rows that were refused: list them, store them after all, or give them up",
        epilog=_EPILOG,
    )
    verbs = {
        "list": ("what is in quarantine, by stream and error", run),
        "show": ("the rows themselves", run),
        "retry": ("store what can be stored now", run),
        "drop": ("give rows up: their gaps stay", run),
    }
    for name, verb in add_verbs(parser, verbs, required=True):
        _add_choice(verb, name)
        add_config(verb)
        add_database(verb)
        verb.add_argument("--json", action="store_true", help="print JSON")


def _add_choice(verb: argparse.ArgumentParser, name: str) -> None:
    if name != "list":
        verb.add_argument("ids", metavar="ROW", nargs="*", help="a row, as `show` names it")
    verb.add_argument("--table", choices=_TABLES)
    verb.add_argument("--stream", metavar="VENUE/SYMBOL[/KIND[/TRANSPORT]]")
    if name in ("list", "show"):
        verb.add_argument(
            "--all", action="store_true", help="also what was stored or dropped since"
        )
    else:
        verb.add_argument("--all", action="store_true", help="every row that waits")
    if name == "show":
        verb.add_argument("--limit", type=int, default=20, help="rows at most (20)")


def run(options: argparse.Namespace) -> int:
    """Open the database, and do what was asked."""
    if options.verb in ("retry", "drop") and not (
        options.ids or options.table or options.stream or options.all
    ):
        sys.stderr.write(f"fts quarantine {options.verb}: name rows, --table, --stream or --all\n")
        return Exit.USAGE
    loaded = load(options)
    layout = _place(loaded)
    sink = chosen_sink(options)
    url = _database_url(loaded, layout, sink)
    if migrations.pending(url):
        raise MigrationError("the database is of an older version: run `fts migrate`")
    return asyncio.run(_work(options, layout, url, sink))


def _place(loaded: LoadedConfig) -> Layout:
    """The state directory, or the demo below it where only that has a quarantine."""
    demo = loaded.state_dir / "demo"
    has_one, demo_has_one = ((place / "quarantine").exists() for place in (loaded.state_dir, demo))
    return open_layout(demo if demo_has_one and not has_one else loaded.state_dir)


def _database_url(loaded: LoadedConfig, layout: Layout, sink: str) -> str:
    """The database of the engine that runs there, the configured one, or the private one, which is
    opened for us. The demo's is always private."""
    note = instance.read_note(layout)
    is_private = loaded.database_url is None or layout.state_dir != loaded.state_dir.absolute()
    if sink != DEFAULT_DATABASE:
        return Stores(loaded, note, None).url(sink).reveal()
    if note is None and is_private and has_database(layout.state_dir):
        return host.enter(layout)
    return Stores(loaded, note, None).url(sink).reveal()


async def _work(options: argparse.Namespace, layout: Layout, url: str, sink: str) -> int:
    desk = await QuarantineDesk.open(layout, url, sink)
    try:
        return await _WORK[options.verb](options, desk, _chosen(options, await desk.rows()))
    finally:
        await desk.close()


def _chosen(options: argparse.Namespace, rows: Sequence[Kept]) -> list[Kept]:
    """The rows that the options name. Raises EngineError for a name that is none."""
    ids = set(getattr(options, "ids", ()))
    with_past = options.verb in ("list", "show") and options.all
    found = [
        kept
        for kept in rows
        if (not ids or _id(kept.row) in ids)
        and (options.table is None or kept.row.table == options.table)
        and (options.stream is None or f"{kept.row.stream}/".startswith(f"{options.stream}/"))
        and (with_past or _state(kept) == "waits")
    ]
    if unknown := ids - {_id(kept.row) for kept in rows}:
        raise EngineError(f"no such row: {', '.join(sorted(unknown))}; see `fts quarantine show`")
    return found


async def _list(options: argparse.Namespace, desk: QuarantineDesk, rows: Sequence[Kept]) -> int:
    del desk
    groups: dict[tuple[str, str, str, str], int] = {}
    for kept in rows:
        error = kept.row.error.splitlines()[0]
        group = (kept.row.table, kept.row.stream, error, _state(kept))
        groups[group] = groups.get(group, 0) + 1
    columns = ("table", "stream", "error", "state", "rows")
    table = [[*group, count] for group, count in groups.items()]
    named = [dict(zip(columns, row, strict=True)) for row in table]
    show(named, columns, "nothing is in quarantine", as_json=options.json)
    return Exit.OK


async def _show(options: argparse.Namespace, desk: QuarantineDesk, rows: Sequence[Kept]) -> int:
    del desk
    shown = [
        {"id": _id(kept.row), "state": _state(kept), **msgspec.to_builtins(kept.row)}
        for kept in rows[: options.limit]
    ]
    if options.json:
        print_json(shown)
        return Exit.OK
    columns = ("id", "stream", "state", "error", "row")
    cells = [
        [row["id"], row["stream"], row["state"], row["error"].splitlines()[0], _fields(row["row"])]
        for row in shown
    ]
    print_table(columns, cells, "nothing is in quarantine")
    if len(rows) > len(shown):
        sys.stdout.write(f"{len(shown)} of {len(rows)} rows; --limit shows more\n")
    return Exit.OK


async def _retry(options: argparse.Namespace, desk: QuarantineDesk, rows: Sequence[Kept]) -> int:
    done = await desk.retry([kept.row for kept in rows])
    refused = [{"id": _id(row), "error": error} for row, error in done.refused]
    if options.json:
        print_json({"stored": len(done.stored), "refused": refused})
    else:
        sys.stdout.write(f"{len(done.stored):,} rows stored, {len(refused):,} still refused\n")
        cells = [[each["id"], each["error"].splitlines()[0]] for each in refused[:20]]
        if cells:
            print_table(("id", "error"), cells, "")
    return Exit.FAILED if refused else Exit.OK


async def _drop(options: argparse.Namespace, desk: QuarantineDesk, rows: Sequence[Kept]) -> int:
    count = await desk.drop([kept.row for kept in rows])
    if options.json:
        print_json({"dropped": count})
    else:
        sys.stdout.write(f"{count:,} rows dropped; their gaps stay, unrecoverable\n")
    return Exit.OK


_WORK: Mapping[str, Callable[..., Awaitable[int]]] = {
    "list": _list, "show": _show, "retry": _retry, "drop": _drop,
}  # fmt: skip


def _id(row: QuarantinedRow) -> str:
    ring = row.ring.partition("/")[2] or row.ring
    return f"{ring}/{row.epoch}/{row.seq}/{row.table}"


def _state(kept: Kept) -> str:
    return _STATES[kept.state.name.lower()]


def _fields(row: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in row.items())
