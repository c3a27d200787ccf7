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
from engine.start.file.change import changed, takes_start
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
    ) -> None:
        """`streams` are those that a configuration names; `loaded` is the one it began with."""
        self._supervisor = supervisor
        self._loaded = loaded
        self._read = read
        self._streams = streams

    def __call__(self) -> None:
        """Read, and change what can be changed."""
        try:
            before = self._supervisor.settings
            change = changed(self._loaded.with_config(before.config), self._read())
            written = change.loaded.config.log
            log = msgspec.structs.replace(
                before.log,
                level=written.level,
                format=written.format,
                fold_s=written.fold_s,
            )
            settings = replace(
                before,
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
        logs.change(log)
        for line in change.loaded.no_symbols():
            _log.error(line, extra={"event": "symbol_refused"})
        for key in change.later:
            when = "at the next start" if takes_start(key) else "with `fts upgrade`"
            _log.warning(
                f"{key} changes {when}",
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
