"""`fts migrate`: bring a database's schema up to date."""

import argparse
import contextlib
import json
import sys
from typing import Any

from control.cli.exits import Exit
from control.cli.options import add_config, load
from control.cli.terminal.standard_streams import say
from engine.data.layout import open_layout
from engine.data.names import DEFAULT_DATABASE, is_database
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.start import migrations
from engine.start.config import masked_url

_EPILOG = """\
examples:
  FTS_DATABASE_URL=postgresql://me:secret@db/ticks fts migrate
  fts migrate --config fts.toml --json

`fts up` does this itself at start; run it apart when the engine's user may not create tables.
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
    parser.add_argument("--json", action="store_true", help="print the applied files as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Apply what is missing to the configured databases, or to the private one."""
    loaded = load(options)
    with contextlib.ExitStack() as stack:
        url = loaded.database_url.reveal() if loaded.database_url is not None else None
        if url is None:
            layout = open_layout(loaded.state_dir)
            stack.enter_context(instance.hold(layout))
            added = loaded.config.database.private_settings
            server = PrivatePostgres(layout.state_dir, layout.instance, added)
            url = stack.enter_context(server.running(_say))
        applied = migrations.migrate(url, _say)
    others = {
        sink: migrations.migrate(url.reveal(), _say)
        for sink, url in loaded.urls.items()
        if is_database(sink) and sink != DEFAULT_DATABASE
    }
    if options.json:
        say(json.dumps({"applied": applied} | ({"databases": others} if others else {})))
        return Exit.OK
    for sink, files in {DEFAULT_DATABASE: applied, **others}.items():
        of = "" if sink == DEFAULT_DATABASE else f"{sink}: "
        if files:
            say(f"{of}applied {', '.join(files)} to {masked_url(loaded.urls.get(sink))}")
        else:
            say(f"{of}the schema is up to date")
    return Exit.OK


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
