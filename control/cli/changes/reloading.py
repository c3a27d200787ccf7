"""Reads the configuration again while an engine runs (SIGHUP). What can change does, and a line
names what cannot. A file that is wrong changes nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import msgspec

from engine.base.errors import EngineError
from engine.data.names import StreamKey
from engine.process import logs
from engine.start.config import LoadedConfig
from engine.start.file.change import changed
from engine.supervisor.spawning import SupervisorSettings
from engine.supervisor.supervisor import Supervisor

_log = logging.getLogger(__name__)


class Reloading:
    """Of one engine. Call it for each wish to read again."""

    def __init__(
        self,
        read: Callable[[], LoadedConfig],
        streams: Callable[[LoadedConfig], list[StreamKey]],
        loaded: LoadedConfig,
        supervisor: Supervisor,
        settings: SupervisorSettings,
    ) -> None:
        """`streams` are those that a configuration names; `loaded` is the one it runs with."""
        self._supervisor = supervisor
        self._settings = settings
        self._loaded = loaded
        self._read = read
        self._streams = streams

    def __call__(self) -> None:
        """Read, and change what can be changed."""
        try:
            change = changed(self._loaded, self._read())
            written = change.loaded.config.log
            log = msgspec.structs.replace(
                self._settings.log,
                level=written.level,
                format=written.format,
                fold_s=written.fold_s,
            )
            settings = replace(
                self._settings,
                config=change.loaded.config,
                streams=self._streams(change.loaded),
                log=log,
            )
            begun, ended = self._supervisor.reload(settings)
        except EngineError as error:
            _log.error(
                f"the configuration cannot be taken over, nothing changes: {error}",
                extra={"event": "config_refused"},
            )
            return
        self._loaded, self._settings = change.loaded, settings
        logs.change(log)
        for line in change.loaded.no_symbols():
            _log.error(line, extra={"event": "symbol_refused"})
        for key in change.later:
            _log.warning(
                f"{key} changes at the next start",
                extra={"event": "config_waits", "fields": {"key": key}},
            )
        streams = f" ({begun} begun, {ended} ended)" if "streams" in change.now else ""
        what = f"{', '.join(change.now)}{streams}" if change.now else "nothing has changed"
        _log.info(
            f"configuration read again: {what}",
            extra={
                "event": "config_reloaded",
                "fields": {"keys": ",".join(change.now), "begun": begun, "ended": ended},
            },
        )
