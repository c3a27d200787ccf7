"""`fts health`: the verdict on a running engine, and its lights."""

import argparse
from typing import Any

from control.cli.exits import Exit
from control.cli.remote.client import EXIT_CODES, add_client_options, connect
from control.cli.terminal.tables import print_json, print_table
from control.state.health import LIGHTS
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
        admission = lights["runtime"]["admission"]
        if not admission["accepts"]:
            print_table(("new streams are refused",), [(admission["reason"],)], "")
    return Exit.OK if engine["status"] == "green" else Exit.FAILED
