"""The upkeep as the supervisor sees it: begun behind everything else, told when the writer is
behind, and missed by nobody while it is away.
"""

import asyncio
import logging
from collections.abc import Callable

from engine.base.backoff import Backoff
from engine.base.clock import wall_ns
from engine.base.errors import ChildStartError
from engine.base.tasks import cancel
from engine.messages.judgement import GREEN, is_behind, judge_upkeep
from engine.messages.pipes import FromChild, Ready
from engine.messages.status import Judgement, WriterReport
from engine.messages.upkeep import DatabaseReport, PauseUpkeep, UpkeepStatus
from engine.process import metric_files
from engine.process.child_keeper import ChildKeeper
from engine.supervisor.spawning import SupervisorSettings, spawn_upkeep

_log = logging.getLogger(__name__)


class UpkeepChild:
    """Use it inside one event loop. Where there is no database it is nothing."""

    def __init__(
        self,
        settings: Callable[[], SupervisorSettings],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        """`settings` are those of now."""
        self._settings = settings
        self._on_fault = on_fault
        self._backoff = Backoff(1.0, 60.0)
        self._starting: asyncio.Task[None] | None = None
        self._behind: dict[str, bool] = {}
        self.keepers: list[ChildKeeper] = []
        """One, where there is a database."""
        self.databases: list[DatabaseReport] = []
        """What it said last."""
        if "database" in settings().urls:
            self.keepers.append(self._make())

    @property
    def judgement(self) -> Judgement:
        """How the databases are looked after."""
        if not self.keepers or self.keepers[0].is_renewed:
            return GREEN
        return judge_upkeep(self.keepers[0].report, self.databases, wall_ns())

    def start(self) -> "asyncio.Task[None] | None":
        """Begin; nobody waits for it. The task to watch is returned."""
        if self.keepers:
            self._starting = asyncio.create_task(self._start(), name="upkeep-start")
        return self._starting

    def heed(self, writer: WriterReport) -> None:
        """Have it pause while the writer is behind, and go on afterwards."""
        if not self.keepers or not self.keepers[0].ready.is_set():
            return
        for name in [each.name for each in writer.databases]:
            behind = is_behind(writer, name)
            if self._behind.get(name) is not behind:
                self._behind[name] = behind
                self.keepers[0].send(PauseUpkeep(name, behind))

    async def leave(self, grace_s: float) -> None:
        """End it: at once, for what it was doing is finished by its next life."""
        await cancel(self._starting)
        for keeper in self.keepers:
            await keeper.leave(self._settings().timing.upkeep_drain_s, grace_s)

    def _make(self) -> ChildKeeper:
        return ChildKeeper(
            name="upkeep",
            spawn=lambda: spawn_upkeep(self._settings()),
            on_message=self._on_message,
            on_death=self._on_death,
            on_fault=self._on_fault,
            hung_after_s=self._settings().timing.hung_after_s,
        )

    async def _start(self) -> None:
        """A first life that never got ready ends no engine: it is tried again."""
        while True:
            try:
                await self.keepers[0].start(self._settings().timing.ready_s)
                return
            except ChildStartError as error:
                delay_s = self._backoff.next_s()
                _log.error(f"{error}; tried again in {delay_s:.0f} s")
                await asyncio.sleep(delay_s)
                before, self.keepers[0] = self.keepers[0].report, self._make()
                self.keepers[0].report.restart_count = before.restart_count + 1

    def _on_message(self, message: FromChild) -> None:
        match message:
            case Ready():
                self._behind.clear()
            case UpkeepStatus():
                self.databases = message.databases
            case _:
                _log.error(f"upkeep sent {type(message).__name__}: ignored")

    def _on_death(self, reason: str) -> None:
        del reason
        metric_files.child_ended(self._settings().layout, "upkeep")
