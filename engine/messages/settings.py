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

PollInterval = Annotated[float, Meta(ge=0.1, le=3600)]
SocketPath = Annotated[str, Meta(pattern=r"^(/[\w.-]+)*$", max_length=200)]
SnapshotInterval = Annotated[float, Meta(ge=60, le=604_800)]
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


class VenueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Overrides of a venue's own numbers; an absent value means the venue's default."""

    rest_url: str | None = None
    ws_url: str | None = None
    socket_paths: dict[str, SocketPath] = {}
    """Where a group of the venue's sockets is behind `ws_url`, by the group's name."""
    streams_per_connection: int | None = None
    book_channel: str | None = None
    """Which feed books come from, where the venue has several (its `options` say which)."""
    credentials_file: str | None = None
    """Path of a file with who logs in, `name:secret`, where a venue tells those more. The secret
    stays there: it is read at each login.
    """
    trade_side: str | None = None
    """Whose side a trade's is, where the venue is not clear about it (its `options` say which)."""
    connection_lifetime_s: float | None = None
    stale_after_s: float | None = None
    poll_interval_s: dict[StreamKind, PollInterval] = {}
    """Seconds between two samples of a polled stream, by kind."""
    book_snapshot_interval_s: SnapshotInterval = 3600.0
    """Books that come as changes start anew from a whole one at least so often."""


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
    database: str = DEFAULT_DATABASE
    """The sink that `database_url` and the flush settings are of."""
    databases: list[DatabaseSettings] = []
    """The others."""
    routes: list[Route] = []
    """Whose rows go to which of them."""
    journal_segment_bytes: int = 64 << 20
    journal_sync_interval_s: float = 1.0
    redis_prefix: str = "fts"
    redis_stream_maxlen: int = 10_000
    redis_memory_bytes: int = 256 << 20
    """What the streams, and what it takes to send them, may take of the server."""
    redis_needed_bytes: int = 0
    """What the streams of the start need to hold all rows they may."""
    redis_publish: bool = False
    status_interval_s: float = 0.5
    knobs: dict[int, Knobs] = {}
    """By slot, where not the defaults; `SetStreamKnobs` replaces them all."""

    def by_database(self) -> "list[WriterSettings]":
        """What concerns each database, the default first."""
        others = [
            msgspec.structs.replace(
                self, database=each.name, database_url=each.url, flush_rows=each.flush_rows,
                flush_interval_s=each.flush_interval_s, max_rows_per_copy=each.max_rows_per_copy,
                bars=each.bars, databases=[],
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
    instruments_refresh_s: float = 900.0
    configured_knobs: Knobs = Knobs()
    """What a stream's flush knobs are when nobody has set them."""
