"""What a new reading of the configuration changes in an engine that runs, and what only at its next
start. Nothing is restarted for it.
"""

from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgspec

from engine.messages.writer import LIVE
from engine.start.config import Config, LoadedConfig, check_rules
from engine.start.file.keys import leaves

LIVE_LOG: Final = ("level", "format", "fold_s")
LIVE_CONTROL: Final = ("admission", "health_hold_s", "instruments_refresh_s")
LIVE_DATABASE: Final = ("flush_rows", "flush_interval_ms", "max_rows_per_copy")
"""Keys of a section that a running engine takes over; it does so with `streams`, too."""

_AT_START: Final = (
    "state_dir", "shards", "control.host", "control.port", "metrics.host", "metrics.port"
)  # fmt: skip
_AT_START_OF_A_SERVER: Final = (
    "url", "url_file", "owner", "schema", "registry_name", "private_settings", "memory_mb"
)  # fmt: skip
"""What an engine stands on while it runs: its directory, ports, rings and servers, and what it is
called there.
"""
_SERVERS: Final = ("database", *(sink.name for sink in LIVE))

_Section = TypeVar("_Section", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A reading beside what an engine runs with."""

    loaded: LoadedConfig
    """What it runs with from now on."""
    now: list[str]
    """Keys that have changed in it."""
    later: list[str]
    """Keys that change at the next start."""


def changed(running: LoadedConfig, read: LoadedConfig) -> ConfigChange:
    """What of `read` is taken over. Raises ConfigError where that does not go with the rest."""
    before, wanted = running.config, read.config
    config = msgspec.structs.replace(
        before,
        log=_taking(before.log, wanted.log, LIVE_LOG),
        control=_taking(before.control, wanted.control, LIVE_CONTROL),
        database=_taking(before.database, wanted.database, LIVE_DATABASE),
        databases={
            name: _taking(each, wanted.databases.get(name, each), LIVE_DATABASE)
            for name, each in before.databases.items()
        },
        streams=wanted.streams,
    )
    check_rules(config, read.source)
    old, then, new = leaves(before), leaves(config), leaves(wanted)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    waiting = [key for key in keys if then.get(key) != new.get(key)]
    later = list(dict.fromkeys(_entry(key, before, wanted) for key in waiting))
    later += [f"the address of {name}" for name in _moved(running, read, later)]
    if running.state_dir != read.state_dir and "state_dir" not in later:
        later.append("state_dir")
    return ConfigChange(
        replace(running, config=config), [key for key in keys if key not in waiting], later
    )


def takes_start(key: str) -> bool:
    """Whether another value of a key, or of what `ConfigChange.later` names, needs a start. All
    others `fts upgrade` takes on, with processes that are born with them.
    """
    path = key.split(".")
    if path[0] == "databases" and len(path) > 2:
        path = ["database", *path[2:]]
    if path[0] == "databases" or " " in key:  # a whole one is new or gone, or is elsewhere
        return True
    if path[0] in _SERVERS:
        return path[1] in _AT_START_OF_A_SERVER
    return path[0] in _AT_START or key in _AT_START


def _taking(before: _Section, wanted: _Section, keys: tuple[str, ...]) -> _Section:
    return msgspec.structs.replace(before, **{key: getattr(wanted, key) for key in keys})


def _entry(key: str, before: Config, wanted: Config) -> str:
    """The key, or the whole entry where that is new or gone."""
    for section in ("databases", "venues"):
        for name in getattr(before, section).keys() ^ getattr(wanted, section).keys():
            if key.startswith(f"{section}.{name}.") or key in (section, f"{section}.{name}"):
                return f"{section}.{name}"
    return key


def _moved(running: LoadedConfig, read: LoadedConfig, later: list[str]) -> list[str]:
    """Servers whose address is another one, where no key says so: it is in a file of its own."""
    before = {**running.urls, **{f"{n}.owner": url for n, url in running.owner_urls.items()}}
    after = {**read.urls, **{f"{n}.owner": url for n, url in read.owner_urls.items()}}
    moved = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [name for name in moved if not {name, f"{name}.url", f"{name}.url_file"} & set(later)]
