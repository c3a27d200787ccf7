"""`fts health`: the verdict on a running engine, and its lights."""

import argparse
import datetime as dt
from typing import Any

from control.cli.exits import Exit
from control.cli.remote import storage
from control.cli.remote.client import EXIT_CODES, add_client_options, connect
from control.cli.terminal.tables import print_json, print_table
from engine.messages.settings import LIGHTS
from engine.messages.writer import LIVE_TITLES


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts health`."""
    parser = commands.add_parser(
        "health",
        help=f"how a running engine is: as a whole, its processes, database, {LIVE_TITLES}",
        description="Prints the verdict and the lights; exit code 1 unless all are green.",
        epilog=EXIT_CODES,
    )
    add_client_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the verdict and the lights; 1 unless all are green."""
    client = connect(options)
    lights = {name: client.light(name) for name in LIGHTS}
    engine = lights["runtime"]["engine"]
    if options.json:
        print_json(lights)
    else:
        shown = {"engine": engine} | lights
        rows = [(name, light["status"], light["reason"]) for name, light in shown.items()]
        print_table(("part", "status", "reason"), rows, "")
        databases = lights["runtime"]["upkeep"]
        if tasks := _tasks(databases):
            print_table(("database", "task of the upkeep", "last ran", "outcome"), tasks, "")
        if tables := storage.lines(databases):
            print_table(storage.COLUMNS, tables, "")
        admission = lights["runtime"]["admission"]
        if not admission["accepts"]:
            print_table(("new streams are refused",), [(admission["reason"],)], "")
    return Exit.OK if engine["status"] == "green" else Exit.FAILED


def _tasks(databases: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line a task, or what keeps all of them from being done."""
    lines: list[tuple[str, ...]] = []
    for each in databases:
        name, error = each["database"], each["error"]
        lines += [(name, "all", "-", error)] if error else []
        for task in each["tasks"]:
            ran = dt.datetime.fromtimestamp(task["last_ns"] // 10**9, dt.UTC)
            idle = "nothing to do" if task["last_ns"] else "not yet"
            outcome = task["error"] or task["did"] or idle
            when = f"{ran:%Y-%m-%d %H:%M:%S}" if task["last_ns"] else "-"
            lines.append((name, task["task"], when, outcome))
    return lines
