"""What a child process is told at birth: the first message on its pipe.

Settings travel over the pipe and not in arguments or environment, because they hold database
passwords. `engine.start.config` makes them from the TOML file.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from engine.data.layout import Layout, shard_name
from engine.data.names import DEFAULT_DATABASE, StreamKind
from engine.data.routes import Route
from engine.messages.streams import Knobs
from engine.messages.writer import LIVE, Thresholds, check_order

PollInterval = Annotated[float, Meta(ge=0.1, le=3600)]
SocketPath = Annotated[str, Meta(pattern=r"^(/[\w.-]+)*$", max_length=200)]
SnapshotInterval = Annotated[float, Meta(ge=60, le=604_800)]
LIGHTS = ("runtime", "db", *(each.name for each in LIVE))
"""The parts of an engine that have a light."""
Admission = Literal["green", "yellow", "any"]
"""The worst health in which new streams are still accepted; `any` never refuses."""


class Paths(msgspec.Struct, frozen=True):
    """`engine.data.layout.Layout` in a form that travels."""

    state_dir: str
    instance: str
    shm_dir: str

    def layout(self) -> Layout:
        """The layout these paths name."""
        return Layout(Path(self.state_dir), self.instance, Path(self.shm_dir))

    @classmethod
    def of(cls, layout: Layout) -> "Paths":
        """The message form of `layout`."""
        return cls(str(layout.state_dir), layout.instance, str(layout.shm_dir))


class LogSettings(msgspec.Struct, frozen=True):
    """Where a process logs (`engine.process.logs`)."""

    file: str
    level: str = "INFO"
    to_stderr: bool = True
    format: Literal["text", "json"] = "text"
    fold_s: float = 60.0


class LimitOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a venue lets this address spend or hold of a pool, where that is not what is known of
    the venue. Absent `window_s`: the venue's own window.
    """

    units: Annotated[float, Meta(ge=1, le=1e9)]
    window_s: Annotated[float, Meta(ge=1, le=86_400)] | None = None


class VenueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Overrides of a venue's own numbers; an absent value means the venue's default."""

    rest_url: str | None = None
    """REST address. Absent: the venue's own."""
    ws_url: str | None = None
    """WebSocket address. Absent: the venue's own."""
    socket_paths: dict[str, SocketPath] = {}
    """By group of sockets, its path behind `ws_url`. Absent: the venue's own."""
    streams_per_connection: int | None = None
    """Streams that share a socket; more where the sockets that the venue allows an address would
    not do otherwise. Absent: the venue's limit."""
    book_channel: str | None = None
    """Which feed books come from, where the venue has several. Absent: the venue's first."""
    credentials_file: str | None = None
    """File with who logs in, `name:secret`, where a venue tells those more. The secret stays there:
    it is read at each login. Absent: nobody."""
    trade_side: str | None = None
    """Whose side a trade's is, where the venue is not clear about it: `maker`, `taker` or
    `unknown`. Absent: the venue's first."""
    connection_lifetime_s: float | None = None
    """Age in seconds at which a socket is replaced, before the venue cuts it; up to a tenth
    earlier, so that not all are at once. Absent: the venue's limit."""
    stale_after_s: float | None = None
    """Seconds of silence after which a stream counts as stale and is subscribed again. Absent: by
    channel."""
    poll_interval_s: dict[StreamKind, PollInterval] = {}
    """By kind of stream, seconds between two polls. Absent: `Funding` 5, `OpenInterest` 10,
    `FundingOpenInterest` 5 or 10, by venue, `SettledFunding` 300."""
    book_snapshot_interval_s: SnapshotInterval = 3600.0
    """Books that come as changes start anew from a whole one at least so often, in seconds, for who
    rebuilds them from the middle."""
    reconnect_first_s: Annotated[float, Meta(ge=0.05, le=60)] = 0.25
    """A socket that was cut is opened again after half of it to all of it, in seconds, and after
    twice as long each time it fails."""
    reconnect_max_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    """Up to this."""
    breaker_failures: Annotated[int, Meta(ge=0, le=1000)] = 0
    """After so many failures in a row a socket pauses before each next try, until one has worked;
    0: never."""
    breaker_pause_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    """For half of it to all of it, in seconds."""
    limits: dict[str, LimitOverride] = {}
    """By pool, what the venue allows this address. Absent: what is known of the venue."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec makes a refusal with the place."""
        if self.reconnect_first_s > self.reconnect_max_s:
            raise ValueError(
                f"reconnect_first_s = {self.reconnect_first_s:g} is more than"
                f" reconnect_max_s = {self.reconnect_max_s:g}"
            )


class ShardSettings(msgspec.Struct, frozen=True):
    """A shard's birth message."""

    index: int
    cpu: int | None
    paths: Paths
    venues: dict[str, VenueSettings]
    doorbell_fd: int
    log: LogSettings
    status_interval_s: float = 0.5
    shard_count: int = 1
    """How many there are: each takes an equal part of budgets it cannot ask for in advance."""
    name: str = ""
    """Where it is not the usual one of its index (`engine.data.layout.shard_name`)."""

    @property
    def role(self) -> str:
        """What it is called: the name of its process, its rings and its metrics."""
        return self.name or shard_name(self.index)


class RedisKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[redis.kinds.<kind>]`: what is otherwise for rows of a kind; None: as for all."""

    maxlen: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    """Rows that a stream keeps."""
    publish: bool | None = None
    """Whether every entry is also sent with PUBLISH."""


class RingSettings(msgspec.Struct, frozen=True):
    """A ring the writer must have ready before the shards start. `capacity` is a power of two."""

    ring: str
    kind: str
    capacity: int


class DatabaseSettings(msgspec.Struct, frozen=True):
    """A database beside the default one, and how the writer stores there."""

    name: str
    """Its sink's."""
    url: str
    flush_rows: int = 50_000
    flush_interval_s: float = 0.05
    max_rows_per_copy: int = 100_000
    bars: bool = False
    answer_within_s: float = 60.0


class WriterSettings(msgspec.Struct, frozen=True):
    """The writer's birth message. No `database_url` or `redis_url`: run without that sink."""

    paths: Paths
    rings: list[RingSettings]
    doorbell_fd: int
    log: LogSettings
    database_url: str | None = None
    redis_url: str | None = None
    flush_rows: int = 50_000
    flush_interval_s: float = 0.05
    max_rows_per_copy: int = 100_000
    bars: bool = False
    """Whether the database keeps bars, of which trades leave marks."""
    answer_within_s: float = 60.0
    """For so long an answer of the database may be late before the connection is dropped."""
    database: str = DEFAULT_DATABASE
    """The sink that `database_url` and the flush settings are of."""
    databases: list[DatabaseSettings] = []
    """The others."""
    routes: list[Route] = []
    """Whose rows go to which of them."""
    journal_segment_bytes: int = 64 << 20
    journal_max_bytes: int = 0
    """What may wait there; 0: as much as the disk takes."""
    journal_sync_interval_s: float = 1.0
    redis_prefix: str = "fts"
    redis_stream_maxlen: int = 10_000
    redis_memory_bytes: int = 256 << 20
    """What the streams, and what it takes to send them, may take of the server."""
    redis_needed_bytes: int = 0
    """What the streams of the start need to hold all rows they may."""
    redis_publish: bool = False
    live_flush_interval_s: float = 0.0
    """So often rows that keep coming are handed to sinks of live rows."""
    redis_answer_within_s: float = 2.0
    redis_key_template: str = "{prefix}:{kind}:{venue}:{symbol}"
    redis_kinds: dict[str, RedisKind] = {}
    status_interval_s: float = 0.5
    knobs: dict[int, Knobs] = {}
    """By slot, where not the defaults; `SetStreamKnobs` replaces them all."""

    def by_database(self) -> "list[WriterSettings]":
        """What concerns each database, the default first."""
        others = [
            msgspec.structs.replace(
                self, database=each.name, database_url=each.url, flush_rows=each.flush_rows,
                flush_interval_s=each.flush_interval_s, max_rows_per_copy=each.max_rows_per_copy,
                bars=each.bars, answer_within_s=each.answer_within_s, databases=[],
            )
            for each in self.databases
        ]  # fmt: skip
        return [self, *others]


class LimitSettings(msgspec.Struct, frozen=True):
    """A budget of a venue that all processes share: `budget` units in any `window_s` seconds."""

    venue: str
    pool: str
    budget: float
    window_s: float


class HeldLimitSettings(msgspec.Struct, frozen=True):
    """What all processes together may hold of a venue at once: sockets, subscriptions."""

    venue: str
    pool: str
    count: int


class HealthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[health]`: where the lights turn yellow and red. What concerns one database is in
    `engine.messages.status.DatabaseThresholds`.
    """

    loop_lag_ms: Thresholds = (500.0, 5000.0)
    """How late the event loop of a shard or of control is, in ms, for more than half of
    `loop_lag_window_s`."""
    loop_lag_window_s: Annotated[float, Meta(ge=0.5, le=600)] = 2.5
    """Seconds that are looked at."""
    memory_free_fraction: Thresholds = (0.08, 0.03)
    """Free memory of the machine, or of what a container may use; worse the less it is."""
    process_memory_mb: Thresholds | None = None
    """What one of the engine's processes holds, in MiB. Absent: whatever it needs."""
    open_files_fraction: Thresholds = (0.8, 0.95)
    """Open files of a process, of those that it may open."""
    cpu_percent: Thresholds = (97.0, 1000.0)
    """Of a CPU that a shard uses, over `cpu_window_s`. A saturated process is late, not broken: red
    is out of reach."""
    cpu_window_s: Annotated[float, Meta(ge=5, le=600)] = 10.0
    """Seconds that are looked at."""
    hold_s: dict[str, Annotated[float, Meta(ge=0, le=3600)]] = {}
    """By light (`runtime`, `db`, `redis`), seconds that it must stay better before it improves.
    Absent: `control.health_hold_s`."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec makes a refusal with the place."""
        check_order(self, falling=("memory_free_fraction",))
        if unknown := self.hold_s.keys() - set(LIGHTS):
            raise ValueError(f"hold_s: {min(unknown)!a} is none of {', '.join(LIGHTS)}")


class ControlSettings(msgspec.Struct, frozen=True):
    """The control process's birth message.

    `listen_fd` is a bound, listening socket inherited from the supervisor: a used port is found
    before anything starts, and a new control process takes over the same port.
    """

    host: str
    port: int
    log: LogSettings
    listen_fd: int = -1
    paths: Paths | None = None
    venues: dict[str, VenueSettings] = {}
    token_file: str | None = None
    read_token_file: str | None = None
    allowed_hosts: list[str] = []
    behind_proxy: bool = False
    admission: Admission = "green"
    health_hold_s: float = 5.0
    health: HealthSettings = HealthSettings()
    instruments_refresh_s: float = 900.0
    metrics_fd: int = -1
    """A second listening socket, for metrics and probes alone; below 0 there is none."""
    metrics_path: str = "/metrics"
    metrics_streams: bool = False
    """Whether single streams have metrics."""
    configured_knobs: Knobs = Knobs()
    """What a stream's flush knobs are when nobody has set them."""
    prices_url: str = ""
    """The default database where it makes bars, for charts; empty where it makes none."""


class FlushSettings(msgspec.Struct, frozen=True):
    """When a database's rows are committed, where no stream's knobs say less."""

    flush_rows: int
    flush_interval_s: float
    max_rows_per_copy: int


class Reconfigure(msgspec.Struct, frozen=True, tag=True):
    """Any child: what of the configuration, which was read again, a running process takes over. It
    looks at what concerns it.
    """

    log: LogSettings
    flushes: dict[str, FlushSettings] = {}
    """By database."""
    configured_knobs: Knobs = Knobs()
    admission: Admission = "green"
    health_hold_s: float = 5.0
    instruments_refresh_s: float = 900.0
