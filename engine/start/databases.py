"""Databases as they are written: sections, and the rules that share the streams out among them.

`[database]` is the default; each `[databases.<name>]` beside it has the same keys, and both may
have `routes`. What a rule means is in `engine.data.routes`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engine.base.errors import ConfigError
from engine.data.kinds import KINDS
from engine.data.names import DEFAULT_DATABASE, StreamKind, database_sink, is_symbol
from engine.data.routes import Route, conflict
from engine.messages.upkeep import AGE, BARS, Archive
from engine.messages.writer import DatabaseThresholds
from engine.start.addresses import at_home

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")
_AGE: Final = re.compile(AGE)
ROUTES_MAX: Final = 100_000
"""Far more than there are streams: a mistake is to be told, and not to be chewed on."""


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[databases.<name>.routes]]`: every kind with every symbol, at one venue; what is absent
    fits all.
    """

    venue: str | None = None
    """Absent: any."""
    kinds: list[StreamKind] | None = None
    """Absent: any."""
    symbols: list[str] | None = None
    """Absent: any."""

    def routes(self, sink: str) -> list[Route]:
        """One rule for each."""
        return [
            Route(sink, self.venue, kind, symbol)
            for kind in (self.kinds if self.kinds is not None else [None])
            for symbol in (self.symbols if self.symbols is not None else [None])
        ]


class OwnerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[database.owner]`: the address of the role that owns the tables, where the engine's own may
    not change a schema.
    """

    url: str | None = None
    """Address of the role that owns the tables, without a password, for migrations and upkeep.
    Absent: that of the database."""
    url_file: str | None = None
    """File that holds it, password included."""


class DatabaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[database]`: without `url` and `url_file`, a private PostgreSQL in the state directory.
    `[databases.<name>]`: another one beside it, which is never private.
    """

    url: str | None = None
    """PostgreSQL or TimescaleDB, without a password. Absent: a private server."""
    url_file: str | None = None
    """File that holds the address, password included."""
    owner: OwnerConfig = OwnerConfig()
    schema: str | None = None
    """Schema of the tables, made where it is missing; not for the private server. Absent: where the
    tables are, else `search_path`."""
    flush_rows: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000
    """Rows are committed when so many wait."""
    flush_interval_ms: Annotated[int, Meta(ge=1, le=60_000)] = 50
    """And at least so often, in ms."""
    max_rows_per_copy: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    """Rows in one COPY at most."""
    registry_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """Whose rows of `stream_registry` are ours; name it to resume with a lost state directory.
    Absent: the instance's id."""
    private_settings: dict[str, str] = {}
    """Settings of the private server, e.g. `{ shared_preload_libraries = "timescaledb" }`, where
    its installation has the library."""
    keep: dict[str, str] = {}
    """By table (`bar_1s` and `bar_1m` are some, too), after which age whole days are dropped, e.g.
    `{ book = "14d", trade = "400d" }`, in `h`, `d` or `w`. Absent: for ever."""
    keep_by_venue: dict[str, dict[str, str]] = {}
    """The same for the rows of one venue that may go sooner, e.g. `{ NAME = { book = "3d" } }`."""
    bars: bool = False
    """Keep bars of a second and a minute up to date; the same for all engines of a database."""
    answer_within_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """Seconds that the writer waits for an answer to a statement before it connects anew."""
    archive: Archive = "none"
    """`parquet`: a day is exported and verified before it is dropped."""
    archive_to: str | None = None
    """Where to: a directory, from that of the configuration file on, or `s3://bucket/path`; needed
    with `archive`."""
    health: DatabaseThresholds = DatabaseThresholds()
    routes: list[RouteConfig] = []
    """Rules whose streams it has; the default has those that no rule gives to another one, too."""


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


def check_archives(databases: Mapping[str, DatabaseConfig], source: str) -> None:
    """Raises ConfigError for two databases with one archive: what is a stream's number in one is
    another stream's in the other, and no import could tell their rows apart.
    """
    seen: dict[str, str] = {}
    for sink, database in databases.items():
        if (to := database.archive_to) and (other := seen.setdefault(to, sink)) != sink:
            raise ConfigError(
                f"{source}: {other}.archive_to and {sink}.archive_to are both {to!r}: each database"
                " needs one of its own"
            )


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


def check_upkeep(name: str, database: DatabaseConfig, source: str) -> None:
    """Raises ConfigError for an age or table that is none, and for an archive that is half said."""
    tables = [kind.name for kind in KINDS.values() if kind.columns]
    _check_ages(f"{source}: {name}.keep", database.keep, [*tables, *BARS])
    for venue, kept in database.keep_by_venue.items():
        _check_ages(f"{source}: {name}.keep_by_venue.{venue}", kept, tables)
    if database.archive != "none" and not database.archive_to:
        raise ConfigError(
            f"{source}: {name}.archive = {database.archive!r} needs {name}.archive_to: a"
            " directory, or s3://bucket/path"
        )
    if database.archive == "none" and database.archive_to:
        raise ConfigError(
            f"{source}: {name}.archive_to = {database.archive_to!r} archives nothing without"
            f' {name}.archive = "parquet"'
        )


def _check_ages(where: str, kept: Mapping[str, str], tables: Sequence[str]) -> None:
    for table, age in kept.items():
        if table not in tables:
            raise ConfigError(f"{where}: {table!r} is no table of rows: one of {', '.join(tables)}")
        if not _AGE.fullmatch(age):
            raise ConfigError(f"{where}.{table}: {age!r} is no age: write 36h, 14d or 8w")


def in_directory(database: DatabaseConfig, base: Path) -> DatabaseConfig:
    """With the archive where the file that names it is, unless it is somewhere of its own."""
    to = database.archive_to
    if to is None or "://" in to:
        return database
    return msgspec.structs.replace(database, archive_to=str((base / at_home(Path(to))).absolute()))
