"""Replaces the processes of a running engine by others of the code and configuration on disk.

    trial    the code on disk is tried out, and the configuration is read: nothing is touched
    shards   a second process beside each; streams pass without a hole
    writer   killed: rings and journal stay, and the next one goes on where the cursors stand
    upkeep   killed: what it was doing is finished by its next life
    control  drained: its socket is the supervisor's, so requests wait
    supervisor  becomes the program on disk: it executes it, with all children its own

What fails before the first stream has passed changes nothing. Where the last step cannot be, the
supervisor goes on with the code that it was started with, and says why.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from engine.base.clock import wall_ns
from engine.base.errors import EngineError
from engine.data.names import StreamKey
from engine.messages.pipes import Drain
from engine.messages.status import UpgradeReport
from engine.process.child_keeper import ChildKeeper
from engine.supervisor.estate import Estate, UpgradeEstate
from engine.supervisor.shards import Shards, remove_rings
from engine.supervisor.spawning import SupervisorSettings
from engine.supervisor.writer_child import WriterChild

_log = logging.getLogger(__name__)

Renew = Callable[[SupervisorSettings], Awaitable[SupervisorSettings]]
"""Tries out the code on disk, reads the configuration, and returns the settings of now as it wants
them. Raises EngineError where they cannot be."""


HandOver = Callable[[SupervisorSettings, Callable[[], Estate]], Awaitable[None]]
"""Has this process execute the program on disk, which goes on from the estate as it is then: it
does not return. Raises EngineError where that cannot be; nothing has changed then."""


async def as_they_are(settings: SupervisorSettings) -> SupervisorSettings:
    """The same code, the same configuration."""
    return settings


class Upgrade:
    """One engine's, one at a time."""

    def __init__(
        self,
        shards: Shards,
        writer: WriterChild,
        control: ChildKeeper,
        upkeep: list[ChildKeeper],
        renew: Renew,
        hand_over: HandOver | None = None,
    ) -> None:
        self._shards = shards
        self._writer = writer
        self._control = control
        self._upkeep = upkeep
        self._renew = renew
        self._hand_over = hand_over
        self.report: UpgradeReport | None = None
        self.counts: Counter[str] = Counter()

    @property
    def is_running(self) -> bool:
        """Whether one goes on."""
        return self.report is not None and self.report.state == "running"

    def begin(
        self,
        settings: SupervisorSettings,
        adopt: Callable[[SupervisorSettings], None],
        reseed: Callable[[list[StreamKey]], None],
        estate: Callable[[], Estate],
    ) -> Coroutine[Any, Any, None]:
        """What is to be run; the report says how it goes. `adopt` makes settings those of now,
        `reseed` begins and ends streams as they are configured, and `estate` is what the program
        that goes on must know.
        """
        self.report = UpgradeReport(started_ns=wall_ns())
        return self._run(settings, adopt, reseed, estate, self.report)

    def estate(self) -> UpgradeEstate:
        """What `inherit` takes."""
        return UpgradeEstate(self.report, dict(self.counts))

    def inherit(self, estate: UpgradeEstate, why_not: str) -> None:
        """This program is what the last upgrade has led to, or what it has come back to because
        the other could not go on (`why_not`).
        """
        self.report, self.counts = estate.report, Counter(estate.counts)
        if self.report is not None and self.is_running:
            self._ended(self.report, why_not)

    async def _run(
        self,
        settings: SupervisorSettings,
        adopt: Callable[[SupervisorSettings], None],
        reseed: Callable[[list[StreamKey]], None],
        estate: Callable[[], Estate],
        report: UpgradeReport,
    ) -> None:
        _log.info("upgrade: trial of what is on disk")
        why_not = "the engine ended"
        try:
            renewed = await self._renew(settings)
            await self._replace(settings, renewed, adopt, report)
            reseed(renewed.streams)
            if self._hand_over is not None:
                self._say(report, "supervisor")
                await self._hand_over(renewed, estate)
            why_not = ""
        except EngineError as error:
            why_not = str(error)
        except Exception as error:  # noqa: BLE001 - a bug here must not end an engine that collects
            why_not = repr(error)
            _log.exception(f"upgrade: failed at {report.step}")
        finally:
            self._ended(report, why_not)

    def _ended(self, report: UpgradeReport, why_not: str) -> None:
        if why_not:
            report.state, report.reason = "failed", why_not
            _log.error(f"upgrade: failed at {report.step}: {why_not}")
        else:
            report.state = report.step = "done"
            _log.info("upgrade: done")
        report.ended_ns = wall_ns()
        self.counts[report.state] += 1

    async def _replace(
        self,
        settings: SupervisorSettings,
        renewed: SupervisorSettings,
        adopt: Callable[[SupervisorSettings], None],
        report: UpgradeReport,
    ) -> None:
        timing = settings.timing
        adopt(renewed)
        self._shards.begin_passing()
        unseen: list[Path] = []
        try:
            self._say(report, "shards are started")
            await self._writer.want_rings()
            unseen = self._shards.make_rings()
            for index in range(len(self._shards)):
                await self._shards.bear(index)
            self._say(report, "writer")
            unseen = []
            await self._writer.renew()
            await self._pass_on(report)
        except Exception:
            adopt(settings)
            await self._end_passing()
            remove_rings(unseen)
            raise
        await self._end_passing()
        for keeper in self._upkeep:
            self._say(report, "upkeep")
            drain_s = timing.upkeep_drain_s
            await keeper.renew(Drain(drain_s), drain_s + timing.grace_s, timing.ready_s)
        self._say(report, "control")
        drain_s = timing.control_drain_s
        await self._control.renew(Drain(drain_s), drain_s + timing.grace_s, timing.ready_s)

    async def _pass_on(self, report: UpgradeReport) -> None:
        report.stream_count = self._shards.stream_count
        passed = 0
        for index in range(len(self._shards)):
            self._say(report, f"streams of shard {index}")

            def progress(over: int, total: int, index: int = index, before: int = passed) -> None:
                report.passed_count = before + over
                if over == total or over % 100 == 0:
                    _log.info(f"upgrade: shard {index}: {over} of {total} streams have passed")

            await self._shards.pass_on(index, progress)
            passed = report.passed_count

    async def _end_passing(self) -> None:
        """Not when the engine ends meanwhile: then all shards are drained alike."""
        await self._shards.end_passing()
        await self._writer.want_rings()

    def _say(self, report: UpgradeReport, step: str) -> None:
        report.step = step
        _log.info(f"upgrade: {step}")
