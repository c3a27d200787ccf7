"""The supervisor: starts the children in order, keeps them alive, takes them down in order.

    start   schema → doorbell → writer → shards with their streams → control
    stop    shards (intake ends) → writer (commits what there is) → control

It never touches market data: it knows pids, pipes, the stream table and a restart budget.

Invariants
- A shard is started only when the rings of its predecessor are in the journal (`SyncRings`):
  otherwise it would resume from positions that lag behind what was received.
- A slot's instrument is on disk before its stream subscribes (`InstrumentsStored`).
- A database that is away never stops a start; it is migrated when it comes back.
"""

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from engine.catalog import Catalog, StreamKey
from engine.child import Child
from engine.clock import monotonic_s
from engine.commands import (
    FromChild,
    InstrumentsResolved,
    InstrumentsStored,
    Ready,
    RingsSynced,
    ShardStatus,
    StartStreams,
    StreamSpec,
    StreamState,
    SyncRings,
    SystemStatus,
    WriterStatus,
)
from engine.config import Config, Secret
from engine.layout import Layout
from engine.member import Member
from engine.placement import spread
from engine.schema import SchemaKeeper
from engine.settings import (
    ControlSettings,
    LogSettings,
    Paths,
    RingSettings,
    ShardSettings,
    VenueSettings,
    WriterSettings,
)
from engine.status import (
    EngineStatus,
    Phase,
    ShardReport,
    StreamTotals,
    WriterTotals,
    judge,
    update_shard,
)

_log = logging.getLogger(__name__)

_TICK_S = 0.5
_SYNC_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Targets:
    """What runs in the children, by dotted name: the engine imports neither room."""

    shard: str = "shards.main:run"
    writer: str = "engine.writer.main:run"
    control: str = "control.main:run"


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
    grace_s: float = 0.5


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """What one engine is made of. `cpus` has one entry a shard."""

    layout: Layout
    config: Config
    rings: list[RingSettings]
    cpus: list[int | None]
    streams: list[StreamKey]
    venues: dict[str, VenueSettings]
    log: LogSettings
    listen_fd: int
    port: int
    database_url: Secret | None = None
    redis_url: Secret | None = None
    targets: Targets = Targets()
    timing: Timing = Timing()


@dataclass(slots=True)
class _Shard:
    member: Member
    report: ShardReport
    streams: list[StreamSpec]
    rings: list[str] = field(default_factory=list)


class Supervisor:
    """One engine. Call `start`, wait for `failed` or a reason of your own, then `stop`."""

    def __init__(
        self, settings: SupervisorSettings, migrate: Callable[[str], list[str]] | None = None
    ) -> None:
        self._settings = settings
        self._phase: Phase = "starting"
        self._started_s = monotonic_s()
        self._doorbell_fd = -1
        self._catalog = Catalog(settings.layout.catalog)
        self._streams: dict[int, StreamTotals] = {}
        self._shards: list[_Shard] = []
        self._writer_totals = WriterTotals()
        self._sync_ids = itertools.count(1)
        self._syncs: dict[int, asyncio.Future[bool]] = {}
        self._tick_task: asyncio.Task[None] | None = None
        self._schema = SchemaKeeper(settings.database_url, migrate)
        self._writer = self._make_writer()
        self._control = self._make_control()
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves with the reason when the engine cannot be of any use."""

    async def start(self) -> None:
        """Bring everything up, in order. On failure the caller still calls `stop`."""
        timing = self._settings.timing
        await self._schema.first_attempt()
        self._doorbell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._tick_task = asyncio.create_task(self._tick(), name="tick")
        await self._writer.start(timing.writer_ready_s)
        specs = [StreamSpec(self._catalog.assign(key).slot, key) for key in self._settings.streams]
        placed = spread(specs, len(self._settings.cpus))
        for index, streams in enumerate(placed):
            self._add_shard(index, streams)
        await asyncio.gather(*(shard.member.start(timing.ready_s) for shard in self._shards))
        await self._control.start(timing.ready_s)
        if self._phase == "starting":
            self._phase = "running"

    async def stop(self) -> bool:
        """Take everything down, in order; True when all accepted rows are where they belong."""
        timing = self._settings.timing
        self._phase = "draining"
        self._send_status()  # what watches the engine learns it before the end
        await asyncio.gather(
            *(shard.member.leave(timing.shard_drain_s, timing.grace_s) for shard in self._shards)
        )
        code, _ = await asyncio.gather(
            self._writer.leave(timing.writer_drain_s, timing.grace_s),
            self._control.leave(timing.control_drain_s, timing.grace_s),
        )
        self._phase = "stopped"
        await self._schema.close()
        if self._tick_task is not None:
            self._tick_task.cancel()
            await asyncio.gather(self._tick_task, return_exceptions=True)
        if self._doorbell_fd >= 0:
            os.close(self._doorbell_fd)
            self._doorbell_fd = -1
        return self._report_delivery(code)

    def kill(self) -> None:
        """SIGKILL every child. Rings and journal stay, and the next start delivers them."""
        for member in self._members():
            member.kill()

    def status(self) -> EngineStatus:
        """The whole engine, now."""
        writer = self._writer_totals.report
        streams = [totals.report for totals in self._streams.values()]
        light, reason = judge(
            self._phase, [member.report for member in self._members()], writer, streams
        )
        if light == "green" and self._schema.problem:
            light, reason = "red", self._schema.problem
        return EngineStatus(
            status=light,
            reason=reason,
            phase=self._phase,
            instance=self._settings.layout.instance,
            uptime_s=round(monotonic_s() - self._started_s, 3),
            shards=[shard.report for shard in self._shards],
            writer=writer,
            control=self._control.report,
            streams=streams,
        )

    # -- making children ---------------------------------------------------------------------

    def _make_writer(self) -> Member:
        member = Member(
            name="writer",
            spawn=self._spawn_writer,
            on_message=self._on_writer_message,
            on_death=self._on_writer_death,
            hung_after_s=self._settings.timing.hung_after_s,
        )
        member.report = self._writer_totals.report.child
        return member

    def _make_control(self) -> Member:
        return Member(
            name="control", spawn=self._spawn_control, on_message=lambda _: self._send_status()
        )

    def _add_shard(self, index: int, streams: list[StreamSpec]) -> None:
        member = Member(
            name=f"shard-{index}",
            spawn=partial(self._spawn_shard, index),
            on_message=partial(self._on_shard_message, index),
            on_death=partial(self._on_shard_death, index),
            before_rebirth=partial(self._sync_rings, index),
            hung_after_s=self._settings.timing.hung_after_s,
        )
        report = ShardReport(member.report, index, self._settings.cpus[index])
        prefix = f"shard-{index}."
        rings = [each.ring for each in self._settings.rings if each.ring.startswith(prefix)]
        self._shards.append(_Shard(member, report, streams, rings))
        for spec in streams:
            self._streams[spec.slot] = StreamTotals(spec.slot, spec.key, index)

    async def _spawn_writer(self) -> Child:
        settings, config = self._settings, self._settings.config
        birth = WriterSettings(
            paths=Paths.of(settings.layout),
            rings=settings.rings,
            doorbell_fd=self._doorbell_fd,
            log=settings.log,
            database_url=_reveal(settings.database_url),
            redis_url=_reveal(settings.redis_url),
            flush_rows=config.database.flush_rows,
            flush_interval_s=config.database.flush_interval_ms / 1e3,
            max_rows_per_copy=config.database.max_rows_per_copy,
            journal_segment_bytes=config.journal.segment_mb << 20,
            journal_sync_interval_s=config.journal.sync_interval_s,
            redis_prefix=config.redis.prefix,
            redis_stream_maxlen=config.redis.stream_maxlen,
            redis_publish=config.redis.publish,
        )
        return await Child.spawn(
            "writer",
            settings.targets.writer,
            birth,
            pass_fds=[self._doorbell_fd],
            oom_score_adj=100,
        )

    async def _spawn_shard(self, index: int) -> Child:
        settings = self._settings
        birth = ShardSettings(
            index=index,
            cpu=settings.cpus[index],
            paths=Paths.of(settings.layout),
            venues=settings.venues,
            doorbell_fd=self._doorbell_fd,
            log=settings.log,
        )
        return await Child.spawn(
            f"shard-{index}",
            settings.targets.shard,
            birth,
            pass_fds=[self._doorbell_fd],
            oom_score_adj=300,
        )

    async def _spawn_control(self) -> Child:
        settings = self._settings
        birth = ControlSettings(
            host=settings.config.control.host,
            port=settings.port,
            log=settings.log,
            listen_fd=settings.listen_fd,
        )
        return await Child.spawn(
            "control", settings.targets.control, birth, pass_fds=[settings.listen_fd]
        )

    # -- what children say -------------------------------------------------------------------

    def _on_shard_message(self, index: int, message: FromChild) -> None:
        shard = self._shards[index]
        match message:
            case Ready():
                shard.member.send(StartStreams(shard.streams))
            case ShardStatus():
                update_shard(shard.report, message)
                for status in message.streams:
                    if (totals := self._streams.get(status.slot)) is not None:
                        totals.update(status)
            case InstrumentsResolved():
                known = [slot for slot in message.instruments if slot in self._streams]
                for slot in known:
                    self._catalog.describe(slot, message.instruments[slot])
                shard.member.send(InstrumentsStored(known))
            case _:
                _log.error(f"{shard.member.name} sent {type(message).__name__}: ignored")

    def _on_shard_death(self, index: int, reason: str) -> None:
        for spec in self._shards[index].streams:
            self._streams[spec.slot].shard_ended(f"shard-{index} {reason}")

    def _on_writer_message(self, message: FromChild) -> None:
        match message:
            case WriterStatus():
                self._writer_totals.update(message)
            case RingsSynced():
                future = self._syncs.pop(message.request_id, None)
                if future is not None and not future.done():
                    future.set_result(True)
            case Ready():
                pass
            case _:
                _log.error(f"writer sent {type(message).__name__}: ignored")

    def _on_writer_death(self, reason: str) -> None:
        del reason
        self._writer_totals.writer_ended()
        for future in self._syncs.values():
            if not future.done():
                future.set_result(False)
        self._syncs.clear()

    async def _sync_rings(self, index: int) -> None:
        """Have the writer journal what a dead shard left in its rings; survive the writer's end."""
        synced = False
        while not synced:
            await self._writer.ready.wait()
            request_id = next(self._sync_ids)
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._syncs[request_id] = future
            self._writer.send(SyncRings(request_id, self._shards[index].rings))
            try:
                async with asyncio.timeout(_SYNC_TIMEOUT_S):
                    synced = await future
            except TimeoutError:
                _log.warning(f"writer has not synced the rings of shard-{index} yet: asked again")
            finally:
                self._syncs.pop(request_id, None)

    # -- watching ----------------------------------------------------------------------------

    async def _tick(self) -> None:
        before_s = monotonic_s()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = monotonic_s()
            # After a suspend every child looks silent; nobody is hung until we have listened.
            overslept = now_s - before_s > 4 * _TICK_S
            before_s = now_s
            for member in self._members():
                if overslept:
                    member.excuse(now_s)
                else:
                    member.check_hung(now_s)
            self._send_status()
            self._check_usable()

    def _send_status(self) -> None:
        if self._control.ready.is_set():
            body = msgspec.json.encode(self.status())
            self._control.send(SystemStatus(msgspec.Raw(body)))

    def _check_usable(self) -> None:
        """Give up when the venues refused every stream: only a new configuration can help."""
        reports = [totals.report for totals in self._streams.values()]
        if not reports or self.failed.done() or self._phase not in ("starting", "running"):
            return
        if all(report.state is StreamState.FAILED for report in reports):
            reasons = dict.fromkeys(
                f"{report.venue}/{report.symbol}: {report.reason}" for report in reports
            )
            self.failed.set_result("no stream is usable: " + "; ".join(reasons))

    def _members(self) -> list[Member]:
        return [*(shard.member for shard in self._shards), self._writer, self._control]

    def _report_delivery(self, writer_code: int | None) -> bool:
        writer = self._writer_totals.report
        if self._settings.database_url is None:
            return True
        if writer_code == 0 and writer.backlog_rows == 0:
            _log.info("all accepted rows are in the database")
            return True
        layout = self._settings.layout
        with contextlib.suppress(OSError):
            rest = f"{writer.backlog_rows:,} rows" if writer.backlog_rows else "the rest"
            why = f" ({writer.database_error})" if writer.database_error else ""
            _log.warning(
                f"the database has not taken everything{why}: {rest} wait in {layout.journal_dir}"
                f" and {layout.shm_dir}; the next start on this state directory delivers them"
            )
        return False


def _reveal(secret: Secret | None) -> str | None:
    return secret.reveal() if secret is not None else None
