"""`fts simulate`: the venue simulator alone."""

import argparse
from typing import Any

from control.cli.exits import Exit
from control.cli.options import EXAMPLE
from engine.base.errors import ConfigError
from shards.simulator import main as simulator

_EPILOG = f"""\
examples:
  fts simulate --port 9000 --rate 5000      both venues on one port, 5000 trades a second
  fts simulate --replay DIR                 a recorded session instead of made-up prices

The first line on stdout is JSON with the addresses to put under [venues.<name>].

While it runs, on the same port:
  GET  /simulator/status                    what was sent, weight used, connections, refusals
  POST /simulator/rate                      {{"trades_per_s": number or "max"}},
                                            {{"book_speed": number}}, or both
  POST /simulator/pause, /simulator/resume
  POST /simulator/faults                    {{"fault": "disconnect", "venue": "{EXAMPLE.name}"}}
  GET  /simulator/limits                    what was used of each venue's limits at most
  POST /simulator/limits                    {{"enforced": true}}: 429, 418 above the venues' budgets
  POST /simulator/instruments               {{"venue": "{EXAMPLE.name}", "action": "list" | "delist"
                                            | "change", "symbol": "NEWUSDT", "tick_size": "0.001"}}
"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts simulate`: its options are the simulator's own."""
    parser = commands.add_parser(
        "simulate",
        help="run the venue simulator alone",
        description="Speaks the wire protocols of both venues, with a ledger of every row sent.",
        epilog=_EPILOG,
    )
    simulator.add_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    try:
        settings = simulator.settings_from(options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    simulator.run(settings)
    return Exit.OK
