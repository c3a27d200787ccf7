"""`fts migrate`: bring a database's schema up to date, and from partitions to hypertables."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from control.cli.exits import Exit
from control.cli.options import add_config, load
from control.cli.terminal.standard_streams import say
from engine.base.errors import InstanceBusyError
from engine.data.layout import open_layout
from engine.data.names import DEFAULT_DATABASE
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.start import migrations, to_hypertables
from engine.start.addresses import masked_url
from engine.start.config import LoadedConfig

_EPILOG = """\
examples:
  FTS_DATABASE_URL=postgresql://me:secret@db/ticks fts migrate
  fts migrate --config fts.toml --json
  fts migrate --to timescaledb --dry-run    what would become of the daily partitions, and what is
                                            in the way
  fts migrate --to timescaledb              make them hypertables in place; no row is copied

`fts up` does this itself at start, but for --to; run it apart when the engine's user may not create
tables (FTS_DATABASE_OWNER_URL, database.owner.url_file). An engine may run meanwhile: its rows wait
in its journal while a table is moved.

exit codes: 0 done, or nothing to do; 1 something is in the way, and what is said to be done is done
"""

_NOTHING_TO_MOVE = "there are no partitions to move"


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts migrate`."""
    parser = commands.add_parser(
        "migrate",
        help="bring the database's schema up to date",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument("--to", choices=("timescaledb",), help="make partitions hypertables, too")
    parser.add_argument("--dry-run", action="store_true", help="say what --to would do; do nothing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Apply what is missing to the configured databases, or to the private one."""
    if options.dry_run and not options.to:
        sys.stderr.write("fts migrate: --dry-run is for --to timescaledb\n")
        return Exit.USAGE
    loaded = load(options)
    with contextlib.ExitStack() as stack:
        urls = dict(_addresses(loaded, stack))
        if options.dry_run:
            return _foretell(urls, as_json=options.json)
        applied = {sink: migrations.migrate(url, _say) for sink, url in urls.items()}
        moved = {s: to_hypertables.move(url, _say) for s, url in urls.items() if options.to}
    if options.json:
        say(json.dumps(_as_json(applied, moved)))
        return Exit.OK
    for sink, files in applied.items():
        of = _of(sink)
        if files:
            say(f"{of}applied {', '.join(files)} to {masked_url(loaded.urls.get(sink))}")
        else:
            say(f"{of}the schema is up to date")
        if options.to:
            tables = ", ".join(moved[sink])
            say(f"{of}hypertables now: {tables}" if tables else f"{of}{_NOTHING_TO_MOVE}")
    return Exit.OK


def _as_json(applied: dict[str, list[str]], moved: dict[str, list[str]]) -> dict[str, Any]:
    """The default database's at the top, the others' by name; what was moved, if that was asked."""
    own: dict[str, Any] = {"applied": applied.pop(DEFAULT_DATABASE)}
    if moved:
        own["moved"] = moved.pop(DEFAULT_DATABASE)
        others: dict[str, Any] = {s: {"applied": a, "moved": moved[s]} for s, a in applied.items()}
    else:
        others = dict(applied)
    return own | ({"databases": others} if others else {})


def _addresses(loaded: LoadedConfig, stack: contextlib.ExitStack) -> Iterator[tuple[str, str]]:
    """Of each database, its owner's where that is another: the configured one, that of the engine
    that runs, or the private one's, which is started for us.
    """
    for sink in loaded.config.all_databases:
        configured = loaded.owner_url(sink)
        yield sink, configured.reveal() if configured else _private(loaded, stack)


def _private(loaded: LoadedConfig, stack: contextlib.ExitStack) -> str:
    layout = open_layout(loaded.state_dir)
    try:
        stack.enter_context(instance.hold(layout))
    except InstanceBusyError:
        note = instance.read_note(layout)
        if note is None or not note.database.startswith("postgres"):
            raise
        return note.database
    server = PrivatePostgres(
        layout.state_dir, layout.instance, loaded.config.database.private_settings
    )
    return stack.enter_context(server.running(_say))


def _foretell(urls: dict[str, str], *, as_json: bool) -> int:
    """What `--to` would do, and what is in its way."""
    lines: list[str] = []
    problems: list[str] = []
    for sink, url in urls.items():
        plan = to_hypertables.plan(url)
        if plan.moves and plan.makes_extension:
            lines.append(f"{_of(sink)}the extension timescaledb is made")
        lines += [f"{_of(sink)}{move}" for move in plan.moves]
        problems += [f"{_of(sink)}{text}" for text in plan.problems]
    if as_json:
        say(json.dumps({"would": lines, "problems": problems}))
    else:
        say("\n".join([*(lines or [_NOTHING_TO_MOVE]), *(f"in the way: {p}" for p in problems)]))
    return Exit.FAILED if problems else Exit.OK


def _of(sink: str) -> str:
    return "" if sink == DEFAULT_DATABASE else f"{sink}: "


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
