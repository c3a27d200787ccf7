"""Configuration: one TOML file, every key optional, every default written here and nowhere else.

Unknown keys, wrong types and numbers out of range end in a `ConfigError` that names the file and
the path of the key. Secrets come from the environment or from files of their own; the TOML file
may name a database, never its password. What depends on the machine (CPUs, free shared memory) is
checked by `engine.start.preflight`, so that this module stays a function of its input.
"""

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.base.errors import ConfigError
from engine.base.redis_link import parse_redis_url
from engine.base.wrong_input import explain
from engine.data.kinds import KINDS
from engine.data.layout import must_be_text
from engine.data.names import (
    DEFAULT_DATABASE,
    StreamKey,
    StreamKind,
    Transport,
    database_sink,
    is_symbol,
)
from engine.data.routes import Route
from engine.messages.settings import HealthSettings, VenueSettings
from engine.messages.writer import DatabaseThresholds
from engine.start.addresses import (
    Secret,
    Written,
    at_home,
    check_database_url,
    in_schemas,
    owner_of,
    server_url,
    variable_of,
    with_credentials,
)
from engine.start.databases import (
    DatabaseConfig,
    all_routes,
    check_addresses,
    check_archives,
    check_names,
    check_upkeep,
    in_directory,
)
from engine.start.listening import ControlConfig, MetricsConfig, check_host
from engine.start.postgres_settings import check_settings
from engine.start.redis_memory import RedisConfig
from engine.start.stream_share import StreamShare

_MAX_FILE_BYTES = 1 << 20
_SHOWN_SYMBOL = 64

ENVIRONMENT = {
    "FTS_LOG_LEVEL": ("log", "level"),
    "FTS_LOG_FORMAT": ("log", "format"),
    "FTS_LOG_FOLD_S": ("log", "fold_s"),
    "FTS_CONTROL_PORT": ("control", "port"),
}
"""Variables that win over a key of the file. Addresses have theirs (`engine.start.addresses`)."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

PreferredTransport = Callable[[str, StreamKind], Transport]
"""(venue, kind) to the transport used when the configuration names none."""


def always_ws(_venue: str, _kind: StreamKind) -> Transport:
    """The preference of somebody who knows no venue."""
    return Transport.WS


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class LimitsConfig(_Section, frozen=True):
    """`[limits]`: the venues' budgets. `shared` asks all engines of one `group`, which leave from
    one address, through their common Redis before anything is sent to a venue.
    """

    shared: bool = False
    """Share the venues' budgets with the other engines on this Redis."""
    group: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "default"
    """Which engines: those that leave from one address."""
    meanwhile: Literal["wait", "alone"] = msgspec.field(default="wait", name="without_redis")
    """While Redis is away `wait` keeps the limits strict, `alone` lets each engine use the whole
    budget."""
    max_streams: Annotated[int, Meta(ge=1, le=20_000)] = 20_000
    """Commands add no stream beyond (429); those of the file and of an earlier life all begin."""


class JournalConfig(_Section, frozen=True):
    """`[journal]`: the rings' tail on disk."""

    segment_mb: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Size of a file, in MiB."""
    max_mb: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    """What may wait there for a database, in MiB; 0: as much as the disk takes. Beyond it rows wait
    in the rings, and those that find them full are declared lost: no row is later than that."""
    sync_interval_s: Annotated[float, Meta(ge=0.01, le=3600)] = 1.0
    """Seconds between two fdatasync calls: a power cut loses no more of what no database has."""


_Capacity = Annotated[int, Meta(ge=64, le=1 << 30)]
if TYPE_CHECKING:
    _RingRecords = _Section
else:
    _RingRecords = msgspec.defstruct(
        "_RingRecords",
        [(kind, _Capacity | None, None) for kind in KINDS],
        bases=(_Section,),
        frozen=True,
    )


class ShardsConfig(_Section, frozen=True):
    """`[shards]`: the processes that collect."""

    cpus: list[Annotated[int, Meta(ge=0, le=65535)]] | None = None
    """One shard for each CPU listed, and bound to it. Absent: the last half of the allowed ones."""
    ring_records: _RingRecords = _RingRecords()
    """Records that a ring of this kind holds, a power of two. Absent: as many as the streams that a
    start knows want (`engine.start.preflight`), and less in a small `/dev/shm`."""

    def capacity(self, kind: str) -> int | None:
        """The capacity that is configured for the rings of a kind, if one is."""
        found: int | None = getattr(self.ring_records, kind, None)
        return found


class LogConfig(_Section, frozen=True):
    """`[log]`: `fts.log` in the state directory, and standard error."""

    level: LogLevel = "INFO"
    """Lines below it are not written."""
    format: Literal["text", "json"] = "text"
    """Lines for eyes, or one JSON object each."""
    fold_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """Seconds in which the same line is written once, and then its count; 0: every line."""


class StreamsConfig(_Section, frozen=True):
    """`[[streams]]`: every symbol with every kind, at one venue. Without `transport` each kind
    comes the way its venue prefers. A text that can be no symbol costs its own streams alone
    (`LoadedConfig.no_symbols`), as a symbol does that the venue does not list.
    """

    venue: str
    """Which venue; also in the spelling of the API."""
    symbols: Annotated[list[str], Meta(min_length=1)]
    """As the venue spells them; one that it does not list costs its own streams alone."""
    kinds: Annotated[list[StreamKind], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [StreamKind.TRADES, StreamKind.L2_BOOK]
    )
    """Kinds of stream of each symbol."""
    transport: Transport | None = None
    """How it comes. Absent: `Ws` where the venue has it."""

    def keys(self, preferred: PreferredTransport) -> list[StreamKey]:
        """The streams this entry names."""
        return [
            StreamKey(self.venue, symbol, kind, self.transport or preferred(self.venue, kind))
            for symbol in filter(is_symbol, self.symbols)
            for kind in self.kinds
        ]


class Config(_Section, frozen=True):
    """The TOML file."""

    state_dir: str | None = None
    """Where journal, log and private servers are. Absent: `$XDG_STATE_HOME/fintickstreams` or
    `~/.local/state/fintickstreams`."""
    share: str | None = None
    """`1/3`: the second of three engines that share the streams of one file; all streams of a
    symbol go together. Absent: all of them."""
    control: ControlConfig = ControlConfig()
    metrics: MetricsConfig = MetricsConfig()
    health: HealthSettings = HealthSettings()
    database: DatabaseConfig = DatabaseConfig()
    databases: dict[str, DatabaseConfig] = {}
    redis: RedisConfig = RedisConfig()
    limits: LimitsConfig = LimitsConfig()
    journal: JournalConfig = JournalConfig()
    shards: ShardsConfig = ShardsConfig()
    log: LogConfig = LogConfig()
    venues: dict[str, VenueSettings] = {}
    streams: list[StreamsConfig] = []

    @property
    def all_databases(self) -> dict[str, DatabaseConfig]:
        """By the name of their sink, the default first."""
        named = {database_sink(name): each for name, each in self.databases.items()}
        return {DEFAULT_DATABASE: self.database, **named}

    @property
    def thresholds(self) -> dict[str, DatabaseThresholds]:
        """By database, from where on it is behind."""
        return {name: each.health for name, each in self.all_databases.items()}


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A checked configuration with its secrets beside it, masked. `source` is for messages."""

    config: Config
    source: str
    state_dir: Path
    urls: Mapping[str, Secret]
    """Where servers are that are not ours, by the name of their sink."""
    owner_urls: Mapping[str, Secret] = field(default_factory=dict)
    """The databases' for the roles that own their tables, where those are not the sinks' own."""

    @property
    def database_url(self) -> Secret | None:
        """The database's."""
        return self.urls.get("database")

    def owner_url(self, sink: str = DEFAULT_DATABASE) -> Secret | None:
        """A database's for whoever changes its schema, as migration and upkeep do."""
        return self.owner_urls.get(sink) or self.urls.get(sink)

    def with_state_dir(self, state_dir: Path) -> "LoadedConfig":
        """The same with another state directory."""
        return replace(self, state_dir=at_home(state_dir).absolute())

    def with_config(self, config: Config) -> "LoadedConfig":
        """The same with another configuration, e.g. after command-line options."""
        return replace(self, config=config)

    def no_symbols(self) -> list[str]:
        """What of the configured symbols can be none, a line each, fit to be shown."""
        return [
            f"{self.source}: streams[{number}].symbols[{place}]: {text[:_SHOWN_SYMBOL]!a} can be no"
            " symbol: left out"
            for number, entry in enumerate(self.config.streams)
            for place, text in enumerate(entry.symbols)
            if not is_symbol(text)
        ]

    def routes(self) -> list[Route]:
        """Which database has which streams. Raises ConfigError for rules that contradict."""
        config = self.config
        named = {name: each.routes for name, each in config.databases.items()}
        return all_routes(config.database.routes, named, self.source)

    def stream_keys(self, preferred: PreferredTransport = always_ws) -> list[StreamKey]:
        """Every configured stream of our share once, in the order of the file. What each venue
        prefers is known to `shards.venues`, which this room does not import.
        """
        keys = [key for entry in self.config.streams for key in entry.keys(preferred)]
        share = StreamShare.parse(self.config.share or "0/1", self.source)
        return [key for key in dict.fromkeys(keys) if share.has(key)]


def load(
    path: Path | None,
    env: Mapping[str, str] = os.environ,
    state_dir: Path | None = None,
    default_streams: Sequence[StreamsConfig] = (),
    table: dict[str, Any] | None = None,
) -> LoadedConfig:
    """Read `path` (or nothing), apply the environment, check everything. A `state_dir` given here
    wins over both; `default_streams` are for a file that has no `streams`. A `table` stands for
    what is at `path`.

    Raises ConfigError with one line that names the file and the key.
    """
    source = str(path) if path is not None else "defaults"
    must_be_text(path or Path(), "configuration")
    if table is None:
        table = table_of(read_file(path), source) if path is not None else {}
    config = _convert(table, source)
    if "streams" not in table:
        config = msgspec.structs.replace(config, streams=list(default_streams))
    config = _with_environment(config, env)
    check_rules(config, source)
    base = path.absolute().parent if path is not None else Path()  # then no key names a file
    config = _with_token_files(config, env, source, base)
    config = msgspec.structs.replace(
        config,
        venues=with_credentials(config.venues, source, base),
        database=in_directory(config.database, base),
        databases={name: in_directory(each, base) for name, each in config.databases.items()},
    )
    check_archives(config.all_databases, source)
    found = {
        name: server_url(name, written, check, env, source, base)
        for name, written, check in _servers(config)
    }
    urls = {name: url for name, url in found.items() if url is not None}
    _check_databases(config, urls, source)
    schemas = {sink: each.schema for sink, each in config.all_databases.items()}
    urls = in_schemas(urls, schemas, source)
    databases = {sink: urls[sink].reveal() for sink in config.all_databases if sink in urls}
    check_addresses(databases, source)
    owners = {
        sink: urls.pop(owner_of(sink)) for sink in config.all_databases if owner_of(sink) in urls
    }
    if config.limits.shared and "redis" not in urls:
        raise ConfigError(
            f"{source}: limits.shared: engines share limits through a Redis they have in common;"
            " set redis.url, redis.url_file or FTS_REDIS_URL"
        )
    loaded = LoadedConfig(config, source, _state_dir(config, env, state_dir), urls, owners)
    loaded.routes()
    return loaded


def _servers(
    config: Config,
) -> Iterator[tuple[str, Written, Callable[[str], object]]]:
    """Each sink, what is written of it, and what checks its address."""
    yield "redis", config.redis, parse_redis_url
    for name, database in config.all_databases.items():
        yield name, database, check_database_url
        yield owner_of(name), database.owner, check_database_url


def read_file(path: Path) -> bytes:
    """The file's content. Raises ConfigError where it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_FILE_BYTES} bytes: not a configuration")
    return text


def table_of(text: bytes, source: str) -> dict[str, Any]:
    """The file as a table. Raises ConfigError where it is not TOML."""
    try:
        return tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 (byte {error.start})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {_one_line(str(error))}") from error


def _convert(table: dict[str, Any], source: str) -> Config:
    try:
        return msgspec.convert(table, Config)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{source}: {_explain(error, Config)}") from error


def _explain(error: Exception, kind: type) -> str:
    """The key, and what is wrong with it."""
    key, text = explain(str(error), kind)
    return f"{key or 'top level'}: {text}"


def _with_environment(config: Config, env: Mapping[str, str]) -> Config:
    """With what the environment says of `share`, `log` and `control`, which wins over the file."""
    if share := env.get("FTS_SHARE"):
        StreamShare.parse(share, "environment: FTS_SHARE")
        config = msgspec.structs.replace(config, share=share)
    for variable, (section, key) in ENVIRONMENT.items():
        if not (written := env.get(variable)):
            continue
        value = written.upper() if key == "level" else written
        now = getattr(config, section)
        try:
            found = msgspec.convert({key: value}, type(now), strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"environment: {variable}: {_explain(error, type(now))}") from error
        changed = msgspec.structs.replace(now, **{key: getattr(found, key)})
        config = msgspec.structs.replace(config, **{section: changed})
    return config


def _with_token_files(config: Config, env: Mapping[str, str], source: str, base: Path) -> Config:
    """Token files by absolute path. Who listens to more than this machine asks for a token."""
    control = config.control
    has_token = bool(control.token_file or env.get("FTS_CONTROL_TOKEN"))
    if (control.behind_proxy or control.allowed_hosts) and not has_token:
        raise ConfigError(
            f"{source}: control.behind_proxy, control.allowed_hosts: whom the proxy lets through"
            " could command this engine: set control.token_file or FTS_CONTROL_TOKEN"
        )
    for section, host in (("control", control.host), ("metrics", config.metrics.host)):
        check_host(section, host, source, has_token=has_token, has_proxy=control.behind_proxy)
    files = {
        name: str(base / at_home(Path(value)))
        for name in ("token_file", "read_token_file")
        if (value := getattr(control, name)) is not None
    }
    return msgspec.structs.replace(config, control=msgspec.structs.replace(control, **files))


def check_rules(config: Config, source: str) -> None:
    """Rules between keys. Raises ConfigError, which names both values."""
    check_names(list(config.databases), source)
    if config.share is not None:
        StreamShare.parse(config.share, f"{source}: share")
    for kind in KINDS:
        capacity = config.shards.capacity(kind)
        if capacity is not None and capacity & (capacity - 1):
            raise ConfigError(
                f"{source}: shards.ring_records.{kind}: {capacity} is not a power of two"
            )
    for name, database in config.all_databases.items():
        _check_flushes(name, database, config.shards, source)
        check_upkeep(name, database, source)
    try:
        check_settings(config.database.private_settings)
    except ConfigError as error:
        raise ConfigError(f"{source}: database.private_settings: {error}") from None
    cpus = config.shards.cpus
    if cpus is not None and not cpus:
        raise ConfigError(f"{source}: shards.cpus: an empty list leaves no shard")
    for cpu in cpus or ():
        if (cpus or []).count(cpu) > 1:
            raise ConfigError(f"{source}: shards.cpus: CPU {cpu} is listed twice")


def _check_flushes(name: str, database: DatabaseConfig, shards: ShardsConfig, source: str) -> None:
    if database.flush_rows > database.max_rows_per_copy:
        raise ConfigError(
            f"{source}: {name}.flush_rows = {database.flush_rows} is more than"
            f" {name}.max_rows_per_copy = {database.max_rows_per_copy}"
        )
    for kind, spec in KINDS.items():
        capacity = shards.capacity(kind)
        if capacity is not None and spec.is_fast and database.flush_rows > capacity:
            raise ConfigError(
                f"{source}: {name}.flush_rows = {database.flush_rows} is more than"
                f" shards.ring_records.{kind} = {capacity}: the ring would fill before a flush"
            )


def _check_databases(config: Config, urls: Mapping[str, Secret], source: str) -> None:
    """What holds only for those beside the default."""
    for name, database in config.databases.items():
        sink = database_sink(name)
        if sink not in urls:
            raise ConfigError(
                f"{source}: {sink} has no address: set {sink}.url, {sink}.url_file or"
                f" {variable_of(sink)} (only the default database can be private)"
            )
        for key in ("private_settings", "registry_name"):
            if getattr(database, key):
                raise ConfigError(f"{source}: {sink}.{key}: only [database] has that")
    for sink in config.all_databases:
        if owner_of(sink) in urls and sink not in urls:
            raise ConfigError(f"{source}: {sink}.owner: there is no {sink}.url beside it")


def default_state_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Where state is when nobody says."""
    return _state_dir(Config(), env, None)


def _state_dir(config: Config, env: Mapping[str, str], given: Path | None) -> Path:
    chosen = given or env.get("FTS_STATE_DIR") or config.state_dir
    if chosen:
        return at_home(Path(chosen)).absolute()
    state_home = env.get("XDG_STATE_HOME")
    root = Path(state_home) if state_home else at_home(Path("~/.local/state"))
    return (root / "fintickstreams").absolute()


def _one_line(text: str) -> str:
    return " ".join(text.split())
