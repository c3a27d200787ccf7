"""Has the first process of an engine become the program on disk, once all its children run that."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from control.cli.changes.legacy import SUCCESSOR, Legacy
from engine.base.clock import monotonic_s
from engine.base.errors import EngineError
from engine.process.forks.server import ForkServer
from engine.process.instance import Locks
from engine.process.release import Code
from engine.start.config import LoadedConfig
from engine.supervisor.estate import Estate
from engine.supervisor.spawning import SupervisorSettings

_QUIET_S: Final = 60.0
_LOOK_S: Final = 0.02
_CHECK_S: Final = 60.0
_SHOWN_CHARS: Final = 500


@dataclass(slots=True)
class Parting:
    """Of one engine (`engine.supervisor.upgrade.HandOver`)."""

    loaded: LoadedConfig
    locks: Locks
    forks: ForkServer
    ends_s: float | None = None
    """When its time is up, on the monotonic clock."""

    def begin(self, run_s: float | None, legacy: Legacy | None) -> float | None:
        """The engine is ready, or goes on. Returns how long it has, of `run_s` seconds in all."""
        now_s = monotonic_s()
        self.ends_s = None if run_s is None else now_s + run_s
        if legacy is not None:
            self.ends_s = legacy.ends_s
        return None if self.ends_s is None else max(self.ends_s - now_s, 0.0)

    async def __call__(self, settings: SupervisorSettings, estate: Callable[[], Estate]) -> None:
        """Try whether the program on disk understands what it is left, then become it."""
        await _check(await self._legacy(settings, estate), settings.code)
        legacy = await self._legacy(settings, estate)  # no turn of the loop after this
        self.forks.close()  # the next program knows nothing of it
        legacy.become(settings.code)

    async def _legacy(self, settings: SupervisorSettings, estate: Callable[[], Estate]) -> Legacy:
        """As of an instant at which nothing is half done."""
        ends_s = monotonic_s() + _QUIET_S
        while True:
            try:
                return Legacy.of(settings, self.loaded, estate(), self.locks, self.ends_s)
            except EngineError as error:
                if monotonic_s() > ends_s:
                    raise EngineError(
                        f"the supervisor keeps its code until a restart: {error}"
                    ) from None
            await asyncio.sleep(_LOOK_S)


async def _check(legacy: Legacy, code: Code) -> None:
    """Raises EngineError where the program on disk would not understand it."""
    process = await asyncio.create_subprocess_exec(
        code.python, "-P", "-m", SUCCESSOR, "check",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env=code.environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(_CHECK_S):
            _, complaint = await process.communicate(msgspec.json.encode(legacy))
    except TimeoutError:
        raise EngineError(f"its check took longer than {_CHECK_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        why = last[0][:_SHOWN_CHARS]
        raise EngineError(f"the supervisor keeps its code until a restart: {why}")
