"""Command-line options that several commands share, and how they change the configuration."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from control.api.schemas import known_venue, unknown_venue
from engine.base.errors import ConfigError
from engine.data.layout import Layout, open_layout
from engine.data.names import DEFAULT_DATABASE, database_sink
from engine.messages.settings import LimitOverride, VenueSettings
from engine.messages.writer import LIVE, LIVE_TITLES
from engine.start import config
from engine.start.config import Config, LoadedConfig, StreamsConfig
from shards.venues import USUAL, VENUES
from shards.venues.budgets import with_limits
from shards.venues.kit import limited_as

EXAMPLE = next(iter(VENUES.values()))
"""The venue that examples in help texts name."""


Run = Callable[[argparse.Namespace], int]
"""What a command does; returns its exit code."""
Verbs = Iterator[tuple[str, argparse.ArgumentParser]]


def add_verbs(
    parser: argparse.ArgumentParser, verbs: Mapping[str, tuple[str, Run]], *, required: bool = False
) -> Verbs:
    """Verbs of a command: what each does, and who does it. Yields them for their arguments. They
    show the command's own examples.
    """
    found = parser.add_subparsers(dest="verb", metavar="VERB", required=required)
    for name, (text, run) in verbs.items():
        described = f"{parser.prog} {name}: {text}."
        verb = found.add_parser(name, help=text, description=described, epilog=parser.epilog)
        verb.set_defaults(run=run)
        yield name, verb


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--state-dir`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file; every key in it is optional"
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where journal, log and private servers live"
        " (default: $XDG_STATE_HOME/fintickstreams or ~/.local/state/fintickstreams)",
    )


def add_service(parser: argparse.ArgumentParser) -> None:
    """What `up` and `demo` share."""
    add_config(parser)
    parser.add_argument(
        "--for",
        dest="run_s",
        type=_seconds,
        metavar="SECONDS",
        help="stop after this long (default: run until Ctrl-C)",
    )
    parser.add_argument(
        "--json", action="store_true", help="end with one JSON object on stdout; no live view"
    )
    parser.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help="control port on the loopback address, 0 for a free one",
    )
    for live in LIVE:
        text = f"do not publish to {live.title}"
        parser.add_argument(f"--no-{live.name}", action="store_true", help=text)
    text = f"do not store; live data through {LIVE_TITLES} only"
    parser.add_argument("--no-database", action="store_true", help=text)


def used_places(loaded: LoadedConfig) -> list[Layout]:
    """State directories that an engine has used: the configured one, and the demo below it."""
    places = (loaded.state_dir, loaded.state_dir / "demo")
    return [open_layout(place) for place in places if (place / "instance").exists()]


def load(
    options: argparse.Namespace,
    env: Mapping[str, str] = os.environ,
    table: dict[str, Any] | None = None,
) -> LoadedConfig:
    """The configuration with the command line's wishes, which win over file and environment. A
    `table` stands for what is in the file.
    """
    loaded = _with_known_venues(
        config.load(options.config, env, options.state_dir, example_streams(), table)
    )
    port = getattr(options, "port", None)
    if port is not None:
        control = msgspec.structs.replace(loaded.config.control, port=port)
        loaded = loaded.with_config(msgspec.structs.replace(loaded.config, control=control))
    return loaded


def example_streams() -> list[StreamsConfig]:
    """What is collected where nothing is configured: the examples of the usual venues."""
    return [StreamsConfig(venue=name, symbols=list(VENUES[name].examples)) for name in USUAL]


def _with_known_venues(loaded: LoadedConfig) -> LoadedConfig:
    """With the engine's spelling of every venue. Raises ConfigError for one that nobody knows."""
    streams = [
        msgspec.structs.replace(
            entry, venue=_known_venue(loaded, f"streams[{number}].venue", entry.venue)
        )
        for number, entry in enumerate(loaded.config.streams)
    ]
    venues = {
        _known_venue(loaded, "venues", name): settings
        for name, settings in loaded.config.venues.items()
    }
    if len(venues) < len(loaded.config.venues):
        names = ", ".join(loaded.config.venues)
        raise ConfigError(f"{loaded.source}: venues: one of them is there twice: {names}")
    for name, settings in venues.items():
        _check_options(loaded, name, settings)
    venues = _with_common_limits(loaded, venues)
    whole = msgspec.structs.replace(loaded.config, streams=streams, venues=venues)
    return loaded.with_config(_with_known_routes(loaded, whole))


def _with_known_routes(loaded: LoadedConfig, whole: Config) -> Config:
    """The same for rules and ages of several databases; in one spelling rules may contradict."""
    known = {}
    for sink, database in whole.all_databases.items():
        routes = [
            msgspec.structs.replace(
                each, venue=each.venue and _known_venue(loaded, f"{sink}.routes", each.venue)
            )
            for each in database.routes
        ]
        kept = {
            _known_venue(loaded, f"{sink}.keep_by_venue", name): ages
            for name, ages in database.keep_by_venue.items()
        }
        if len(kept) < len(database.keep_by_venue):
            names = ", ".join(database.keep_by_venue)
            raise ConfigError(
                f"{loaded.source}: {sink}.keep_by_venue: one of them is there twice: {names}"
            )
        known[sink] = msgspec.structs.replace(database, routes=routes, keep_by_venue=kept)
    whole = msgspec.structs.replace(
        whole,
        database=known[DEFAULT_DATABASE],
        databases={name: known[database_sink(name)] for name in whole.databases},
    )
    loaded.with_config(whole).routes()
    return whole


def _check_options(loaded: LoadedConfig, name: str, settings: VenueSettings) -> None:
    """Raises ConfigError for a value or a group of sockets that the venue does not know, or has no
    use for.
    """
    if settings.credentials_file is not None and not VENUES[name].takes_credentials:
        raise ConfigError(
            f"{loaded.source}: venues.{name}.credentials_file: nobody needs to log in there"
        )
    if unknown := settings.socket_paths.keys() - VENUES[name].groups.keys():
        known_groups = ", ".join(VENUES[name].groups)
        raise ConfigError(
            f"{loaded.source}: venues.{name}.socket_paths: {min(unknown)!a} is none of"
            f" {known_groups}"
        )
    try:
        with_limits(VENUES[name], settings.limits)
    except KeyError as error:
        pools = ", ".join(limit.pool for limit in VENUES[name].limits)
        raise ConfigError(
            f"{loaded.source}: venues.{name}.limits: {error.args[0]!a} is none of {pools}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{loaded.source}: venues.{name}.limits.{error}") from None
    for key, known in VENUES[name].options.items():
        if (value := getattr(settings, key)) not in (None, *known):
            raise ConfigError(
                f"{loaded.source}: venues.{name}.{key}: {value!a} is none of {', '.join(known)}"
            )


def _with_common_limits(
    loaded: LoadedConfig, venues: dict[str, VenueSettings]
) -> dict[str, VenueSettings]:
    """The limits of venues at one server are the same ones: whoever names them, names them for all.
    Raises ConfigError for two that contradict.
    """
    common: dict[str, dict[str, LimitOverride]] = {}
    for name, settings in venues.items():
        for pool, limit in settings.limits.items():
            if common.setdefault(limited_as(VENUES[name]), {}).setdefault(pool, limit) != limit:
                raise ConfigError(
                    f"{loaded.source}: venues.{name}.limits.{pool}: another venue at the same"
                    " server says otherwise, and the limit is one"
                )
    tuned = {
        name: msgspec.structs.replace(
            venues.get(name, VenueSettings()), limits=common[limited_as(venue)]
        )
        for name, venue in VENUES.items()
        if limited_as(venue) in common
    }
    return venues | tuned


def _known_venue(loaded: LoadedConfig, section: str, name: str) -> str:
    venue = known_venue(name)
    if venue is None:
        raise ConfigError(f"{loaded.source}: {section}: unknown venue {unknown_venue(name)}")
    return venue


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 365 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0-65535)")
    return int(text)
