"""`fts migrate`: bring a database's schema up to date, and from partitions to hypertables."""

import argparse
import contextlib
import json
import sys
from typing import Any

from control.cli.exits import Exit
from control.cli.options import add_config, load
from control.cli.terminal.standard_streams import say
from engine.base.errors import InstanceBusyError
from engine.data.layout import open_layout
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.start import migrations, to_hypertables
from engine.start.config import LoadedConfig, masked_url

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
    """Apply what is missing to the configured database, or to the private one."""
    if options.dry_run and not options.to:
        sys.stderr.write("fts migrate: --dry-run is for --to timescaledb\n")
        return Exit.USAGE
    loaded = load(options)
    with contextlib.ExitStack() as stack:
        url = _url(loaded, stack)
        if options.dry_run:
            return _foretell(url, as_json=options.json)
        applied = migrations.migrate(url, _say)
        moved = to_hypertables.move(url, _say) if options.to else []
    if options.json:
        say(json.dumps({"applied": applied, **({"moved": moved} if options.to else {})}))
        return Exit.OK
    if applied:
        say(f"applied {', '.join(applied)} to {masked_url(loaded.database_url)}")
    else:
        say("the schema is up to date")
    if options.to:
        say(f"hypertables now: {', '.join(moved)}" if moved else "there are no partitions to move")
    return Exit.OK


def _url(loaded: LoadedConfig, stack: contextlib.ExitStack) -> str:
    """The owner's address, the configured one, that of the engine that runs, or the private one's,
    which is started for us.
    """
    if (configured := loaded.owner_url or loaded.database_url) is not None:
        return configured.reveal()
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


def _foretell(url: str, *, as_json: bool) -> int:
    plan = to_hypertables.plan(url)
    lines = [str(move) for move in plan.moves]
    if plan.moves and plan.makes_extension:
        lines.insert(0, "the extension timescaledb is made")
    if as_json:
        say(json.dumps({"would": lines, "problems": plan.problems}))
    else:
        in_the_way = [f"in the way: {text}" for text in plan.problems]
        say("\n".join([*(lines or ["there are no partitions to move"]), *in_the_way]))
    return Exit.FAILED if plan.problems else Exit.OK


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
