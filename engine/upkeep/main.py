"""The upkeep process: a thread for each database, and a loop that hears and tells. Entry: `run`.

It is nicer than the others, and whatever it waits for, nobody waits for it: at the end its threads
are left where they are, and their sessions end with the process.
"""

import asyncio
import logging
import os
import resource
from collections.abc import Callable, Sequence
from typing import Final

from engine.base.clock import monotonic_s
from engine.base.tasks import cancel, in_thread
from engine.messages.pipes import Drain, ToChild
from engine.messages.settings import Reconfigure
from engine.messages.upkeep import PauseUpkeep, UpkeepSettings, UpkeepStatus
from engine.process import logs
from engine.process.birth import ready
from engine.process.metrics import ProcessMetrics, UpkeepMetrics
from engine.process.pipe import Pipe
from engine.process.usage import resident_bytes
from engine.upkeep.care import Care
from engine.upkeep.task import Task
from engine.upkeep.tasks import TASKS

_log = logging.getLogger(__name__)

_NICENESS: Final = 10
_END_WITHIN_S: Final = 0.2


class Upkeep:
    """Ties the care for each database to one event loop."""

    def __init__(
        self,
        settings: UpkeepSettings,
        pipe: Pipe[ToChild],
        tasks: Sequence[Callable[[], Task]] = TASKS,
    ) -> None:
        self._settings = settings
        self._pipe = pipe
        self._cares = {each.name: Care(each, tasks) for each in settings.databases}
        self._metrics, self._process = UpkeepMetrics(), ProcessMetrics("upkeep")

    async def run(self) -> int:
        """Serve until told to drain, or until the supervisor is gone. Returns the exit code."""
        threads = [
            asyncio.create_task(in_thread(care.run, f"upkeep-{name}"), name=name)
            for name, care in self._cares.items()
        ]
        telling = asyncio.create_task(self._tell(), name="status")
        commands = asyncio.create_task(self._obey(), name="commands")
        self._pipe.send(ready())
        await asyncio.wait([commands, telling, *threads], return_when=asyncio.FIRST_COMPLETED)
        for care in self._cares.values():
            care.stop()
        if threads:
            await asyncio.wait(threads, timeout=_END_WITHIN_S)
        await cancel(commands if not commands.done() else None, telling)
        for ended in (*threads, commands, telling):
            if ended.done() and not ended.cancelled():
                ended.result()
        return 0

    async def _obey(self) -> None:
        while (message := await self._pipe.receive()) is not None:
            match message:
                case PauseUpkeep():
                    if (care := self._cares.get(message.database)) is not None:
                        care.pause(message.paused)
                case Reconfigure():
                    logs.change(message.log)
                case Drain():
                    return
                case _:
                    _log.error(f"the upkeep has no use for a {type(message).__name__}")

    async def _tell(self) -> None:
        interval_s = self._settings.status_interval_s
        while True:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            status = UpkeepStatus(
                databases=[care.report for care in self._cares.values()],
                rss_bytes=resident_bytes(),
                cpu_s=usage.ru_utime + usage.ru_stime,
            )
            self._pipe.send(status)
            self._metrics.feed(status)
            started_s = monotonic_s()
            await asyncio.sleep(interval_s)
            self._process.feed(status.cpu_s, max(monotonic_s() - started_s - interval_s, 0.0))


async def run(settings: UpkeepSettings, pipe: Pipe[ToChild]) -> int:
    """Process entry."""
    os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    return await Upkeep(settings, pipe).run()
