"""What a running engine becomes when it is upgraded: the settings of now as the configuration on
disk wants them, once the code on disk has passed its trial.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from control.cli.changes.legacy import Legacy
from control.cli.ground import known_kinds, same_server
from engine.base.errors import ConfigError, EngineError
from engine.data.names import StreamKey, is_database
from engine.process.protocol import Language, differences, language
from engine.process.release import OURS, Code
from engine.start import preflight
from engine.start.config import LoadedConfig
from engine.start.file.change import takes_start
from engine.start.file.keys import leaves
from engine.supervisor.spawning import SupervisorSettings
from shards.venues import venue_limits

_TRIAL_S: Final = 120.0
_SHOWN_CHARS: Final = 500


class TrialWish(msgspec.Struct):
    """What is to be tried. It travels on a pipe because of the passwords."""

    arguments: list[str]
    """The engine's command line."""
    urls: dict[str, str] = {}
    """Databases, by their sinks."""


class OnDisk(msgspec.Struct):
    """What the code on disk is."""

    version: str
    language: Language
    code: Code = OURS
    """An older version does not say that, and is refused for its language."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """`reload` reads the configuration anew; `arguments` are the command line it comes from, and
    `streams` what it has collected.
    """

    reload: Callable[[], LoadedConfig]
    streams: Callable[[LoadedConfig], list[StreamKey]]
    arguments: list[str]

    async def __call__(self, settings: SupervisorSettings) -> SupervisorSettings:
        """The settings to go on with. Raises EngineError where the code on disk, the configuration
        or a database is in the way.
        """
        found = await self._try(settings)
        loaded = self.reload()
        if changed := _unchangeable(settings, loaded):
            raise ConfigError(f"{loaded.source}: changed: {', '.join(changed)}; a restart takes it")
        log, streams = loaded.config.log, self.streams(loaded)
        memory = same_server(loaded, settings.layout, settings.urls, settings.memory)
        return replace(
            settings,
            config=loaded.config,
            rings=preflight.grown(
                settings.rings, loaded.config, len(settings.cpus),
                known_kinds(settings.layout, streams), preflight.ring_room(settings.layout)[0],
            ),
            venues=loaded.config.venues,
            log=msgspec.structs.replace(
                settings.log, level=log.level, format=log.format, fold_s=log.fold_s
            ),
            routes=loaded.routes(),
            limits=venue_limits(loaded.config.venues),
            shares_limits=loaded.config.limits.shared,
            memory=memory,
            streams=streams,
            code=found.code,
            forks=None,  # it has the code that it was begun with
        )  # fmt: skip

    async def _try(self, settings: SupervisorSettings) -> OnDisk:
        """Run the trial of the code on disk in a process of its own."""
        urls = {
            name: (settings.owner_urls.get(name) or url).reveal()
            for name, url in settings.urls.items()
            if is_database(name)
        }
        python = _python()
        process = await asyncio.create_subprocess_exec(
            python, "-P", "-m", "control.cli.changes.trial",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=OURS.environment() if python == OURS.python else None,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_TRIAL_S):
                said, complaint = await process.communicate(
                    msgspec.json.encode(TrialWish(self.arguments, urls))
                )
        except TimeoutError:
            raise EngineError(f"its trial took longer than {_TRIAL_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
            raise EngineError(f"what is on disk cannot run: {last[0][:_SHOWN_CHARS]}")
        found = msgspec.json.decode(said, type=OnDisk)
        if unknown := differences(language(Legacy), found.language):
            raise EngineError(
                f"version {found.version} on disk means something else by {', '.join(unknown[:5])}:"
                " restart the engine, which declares what it misses meanwhile"
            )
        return found


def _python() -> str:
    """The interpreter of what is on disk where the command is that has started this engine: that
    may lead to another release by now. A command that an environment has brought (`bin/fts`) is
    beside its interpreter; a module runs with ours.
    """
    command = Path(sys.argv[0])
    beside = command.resolve().with_name("python")
    is_command = command.is_file() and command.suffix != ".py"
    return str(beside) if is_command and os.access(beside, os.X_OK) else OURS.python


def _unchangeable(settings: SupervisorSettings, loaded: LoadedConfig) -> list[str]:
    """Keys that differ, and that only a start takes on."""
    before, after = leaves(settings.config), leaves(loaded.config)
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    moved = [n for n, url in loaded.urls.items() if n in settings.urls and settings.urls[n] != url]
    others = [f"the address of the {name}" for name in moved]
    return [*(key for key in changed if takes_start(key)), *others]
