"""`fts up`: the engine against the real venues."""

import argparse
import contextlib
import copy
import logging
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from control.cli.changes.legacy import Back
from control.cli.changes.reloading import Reloading
from control.cli.changes.renewal import Renewal
from control.cli.ending import Ending
from control.cli.exits import Exit
from control.cli.ground import Ground, ServiceOptions
from control.cli.options import add_service, load
from control.cli.service import Look, Outcome, run_service
from control.cli.terminal.summary import engine_summary, engine_text
from engine.base.errors import ConfigError
from engine.data.names import UNKNOWN_SYMBOL, StreamKey
from engine.messages.settings import VenueSettings
from engine.messages.status import EngineStatus, StreamReport
from engine.messages.streams import StreamState
from engine.messages.writer import LIVE_TITLES
from engine.start.config import LoadedConfig
from shards.venues import preferred_transport

_log = logging.getLogger(__name__)

_EPILOG = """\
examples:
  fts up                              BTC and ETH from both venues into a private database
  fts up --config fts.toml            your streams, your database
  fts up --for 60 --json              one minute, then a JSON summary
  FTS_DATABASE_URL=... fts up         store into an existing PostgreSQL or TimescaleDB

SIGHUP reads the configuration again: what can change while it runs does, the rest is named.
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
        description=f"Collects the configured streams into PostgreSQL and {LIVE_TITLES}"
        " until Ctrl-C.",
        epilog=_EPILOG,
    )
    add_service(parser)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop with exit code 2 when a configured symbol is unknown (for CI); without it only"
        " its own streams fail",
    )
    parser.add_argument(
        "--without-restore",
        action="store_true",
        help="begin no stream: those of the configuration and of an earlier life wait, known, for"
        " a start without this; commands add and remove streams as always",
    )
    parser.set_defaults(run=run)


class Up:
    """The configured streams at the configured venues."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._unknown: list[str] = []
        self._streams: list[StreamReport] = []

    def streams(self, loaded: LoadedConfig) -> list[StreamKey]:
        """As configured."""
        return loaded.stream_keys(preferred_transport)

    def prepare(self, ground: Ground, stack: contextlib.ExitStack) -> dict[str, VenueSettings]:
        """As configured."""
        del stack
        loaded = ground.options.loaded
        for line in loaded.no_symbols():
            _log.error(line)
        return loaded.config.venues

    async def before_drain(self, look: Look, *, hurried: bool) -> None:
        """The venues do not stop for us; how the streams are now says whether they came to run."""
        self._streams = copy.deepcopy(look().streams)
        self._unknown = unknown_symbols(self._streams)

    def after_drain(self, ground: Ground, status: EngineStatus, delivered: bool) -> Outcome:
        """What was collected."""
        del ground
        ending = Ending.of(status, delivered=delivered, streams=self._streams)
        summary = engine_summary(status, ending) | {"delivered": delivered}
        text = engine_text(status, ending)
        if self._strict and self._unknown:
            summary["unknown_symbols"] = self._unknown
            return Outcome(Exit.USAGE, summary, "\n".join([*self._unknown, text]))
        return Outcome(ending.exit_code, summary, text)


def unknown_symbols(streams: Iterable[StreamReport]) -> list[str]:
    """Streams whose venue does not list their symbol, and what may have been meant."""
    return [
        f"{stream.venue}/{stream.symbol}/{stream.kind}/{stream.transport}: {stream.reason}"
        for stream in streams
        if stream.state is StreamState.FAILED and stream.reason.startswith(UNKNOWN_SYMBOL)
    ]


def run(options: argparse.Namespace, back: Back | None = None) -> int:
    """Collect until told to stop; with a way `back`, go on with what another program has left."""
    loaded = load(options) if back is None else back.legacy.loaded()
    if options.strict and back is None and (wrong := loaded.no_symbols()):
        raise ConfigError("; ".join(wrong))
    scenario = Up(strict=options.strict)
    reload = partial(Reloading, partial(load, options), scenario.streams, loaded)
    renewal = Renewal(partial(load, options), scenario.streams, sys.argv[1:])
    service = ServiceOptions.of(
        options, loaded, reload=reload, renew=renewal, restores=not options.without_restore,
        back=back,
    )  # fmt: skip
    if options.strict:
        service = replace(service, ends_when=lambda status: bool(unknown_symbols(status.streams)))
    return run_service(service, scenario)
