"""`fts upgrade`: the processes of a running engine replaced, through its API."""

import argparse
import sys
from time import sleep as pause
from typing import Any, Final

from control.cli.exits import Exit
from control.cli.remote.client import Client, UnreachableError, add_client_options, connect
from control.cli.terminal.tables import print_json
from engine.base.clock import monotonic_s
from engine.process.release import release

_LOOK_S: Final = 0.5
_AWAY_S: Final = 60.0
"""So long the process that answers may take to be replaced itself."""

_EPILOG: Final = """\
Install the new version where the old one is (`pip install --upgrade`, or `git pull` in a checkout),
change the configuration, then:

  fts upgrade                   replace shards, writer, upkeep and control, and wait for it
  fts upgrade --no-wait         begin, and return
  fts upgrade --json            end with the engine's answer as JSON
  fts upgrade --match           fail unless the engine runs the very code of this command at the end

What is on disk is tried first: its code is imported, the configuration read, the databases' schemas
compared. If anything is in the way the engine is left as it is. Then streams pass one after the
other to new processes, with both subscribed: no gap, no duplicate. At last the supervisor executes
the new program; its process id stays.

exit codes: 0 done, 1 refused or failed (the engine goes on as before), 2 cannot be asked like this,
3 no engine answers
"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts upgrade`."""
    parser = commands.add_parser(
        "upgrade",
        help="take on the code and configuration on disk while collecting goes on",
        description="Replaces the processes of a running engine without a gap in what it collects.",
        epilog=_EPILOG,
    )
    parser.add_argument("--no-wait", action="store_true", help="begin, and do not wait for the end")
    parser.add_argument(
        "--match", action="store_true",
        help="fail (1) unless the engine runs the code of this command at the end",
    )  # fmt: skip
    add_client_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Begin, show how it goes, and say how it ended."""
    client = connect(options)
    row = client.ask("POST", "/upgrade")
    if not options.no_wait:
        row = _watch(client, row)
    if options.json:
        print_json(row)
    if options.match and row["state"] == "done" and row.get("release") != release():
        sys.stderr.write(f"the engine runs {row.get('release')}, and this is {release()}\n")
        return Exit.FAILED
    return Exit.FAILED if row["state"] == "failed" else Exit.OK


def _watch(client: Client, row: dict[str, Any]) -> dict[str, Any]:
    """Tell each step on standard error, to the end."""
    shown, heard_s = "", monotonic_s()
    while True:
        if (line := _line(row)) != shown:
            shown = line
            sys.stderr.write(f"{line}\n")
        if row["state"] != "running":
            return row
        pause(_LOOK_S)
        try:
            row = client.get("/upgrade")
            heard_s = monotonic_s()
        except UnreachableError:
            if monotonic_s() - heard_s > _AWAY_S:
                raise


def _line(row: dict[str, Any]) -> str:
    if row["state"] == "failed":
        return f"upgrade failed at {row['step']}: {row['reason']}"
    passed = f"{row['passed_count']} of {row['stream_count']} streams have passed"
    if row["state"] == "done":
        return f"upgrade done: {passed} in {(row['ended_ns'] - row['started_ns']) / 1e9:.1f} s"
    return f"upgrade: {row['step']}" + (f"; {passed}" if row["stream_count"] else "")
