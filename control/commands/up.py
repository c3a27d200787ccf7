"""`fts up`: the engine against the real venues."""

import argparse
import contextlib
from typing import Any

from control.exits import Exit
from control.options import add_service, load
from control.service import Ground, Outcome, ServiceOptions, run_service
from control.summary import engine_summary, engine_text
from engine.catalog import StreamKey
from engine.config import LoadedConfig
from engine.settings import VenueSettings
from engine.status import EngineStatus
from engine.supervisor import Supervisor
from shards.venues import preferred_transport

_EPILOG = """\
examples:
  fts up                              BTC and ETH from both venues into a private database
  fts up --config fts.toml            your streams, your database
  fts up --for 60 --json              one minute, then a JSON summary
  FTS_DATABASE_URL=... fts up         store into an existing PostgreSQL or TimescaleDB

Ctrl-C drains, commits and exits; a second Ctrl-C stops at once and loses nothing: the next start
delivers what is left.
"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts up`."""
    parser = commands.add_parser(
        "up",
        help="collect from the real venues",
        description="Collects the configured streams into PostgreSQL and Redis until Ctrl-C.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_service(parser)
    parser.set_defaults(run=run)


class Up:
    """The configured streams at the configured venues."""

    def streams(self, loaded: LoadedConfig) -> list[StreamKey]:
        """As configured."""
        return loaded.stream_keys(preferred_transport)

    def prepare(self, ground: Ground, stack: contextlib.ExitStack) -> dict[str, VenueSettings]:
        """As configured."""
        del stack
        return ground.options.loaded.config.venues

    async def before_drain(self, supervisor: Supervisor, *, hurried: bool) -> None:
        """Nothing: the venues do not stop for us."""

    def after_drain(self, ground: Ground, status: EngineStatus, delivered: bool) -> Outcome:
        """What was collected."""
        del ground
        summary = engine_summary(status) | {"delivered": delivered}
        return Outcome(Exit.OK, summary, engine_text(status))


def run(options: argparse.Namespace) -> int:
    """Collect until told to stop."""
    loaded = load(options)
    service = ServiceOptions(
        loaded=loaded,
        run_s=options.run_s,
        json=options.json,
        with_database=not options.no_database,
        with_redis=not options.no_redis,
    )
    return run_service(service, Up())
