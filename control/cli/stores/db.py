"""`fts db`: the private database without an engine, opened, closed, and where it is."""

import argparse
import sys
from typing import Any

from control.cli.exits import Exit
from control.cli.options import add_config, load
from control.cli.remote.client import UnreachableError
from control.cli.stores.which import Stores
from engine.base.errors import ConfigError
from engine.process import instance
from engine.servers import host
from engine.start.addresses import Secret, masked_url

_EPILOG = """\
  fts db start     open the private database, and leave it open until `fts db stop`
  fts db stop      close it
  fts db url       where the database is, for other programs; without a password
  fts db status    whether it is open, and who has it

An engine has its database open by itself, and takes this one over when it starts.

exit codes: 0 done, or it is open; 1 it belongs to a running engine; 2 it is not ours to start; 3 it
is not open, or there is none
"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts db`."""
    parser = commands.add_parser(
        "db",
        help="open and close the private database without an engine",
        epilog=_EPILOG,
    )
    parser.add_argument("action", choices=tuple(_ACTIONS), metavar="start|stop|url|status")
    add_config(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """One of the four."""
    return _ACTIONS[options.action](Stores.find(load(options)))


def _start(stores: Stores) -> int:
    if stores.layout is not None:
        return _say(host.enter(stores.layout, stay=True))
    if stores.engine is None and stores.loaded.database_url is not None:
        raise ConfigError("database.url is configured: that server is not ours to start")
    return _say(masked_url(stores.url("database")))  # or says what is missing


def _stop(stores: Stores) -> int:
    if stores.engine is not None:
        sys.stderr.write(f"fts: the engine (pid {stores.engine.pid}) has it open; stop that\n")
        return Exit.FAILED
    closed = stores.layout is not None and host.dismiss(stores.layout)
    return _say("closed" if closed else "it was not open")


def _url(stores: Stores) -> int:
    return _say(_open_url(stores))


def _status(stores: Stores) -> int:
    url = _open_url(stores)
    if stores.engine is not None:
        return _say(f"open, of the engine (pid {stores.engine.pid}): {url}")
    if stores.layout is None:
        return _say(f"configured: {url}")
    note = instance.read_host_note(stores.layout)
    return _say(f"open, without an engine (pid {note.pid if note else 'gone'}): {url}")


def _open_url(stores: Stores) -> str:
    if stores.layout is None:
        return masked_url(stores.url("database"))
    note = instance.read_host_note(stores.layout)
    if note is None or not note.url:
        where = stores.layout.state_dir
        raise UnreachableError(f"the private database of {where} is not open; `fts db start`")
    return masked_url(Secret(note.url))


def _say(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    return Exit.OK


_ACTIONS = {"start": _start, "stop": _stop, "url": _url, "status": _status}
