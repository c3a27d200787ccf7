"""`fts up`: the engine against the real venues."""

import argparse
import contextlib
import copy
from typing import Any

from control.ending import Ending
from control.options import add_service, load
from control.service import Ground, Outcome, ServiceOptions, run_service
from control.summary import engine_summary, engine_text
from engine.catalog import StreamKey
from engine.settings import VenueSettings
from engine.status import EngineStatus, StreamReport
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

exit codes: 0 everything received is stored or declared; 1 it is not, or it was stopped by force;
2 it cannot run like this; 3 another engine runs; 4 it ended in order, and rows wait for the next
start or are in quarantine, streams failed, or none ever delivered
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

    def __init__(self) -> None:
        self._streams: list[StreamReport] = []

    def prepare(
        self, ground: Ground, stack: contextlib.ExitStack
    ) -> tuple[list[StreamKey], dict[str, VenueSettings]]:
        """As configured."""
        del stack
        loaded = ground.options.loaded
        return loaded.stream_keys(preferred_transport), loaded.config.venues

    async def before_drain(self, supervisor: Supervisor, *, hurried: bool) -> None:
        """The venues do not stop for us; how the streams are now says whether they came to run."""
        self._streams = copy.deepcopy(supervisor.status().streams)

    def after_drain(self, ground: Ground, status: EngineStatus, delivered: bool) -> Outcome:
        """What was collected."""
        del ground
        ending = Ending.of(status, delivered=delivered, streams=self._streams)
        summary = engine_summary(status, ending) | {"delivered": delivered}
        return Outcome(ending.exit_code, summary, engine_text(status, ending))


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
