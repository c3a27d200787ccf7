"""The supervisor: starts the children in order, keeps them alive, takes them down in order.

    start   schema → doorbell → writer → shards with their streams → control → upkeep
    stop    shards (intake ends) and upkeep → writer (commits what there is) → control

It never touches market data: it knows pids, pipes, the stream table and a restart budget.

Invariants
- A shard is started only when the rings of its predecessor are in the journal (`SyncRings`):
  otherwise it would resume from positions that lag behind what was received.
- A slot's instrument is on disk before its shard hears of the stream.
- A database that is away never stops a start; it is migrated when it comes back.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable

from engine.base.clock import monotonic_s
from engine.base.errors import ConfigError, EngineError
from engine.data.names import DEFAULT_DATABASE, is_database
from engine.limits.lease_desk import LeaseDesk
from engine.messages.account import Account, delivered_text
from engine.messages.control import (
    AddStreams,
    CommandResult,
    Heartbeat,
    KeyResult,
    RemoveStreams,
    RenewBook,
    SetKnobs,
    UpgradeEngine,
)
from engine.messages.judgement import GREEN, judge, without_servers, worst
from engine.messages.limits import LeaseRequest, LimitFeedback
from engine.messages.listings import ListingLoaded
from engine.messages.pipes import FromChild, Ready, ToChild
from engine.messages.status import EngineStatus, Judgement, Phase
from engine.messages.streams import StreamState, sum_by_kind
from engine.messages.writer import SinkStatus
from engine.process import metric_files
from engine.process.child_keeper import ChildKeeper
from engine.servers.server_keeper import ServerKeeper
from engine.start.schema_keeper import SchemaKeepers
from engine.streams.running_streams import RunningStreams
from engine.supervisor.command_desk import Command, CommandDesk, refuse
from engine.supervisor.control_feed import ControlFeed
from engine.supervisor.estate import Estate
from engine.supervisor.shards import Shards
from engine.supervisor.spawning import (
    SupervisorSettings,
    Targets,
    Timing,
    reconfigure,
    spawn_control,
)
from engine.supervisor.upgrade import HandOver, Renew, Upgrade, as_they_are
from engine.supervisor.upkeep_child import UpkeepChild
from engine.supervisor.writer_child import WriterChild

__all__ = ["Supervisor", "SupervisorSettings", "Targets", "Timing"]

_log = logging.getLogger(__name__)

_TICK_S = 0.5


class Supervisor:
    """One engine. Call `start`, wait for `failed` or a reason of your own, then `stop`."""

    def __init__(
        self,
        settings: SupervisorSettings,
        migrate: Callable[[str], list[str]] | None = None,
        servers: Iterable[ServerKeeper] = (),
        renew: Renew | None = None,
        hand_over: HandOver | None = None,
    ) -> None:
        self._settings = settings
        self._phase: Phase = "starting"
        self._started_s = monotonic_s()
        self._doorbell_fd = -1
        self._running = RunningStreams.of(
            settings.layout,
            len(settings.cpus),
            settings.config.database.max_rows_per_copy,
            [sink for sink in settings.urls if is_database(sink)],
            settings.config.limits.max_streams,
        )
        self._waits: set[asyncio.Task[None]] = set()
        self._tick_task: asyncio.Task[None] | None = None
        self._servers = list(servers)
        self._schemas = SchemaKeepers({**settings.urls, **settings.owner_urls}, migrate)
        self._leases = LeaseDesk(
            settings.limits,
            settings.layout.limits,
            self._send_to,
            settings.share_limits(),
            goes_on_alone=settings.config.limits.meanwhile == "alone",
        )
        self._writer = WriterChild(
            lambda: self._settings, self._running, lambda: self._shards.rings, self._on_fault
        )
        self._shards = Shards(
            lambda: self._settings, self._running, self._leases, self._writer.sync,
            self._tell_control, self._on_fault,
        )  # fmt: skip
        self._starts = self._shards.starts
        self._desk = CommandDesk(
            self._running, self._starts, self._shards.tell, self._writer.tell, self._when_heard,
            (settings.registry_name, settings.urls.get(DEFAULT_DATABASE)),
        )  # fmt: skip
        self._control = self._make_control()
        self._upkeep = UpkeepChild(lambda: self._settings, self._on_fault)
        self._upgrade = Upgrade(
            self._shards, self._writer, self._control, self._upkeep.keepers,
            renew or as_they_are, hand_over,
        )  # fmt: skip
        self._upgrading: asyncio.Task[None] | None = None
        self._feed = ControlFeed(self._control, self.status)
        self._seen_by_control: Judgement = GREEN
        self.failed: asyncio.Future[EngineError] = asyncio.get_running_loop().create_future()
        """Resolves with the reason when the engine cannot be of any use."""

    async def start(self) -> None:
        """Bring everything up, in order. On failure the caller still calls `stop`."""
        timing = self._settings.timing
        metric_files.begin(self._settings.layout)
        self._keep_servers()
        for task in await self._schemas.first_attempt():
            self._watch("the keeper of the schema", task)
        if not self._schemas.problem_of(DEFAULT_DATABASE):
            await self._desk.mirror.first_attempt()
        try:
            self._running.open(self._settings.streams, restores=self._settings.restores)
        except OSError as error:
            where = self._settings.layout.state_dir
            raise EngineError(f"{where} takes no new stream: {error.strerror}") from error
        self._doorbell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._keep_watch()
        await self._writer.start(self._doorbell_fd)
        await self._shards.start(self._doorbell_fd, timing.ready_s)
        await self._control.start(timing.ready_s)
        self._watch("the start of the upkeep", self._upkeep.start())
        if self._phase == "starting":
            self._phase = "running"

    async def take_over(self, estate: Estate, taken: Callable[[], None], why_not: str = "") -> None:
        """Go on, instead of `start`, with all that another program of this process has left. Until
        `taken` is called nothing has changed, and that program could go on as well. `why_not` says
        why another one has not.
        """
        self._running.inherit(estate.streams, self._settings.streams)
        self._started_s, self._doorbell_fd = estate.started_s, estate.doorbell_fd
        await self._writer.adopt(estate.writer, self._doorbell_fd)
        await self._shards.adopt(estate.shards, self._doorbell_fd)
        await self._control.adopt(estate.control)
        for keeper, left in zip(self._upkeep.keepers, estate.upkeep, strict=True):
            await keeper.adopt(left)
        taken()
        self._phase, self._seen_by_control = "running", estate.seen_by_control
        self._upgrade.inherit(estate.upgrade, why_not)
        self._starts.inherit(estate.starts)
        self._leases.inherit(estate.leases)
        for keeper in (*self._keepers(), *self._upkeep.keepers):
            keeper.listen()
        self._keep_servers()
        self._keep_watch()
        for task in self._schemas.look_again():
            self._watch("the keeper of the schema", task)

    def _keep_servers(self) -> None:
        for keeper in self._servers:
            self._watch(f"the keeper of {keeper.report.name}", keeper.start())

    def _keep_watch(self) -> None:
        self._watch("the mirror of the registry", self._desk.mirror.start())
        self._watch("the sharing of limits", self._leases.start())
        self._tick_task = asyncio.create_task(self._tick(), name="tick")
        self._watch("the watch over the children", self._tick_task)

    def estate(self) -> Estate:
        """What `take_over` takes, as of now. Raises EngineError while something goes on that only
        this program can finish.
        """
        if self._phase != "running":
            raise EngineError(f"the engine is {self._phase}")
        if self._waits - {self._upgrading} or not self._feed.is_idle:
            raise EngineError("commands are being obeyed")
        return Estate(
            started_s=self._started_s,
            doorbell_fd=self._doorbell_fd,
            streams=self._running.estate(),
            starts=self._starts.estate(),
            leases=self._leases.estate(),
            shards=self._shards.estate(),
            writer=self._writer.estate(),
            control=self._control.estate(),
            seen_by_control=self._seen_by_control,
            upkeep=[keeper.estate() for keeper in self._upkeep.keepers],
            servers=[keeper.estate() for keeper in self._servers],
            upgrade=self._upgrade.estate(),
        )

    async def stop(self) -> bool:
        """Take everything down, in order; True when all accepted rows are where they belong."""
        timing = self._settings.timing
        self._phase = "draining"
        for task in self._waits:
            task.cancel()
        self._feed.tell_status()  # what watches the engine learns it before the end
        await asyncio.gather(*(keeper.close() for keeper in self._servers))
        await asyncio.gather(
            self._upkeep.leave(timing.grace_s),
            self._shards.leave(timing.shard_drain_s, timing.grace_s),
        )
        code, _ = await asyncio.gather(
            self._writer.keeper.leave(timing.writer_drain_s, timing.grace_s),
            self._control.leave(timing.control_drain_s, timing.grace_s),
        )
        self._phase = "stopped"
        await asyncio.gather(self._schemas.close(), self._desk.mirror.close(), self._leases.close())
        if self._tick_task is not None:
            self._tick_task.cancel()
            await asyncio.gather(self._tick_task, return_exceptions=True)
        if self._doorbell_fd >= 0:
            os.close(self._doorbell_fd)
            self._doorbell_fd = -1
        metric_files.end(self._settings.layout)
        return self._report_delivery(code)

    def kill(self) -> None:
        """SIGKILL every child. Rings and journal stay, and the next start delivers them."""
        for keeper in (*self._keepers(), *self._upkeep.keepers):
            keeper.kill()

    def reload(self, settings: SupervisorSettings) -> tuple[int, int]:
        """Go on with settings that differ only in what a running engine takes over; return how many
        streams began and ended. Raises EngineError, and then nothing has changed.
        """
        if self._phase != "running":
            raise EngineError(f"the engine is {self._phase}")
        if self._upgrade.is_running:
            raise EngineError("the engine is being upgraded, and takes all of it over")
        most_rows = settings.config.database.max_rows_per_copy
        changed = self._desk.configure(settings.streams, most_rows)
        self._settings = settings
        for keeper in (*self._keepers(), *self._upkeep.keepers):
            keeper.send(reconfigure(settings))
        return changed

    @property
    def settings(self) -> SupervisorSettings:
        """Those in force."""
        return self._settings

    def status(self) -> EngineStatus:
        """The whole engine, now."""
        servers = [keeper.report for keeper in self._servers]
        writer = without_servers(self._writer.totals.report, servers)
        streams = self._running.reports()
        children = [*self._shards.present_keepers, self._writer.keeper, self._control]
        missed = [keeper.report for keeper in children if not keeper.is_renewed]
        light, reason = judge(self._phase, missed, writer, streams)
        if light == "green" and self._schemas.problem:
            light, reason = "red", self._schemas.problem
        if light != "red" and self._starts.facts.problem:
            light, reason = "red", f"streams cannot begin: {self._starts.facts.problem}"
        if self._leases.problem and light != "red":
            light, reason = "yellow", f"limits cannot be shared: {self._leases.problem}"
        if light == "green" and (refusal := self._leases.refusal):
            light, reason = "yellow", refusal
        if self._phase == "running":
            light, reason = worst([(light, reason), self._upkeep.judgement])
        if self._phase == "running" and self._control.report.state == "up":
            light, reason = worst([(light, reason), self._seen_by_control])
        return EngineStatus(
            status=light,
            reason=reason,
            phase=self._phase,
            instance=self._settings.layout.instance,
            uptime_s=round(monotonic_s() - self._started_s, 3),
            shards=self._shards.reports,
            writer=writer,
            control=self._control.report,
            streams=streams,
            limiters=self._leases.reports(),
            counts_by_kind=sum_by_kind(each.totals.by_kind for each in self._shards),
            counts_are_least=any(each.totals.are_least for each in self._shards),
            servers=servers,
            upkeep=self._upkeep.databases,
            upkeep_child=next((keeper.report for keeper in self._upkeep.keepers), None),
            upgrade=self._upgrade.report,
            upgrades=dict(self._upgrade.counts),
            release=self._settings.release,
        )

    # -- making children ---------------------------------------------------------------------

    def _make_control(self) -> ChildKeeper:
        return ChildKeeper(
            name="control",
            spawn=lambda: spawn_control(self._settings),
            on_message=self._on_control_message,
            on_death=self._on_control_death,
            on_fault=self._on_fault,
            hung_after_s=self._settings.timing.hung_after_s,
        )

    # -- what children say -------------------------------------------------------------------

    def _on_control_death(self, reason: str) -> None:
        self._starts.facts.control_ended(reason)
        metric_files.child_ended(self._settings.layout, self._control.name)
        self._seen_by_control = GREEN
        self._feed.control_ended()
        self._leases.client_ended(self._control.name)

    # -- commands ----------------------------------------------------------------------------

    def _on_control_message(self, message: FromChild) -> None:
        match message:
            case Ready():
                self._feed.tell_status()
            case Heartbeat():  # a member notes whenever its child speaks
                self._seen_by_control = (message.light, message.reason)
                if message.listings is not None:
                    self._starts.facts.heard(message.listings)
            case AddStreams() | RemoveStreams() | SetKnobs() | RenewBook():
                self._feed.answer(CommandResult(message.request_id, self._obey(message)))
            case UpgradeEngine():
                why_not = self.upgrade()
                self._feed.answer(CommandResult(message.request_id, [], why_not))
            case ListingLoaded():
                self._starts.listed(message)
                self._writer.take_listing(message)
            case LeaseRequest():
                self._leases.ask(self._control.name, message)
            case LimitFeedback():
                self._leases.feedback(message)
            case _:
                _log.error(f"control sent {type(message).__name__}: ignored")

    def _obey(self, command: Command) -> list[KeyResult]:
        if self._phase not in ("starting", "running"):
            return refuse(command, f"the engine is {self._phase}")
        return self._desk.obey(command)

    def _tell_control(self, message: ToChild) -> None:
        if self._control.ready.is_set():
            self._control.send(message)

    def _when_heard(self, then: Callable[[], None]) -> None:
        """Once the writer has obeyed what it was told so far, whichever life it is in."""

        async def wait() -> None:
            await self._writer.sync([], "streams that another database has now")
            then()

        task = asyncio.create_task(wait(), name="moved streams")
        self._waits.add(task)
        task.add_done_callback(self._waits.discard)
        self._watch(task.get_name(), task)

    def upgrade(self) -> str:
        """Begin to replace the processes by those of the code and configuration on disk; the status
        says how it goes. Returns why that cannot be begun, or nothing.
        """
        if self._phase != "running":
            return f"the engine is {self._phase}"
        if self._upgrade.is_running:
            return "the engine is being upgraded"
        work = self._upgrade.begin(self._settings, self._adopt, self._desk.reseed, self.estate)
        task = self._upgrading = asyncio.create_task(work, name="upgrade")
        self._waits.add(task)
        task.add_done_callback(self._waits.discard)
        self._watch(task.get_name(), task)
        return ""

    def _adopt(self, settings: SupervisorSettings) -> None:
        self._settings = settings

    # -- watching ----------------------------------------------------------------------------

    async def _tick(self) -> None:
        before_s = monotonic_s()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = monotonic_s()
            # After a suspend every child looks silent; nobody is hung until we have listened.
            overslept = now_s - before_s > 4 * _TICK_S
            before_s = now_s
            for keeper in (*self._keepers(), *self._upkeep.keepers):
                if overslept:
                    keeper.excuse(now_s)
                else:
                    keeper.check_hung(now_s)
            self._starts.tick(now_s)
            self._upkeep.heed(self._writer.totals.report)
            self._feed.tell_status()
            self._check_usable()

    def _watch(self, name: str, task: "asyncio.Task[None] | None") -> None:
        """A task that fails is to be seen now, not when it is awaited at the end."""

        def look(ended: "asyncio.Task[None]") -> None:
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self._on_fault(name, error)

        if task is not None:
            task.add_done_callback(look)

    def _on_fault(self, name: str, error: BaseException) -> None:
        """A bug, and nobody looks after this part any more: end in order, to be started clean."""
        _log.error(f"{name} failed", exc_info=error)
        if not self.failed.done():
            self.failed.set_result(EngineError(f"{name} failed: {error!r} (see the log)"))

    def _check_usable(self) -> None:
        """Give up when the venues refused every stream from the first: only a new configuration
        can help. Symbols that were listed once may be listed again, and then begin by themselves.
        """
        reports = self._running.reports()
        if not reports or self.failed.done() or self._phase not in ("starting", "running"):
            return
        if self._running.was_commanded:
            return  # whoever added or removed streams can do so again
        if all(
            report.state is StreamState.FAILED
            and self._running.slots.instrument(report.venue, report.symbol) is None
            for report in reports
        ):
            reasons = dict.fromkeys(
                f"{report.venue}/{report.symbol}: {report.reason}" for report in reports
            )
            self.failed.set_result(ConfigError("no stream is usable: " + "; ".join(reasons)))

    def _send_to(self, client: str, message: ToChild) -> None:
        """Send to a child by its name."""
        for keeper in self._keepers():
            if keeper.name == client:
                keeper.send(message)

    def _keepers(self) -> list[ChildKeeper]:
        return [*self._shards.keepers, self._writer.keeper, self._control]

    def _report_delivery(self, writer_code: int | None) -> bool:
        writer = self._writer.totals.report
        if DEFAULT_DATABASE not in self._settings.urls:
            return True
        if writer_code == 0 and not any(each.backlog_rows for each in writer.databases):
            status = self.status()
            for each in writer.databases:
                _log.info(delivered_text(Account.total(status.accounts(each.name)), each.name))
            return True
        layout = self._settings.layout
        peril = " (a reboot empties that)" if writer.journal_error else ""
        with contextlib.suppress(OSError):
            for each in _behind(writer.databases):
                rest = f"{each.backlog_rows:,} rows" if each.backlog_rows else "the rest"
                why = f" ({each.error})" if each.error else ""
                name = "the database" if each.name == DEFAULT_DATABASE else each.name
                _log.warning(
                    f"{name} has not taken everything{why}: {rest} wait in {layout.journal_dir}"
                    f" and {layout.shm_dir}{peril};"
                    " the next start on this state directory delivers them"
                )
        return False


def _behind(databases: list[SinkStatus]) -> list[SinkStatus]:
    """Those with a backlog; where none has told of one, whoever it was that did not finish."""
    return [each for each in databases if each.backlog_rows] or databases[:1]
