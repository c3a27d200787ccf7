"""Several databases: the rules that share the streams out among them, as they are written.

`[database]` is the default; each `[databases.<name>]` beside it has the same keys, and both may
have `routes`. What a rule means is in `engine.data.routes`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from engine.base.errors import ConfigError
from engine.data.names import DEFAULT_DATABASE, StreamKind, database_sink, is_symbol
from engine.data.routes import Route, conflict

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")
ROUTES_MAX: Final = 100_000
"""Far more than there are streams: a mistake is to be told, and not to be chewed on."""


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[databases.<name>.routes]]`: every kind with every symbol, at one venue; what is absent
    fits all.
    """

    venue: str | None = None
    kinds: list[StreamKind] | None = None
    symbols: list[str] | None = None

    def routes(self, sink: str) -> list[Route]:
        """One rule for each."""
        return [
            Route(sink, self.venue, kind, symbol)
            for kind in (self.kinds if self.kinds is not None else [None])
            for symbol in (self.symbols if self.symbols is not None else [None])
        ]


def check_names(names: Sequence[str], source: str) -> None:
    """Raises ConfigError for a name that cannot be part of a variable's name."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{source}: databases.{name!a}: a name is of a-z, 0-9 and _, begins with a letter,"
                " and is at most 31 long"
            )


def check_addresses(urls: Mapping[str, str], source: str) -> None:
    """Raises ConfigError for two sinks at one address: their cursors are the same rows."""
    seen: dict[str, str] = {}
    for sink, url in urls.items():
        if (other := seen.setdefault(url, sink)) != sink:
            raise ConfigError(f"{source}: {other} and {sink} are the same database")


def all_routes(
    default: Sequence[RouteConfig], named: Mapping[str, Sequence[RouteConfig]], source: str
) -> list[Route]:
    """All rules. Raises ConfigError for one that fits nothing, and for two that contradict."""
    written = {DEFAULT_DATABASE: default}
    written |= {database_sink(name): each for name, each in named.items()}
    for sink, entries in written.items():
        for number, entry in enumerate(entries):
            where = f"{source}: {sink}.routes[{number}]"
            if entry.kinds == [] or entry.symbols == []:
                raise ConfigError(f"{where}: an empty list fits no stream: leave the key out")
            for symbol in entry.symbols or ():
                if not is_symbol(symbol):
                    raise ConfigError(f"{where}.symbols: {symbol[:64]!a} can be no symbol")
    routes = [
        route
        for sink, entries in written.items()
        for entry in entries
        for route in entry.routes(sink)
    ]
    if len(routes) > ROUTES_MAX:
        raise ConfigError(f"{source}: {len(routes):,} routes are more than {ROUTES_MAX:,}")
    if (found := conflict(routes)) is not None:
        raise ConfigError(
            f"{source}: {found[0]} and {found[1]} fit the same streams and name equally much: let"
            " one of them name more of venue, kinds and symbols"
        )
    return list(dict.fromkeys(routes))
