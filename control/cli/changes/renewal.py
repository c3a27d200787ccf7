"""What a running engine becomes when it is upgraded: the settings of now as the configuration on
disk wants them, once the code on disk has passed its trial.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from engine.base.errors import ConfigError, EngineError
from engine.data.names import StreamKey, is_database
from engine.process.child import child_environment
from engine.process.protocol import Language, differences, language
from engine.start.config import LoadedConfig
from engine.supervisor.spawning import SupervisorSettings
from shards.venues import venue_limits

_TRIAL_S: Final = 120.0
_SHOWN_CHARS: Final = 500
_RENEWED: Final = {
    "control", "database", "databases", "health", "journal", "log", "share", "streams", "venues"
}  # fmt: skip
"""Sections that are taken over, but for the keys that `_unchangeable` names."""


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
        await self._try(settings)
        loaded = self.reload()
        if changed := _unchangeable(settings, loaded):
            raise ConfigError(f"{loaded.source}: changed: {', '.join(changed)}; a restart takes it")
        log = loaded.config.log
        return replace(
            settings,
            config=loaded.config,
            venues=loaded.config.venues,
            log=msgspec.structs.replace(
                settings.log, level=log.level, format=log.format, fold_s=log.fold_s
            ),
            routes=loaded.routes(),
            streams=self.streams(loaded),
        )

    async def _try(self, settings: SupervisorSettings) -> None:
        """Run the trial of the code on disk in a process of its own."""
        urls = {
            name: (settings.owner_urls.get(name) or url).reveal()
            for name, url in settings.urls.items()
            if is_database(name)
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "control.cli.changes.trial",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=child_environment(),
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
        if unknown := differences(language(), found.language):
            raise EngineError(
                f"version {found.version} on disk means something else by {', '.join(unknown[:5])}:"
                " restart the engine"
            )


def _unchangeable(settings: SupervisorSettings, loaded: LoadedConfig) -> list[str]:
    """Keys that differ from what an engine stands on while it runs: its port, its rings, its
    servers, and what it is called there.
    """
    before, after = settings.config, loaded.config
    parts: list[tuple[str, object, object]] = [
        (name, getattr(before, name), getattr(after, name))
        for name in before.__struct_fields__
        if name not in _RENEWED
    ]
    parts += [
        ("control.host", before.control.host, after.control.host),
        ("control.port", before.control.port, after.control.port),
        ("limits of venues", venue_limits(before.venues), venue_limits(after.venues)),
        ("databases", before.databases.keys(), after.databases.keys()),
        ("database.registry_name", before.database.registry_name, after.database.registry_name),
        (
            "the settings of the private database",
            before.database.private_settings, after.database.private_settings,
        ),
    ]  # fmt: skip
    changed = [name for name, old, new in parts if old != new]
    moved = [n for n, url in loaded.urls.items() if n in settings.urls and settings.urls[n] != url]
    return [*changed, *(f"the address of the {name}" for name in moved)]
