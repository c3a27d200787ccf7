"""What one engine is made of, and how each of its children is born: settings over the pipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from engine.base.redis_link import parse_redis_url
from engine.data.layout import Layout
from engine.data.names import DEFAULT_DATABASE, StreamKey
from engine.data.routes import Route
from engine.limits.lease_desk import Share
from engine.limits.shared_budgets import SharedLimits
from engine.messages.settings import (
    ControlSettings,
    DatabaseSettings,
    FlushSettings,
    HeldLimitSettings,
    LimitSettings,
    LogSettings,
    Paths,
    Reconfigure,
    RingSettings,
    ShardSettings,
    VenueSettings,
    WriterSettings,
)
from engine.messages.streams import Knobs
from engine.messages.upkeep import DatabaseUpkeep, UpkeepSettings
from engine.process.child import Child
from engine.process.forks.server import ForkServer
from engine.process.release import OURS, Code, release
from engine.start.addresses import Secret
from engine.start.config import Config
from engine.start.redis_memory import RedisPlan

_UPKEEP_SAYS_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Targets:
    """What runs in the children, by dotted name: the engine imports neither room."""

    shard: str = "shards.main:run"
    writer: str = "engine.writer.main:run"
    control: str = "control.main:run"
    upkeep: str = "engine.upkeep.main:run"

    @property
    def modules(self) -> list[str]:
        """Where they are."""
        names = (self.shard, self.writer, self.control, self.upkeep)
        return [name.partition(":")[0] for name in names]


@dataclass(frozen=True, slots=True)
class Timing:
    """Every deadline of the supervisor. A stop takes at most the drains and two graces."""

    ready_s: float = 60.0
    writer_ready_s: float = 600.0
    """The writer reads the journal back before it is ready; that may be hours of data."""
    hung_after_s: float = 8.0
    shard_drain_s: float = 2.0
    writer_drain_s: float = 5.0
    control_drain_s: float = 1.0
    upkeep_drain_s: float = 1.0
    grace_s: float = 0.5


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """What one engine is made of. `cpus` has one entry a shard; `streams` is what the
    configuration names.
    """

    layout: Layout
    config: Config
    rings: list[RingSettings]
    cpus: list[int | None]
    streams: list[StreamKey]
    venues: dict[str, VenueSettings]
    log: LogSettings
    listen_fd: int
    port: int
    metrics_fd: int = -1
    """A second listening socket, where metrics have a port of their own."""
    urls: Mapping[str, Secret] = field(default_factory=dict)
    """Where the sinks' servers are, by the sink's name: no more of them are wanted."""
    routes: list[Route] = field(default_factory=list)
    """Which of the databases has which streams."""
    owner_urls: Mapping[str, Secret] = field(default_factory=dict)
    """The databases', for who changes their schemas, where the sinks may not."""
    memory: RedisPlan = field(default_factory=RedisPlan)
    limits: list[LimitSettings | HeldLimitSettings] = field(default_factory=list)
    """The venues' budgets, shared by all processes."""
    shares_limits: bool = False
    """Whether `urls["redis"]` is where engines behind one address share those budgets."""
    restores: bool = True
    """Whether the streams of the configuration and of an earlier life begin."""
    code: Code = OURS
    """What the children are born from."""
    forks: ForkServer | None = None
    """What they are copies of, as long as that has this code."""
    release: str = field(default_factory=release)
    """What the supervisor runs is called."""
    targets: Targets = Targets()
    timing: Timing = Timing()

    @property
    def registry_name(self) -> str:
        """Whose rows of `stream_registry` are ours."""
        return self.config.database.registry_name or self.layout.instance

    def share_limits(self) -> Share | None:
        """How the other engines' spending is seen; None when the budgets are ours alone."""
        if not self.shares_limits:
            return None
        prefix = f"fts:limits:{self.config.limits.group}"
        address = parse_redis_url(self.urls["redis"].reveal())
        deadline_s = self.config.redis.answer_within_s
        return partial(SharedLimits, address, prefix, self.layout.instance, deadline_s=deadline_s)


def fork_server() -> ForkServer:
    """One whose copies can be any child; to be begun before there are threads and event loops."""
    return ForkServer.begin(Targets().modules)


async def spawn_writer(
    settings: SupervisorSettings,
    doorbell_fd: int,
    knobs: dict[int, Knobs],
    rings: list[RingSettings],
) -> Child:
    """The writer, which knows the knobs before it stores its first row."""
    config = settings.config
    urls = {name: url.reveal() for name, url in settings.urls.items()}
    birth = WriterSettings(
        paths=Paths.of(settings.layout),
        rings=rings,
        doorbell_fd=doorbell_fd,
        log=settings.log,
        database_url=urls.get("database"),
        databases=[
            DatabaseSettings(
                name,
                urls[name],
                each.flush_rows,
                each.flush_interval_ms / 1e3,
                each.max_rows_per_copy,
                each.bars,
                each.answer_within_s,
            )
            for name, each in config.all_databases.items()
            if name in urls and name != DEFAULT_DATABASE
        ],
        routes=[route for route in settings.routes if route.database in urls],
        redis_url=urls.get("redis"),
        flush_rows=config.database.flush_rows,
        flush_interval_s=config.database.flush_interval_ms / 1e3,
        max_rows_per_copy=config.database.max_rows_per_copy,
        bars=config.database.bars,
        answer_within_s=config.database.answer_within_s,
        journal_segment_bytes=config.journal.segment_mb << 20,
        journal_max_bytes=config.journal.max_mb << 20,
        journal_sync_interval_s=config.journal.sync_interval_s,
        redis_prefix=config.redis.prefix,
        redis_stream_maxlen=config.redis.stream_maxlen,
        redis_publish=config.redis.publish,
        redis_key_template=config.redis.key_template,
        redis_kinds=config.redis.kinds,
        live_flush_interval_s=config.redis.flush_interval_ms / 1e3,
        redis_answer_within_s=config.redis.answer_within_s,
        redis_memory_bytes=settings.memory.memory_bytes,
        redis_needed_bytes=settings.memory.needed_bytes,
        knobs=knobs,
    )
    return await Child.spawn(
        "writer",
        settings.targets.writer,
        birth,
        pass_fds=[doorbell_fd],
        oom_score_adj=100,
        code=settings.code,
        forks=settings.forks,
    )


async def spawn_shard(
    settings: SupervisorSettings, doorbell_fd: int, index: int, name: str
) -> Child:
    """A shard; its streams follow when it is ready."""
    birth = ShardSettings(
        index=index,
        cpu=settings.cpus[index],
        paths=Paths.of(settings.layout),
        venues=settings.venues,
        doorbell_fd=doorbell_fd,
        log=settings.log,
        shard_count=len(settings.cpus),
        name=name,
    )
    return await Child.spawn(
        name,
        settings.targets.shard,
        birth,
        pass_fds=[doorbell_fd],
        oom_score_adj=300,
        code=settings.code,
        forks=settings.forks,
    )


async def spawn_control(settings: SupervisorSettings) -> Child:
    """The control process, on the socket that is bound already."""
    control = settings.config.control
    birth = ControlSettings(
        host=control.host,
        port=settings.port,
        log=settings.log,
        listen_fd=settings.listen_fd,
        metrics_fd=settings.metrics_fd,
        metrics_path=settings.config.metrics.path,
        metrics_streams=settings.config.metrics.streams,
        paths=Paths.of(settings.layout),
        venues=settings.venues,
        token_file=control.token_file,
        read_token_file=control.read_token_file,
        allowed_hosts=control.allowed_hosts,
        behind_proxy=control.behind_proxy,
        admission=control.admission,
        health_hold_s=control.health_hold_s,
        health=settings.config.health,
        instruments_refresh_s=control.instruments_refresh_s,
        configured_knobs=_configured_knobs(settings),
        prices_url=_prices_url(settings),
    )
    passed = [fd for fd in (settings.listen_fd, settings.metrics_fd) if fd >= 0]
    return await Child.spawn(
        "control",
        settings.targets.control,
        birth,
        pass_fds=passed,
        code=settings.code,
        forks=settings.forks,
    )


def _prices_url(settings: SupervisorSettings) -> str:
    """Where charts find bars. Without them control has no way to a database."""
    url = settings.urls.get(DEFAULT_DATABASE)
    return url.reveal() if url is not None and settings.config.database.bars else ""


async def spawn_upkeep(settings: SupervisorSettings) -> Child:
    """The upkeep of the databases; when memory runs out it goes first."""
    birth = UpkeepSettings(
        paths=Paths.of(settings.layout),
        log=settings.log,
        databases=[
            DatabaseUpkeep(
                name=name,
                url=(settings.owner_urls.get(name) or settings.urls[name]).reveal(),
                keep=database.keep,
                keep_by_venue=database.keep_by_venue,
                bars=database.bars,
                archive=database.archive,
                archive_to=database.archive_to or "",
            )
            for name, database in settings.config.all_databases.items()
            if name in settings.urls
        ],
        status_interval_s=min(_UPKEEP_SAYS_EVERY_S, settings.timing.hung_after_s / 4),
    )
    return await Child.spawn(
        "upkeep",
        settings.targets.upkeep,
        birth,
        oom_score_adj=500,
        code=settings.code,
        forks=settings.forks,
    )


def reconfigure(settings: SupervisorSettings) -> Reconfigure:
    """What children that run take over of other settings."""
    control = settings.config.control
    return Reconfigure(
        log=settings.log,
        flushes={
            name: FlushSettings(
                each.flush_rows, each.flush_interval_ms / 1e3, each.max_rows_per_copy
            )
            for name, each in settings.config.all_databases.items()
        },
        configured_knobs=_configured_knobs(settings),
        admission=control.admission,
        health_hold_s=control.health_hold_s,
        instruments_refresh_s=control.instruments_refresh_s,
    )


def _configured_knobs(settings: SupervisorSettings) -> Knobs:
    database = settings.config.database
    return Knobs(
        flush_rows=database.flush_rows,
        flush_interval_ms=database.flush_interval_ms,
        max_rows_per_copy=database.max_rows_per_copy,
    )
