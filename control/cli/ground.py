"""What an engine stands on: its directory and the private servers.

Made before the supervisor and taken down after it. Whatever fails, what was started before it is
taken down in reverse.
"""

import argparse
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from control.cli.changes.legacy import Back, Legacy
from control.http.auth import Guard
from control.state.memory import memory_bytes
from engine.base.errors import ConfigError
from engine.data.layout import Layout
from engine.data.names import DEFAULT_DATABASE, StreamKey, StreamKind, is_database
from engine.database.session import HOUSEKEEPING, session
from engine.messages.status import EngineStatus
from engine.messages.writer import LIVE
from engine.servers.postgres import PrivatePostgres
from engine.servers.private_server import PrivateServer
from engine.servers.server_keeper import ServerKeeper
from engine.servers.valkey import PrivateValkey
from engine.start.addresses import Secret
from engine.start.config import LoadedConfig
from engine.start.redis_memory import RedisPlan, plan_redis
from engine.streams.wanted import Wanted

_log = logging.getLogger(__name__)

_SINKS: Final = (DEFAULT_DATABASE, *(live.name for live in LIVE))
_PRIVATE_DATABASE_BYTES = 512 << 20
"""Its shared buffers, and its sessions."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the command line decided."""

    loaded: LoadedConfig
    run_s: float | None = None
    json: bool = False
    without: Set[str] = frozenset()
    """Sinks that are not wanted, by name."""
    fresh: bool = False
    """Begin with an empty state directory and an empty private database (the demo)."""
    rows_s: float = 0.0
    """The rate at which rows will come, where that is known."""
    restores: bool = True
    """Whether streams of the configuration and of an earlier life begin."""
    ends_when: Callable[[EngineStatus], bool] = lambda _: False
    """What is no reason to go on."""
    renew: Callable[[Any], Awaitable[Any]] | None = None
    """Makes the settings of an upgrade of those of now (`engine.supervisor.upgrade.Renew`); None
    where they stay.
    """

    reload: Callable[..., Callable[[], None]] | None = None
    """Makes of the supervisor what reads the configuration again at SIGHUP; None: nothing does."""
    back: Back | None = None
    """To the program before this one, which has left what it had; None: this is the first."""

    @property
    def legacy(self) -> Legacy | None:
        """What that has left."""
        return self.back.legacy if self.back is not None else None

    def check(self) -> None:
        """Raises ConfigError for wishes that contradict each other, and for open token files."""
        control = self.loaded.config.control
        Guard.load(control.token_file, control.read_token_file)
        if self.loaded.config.limits.shared and "redis" in self.without:
            raise ConfigError("--no-redis: limits.shared = true needs Redis; choose one of them")

    @classmethod
    def of(
        cls, options: argparse.Namespace, loaded: LoadedConfig, **others: Any
    ) -> "ServiceOptions":
        """From what `control.cli.options.add_service` read."""
        without = frozenset(name for name in _SINKS if getattr(options, f"no_{name}"))
        return cls(loaded, options.run_s, options.json, without, **others)


@dataclass(frozen=True, slots=True)
class Ground:
    """What the engine stands on while it runs."""

    options: ServiceOptions
    layout: Layout
    urls: Mapping[str, Secret]
    """Where servers are, by the name of their sink."""
    memory: RedisPlan = field(default_factory=RedisPlan)
    servers: list[ServerKeeper] = field(default_factory=list)
    """Those that are our own."""

    @classmethod
    def lay(cls, options: ServiceOptions, layout: Layout, stack: contextlib.ExitStack) -> "Ground":
        """Start the private servers that are needed; the stack ends them."""
        where, legacy = (layout.state_dir, layout.instance), options.legacy
        memory = RedisPlan(**legacy.memory) if legacy is not None else redis_plan(options, layout)
        left = {each.name: each for each in legacy.estate.servers} if legacy is not None else {}
        private: dict[str, PrivateServer] = {
            "database": PrivatePostgres(*where, options.loaded.config.database.private_settings),
            "redis": PrivateValkey(*where, memory.memory_bytes),
        }
        if memory.note and "redis" not in options.without:
            _log.warning(memory.note)
        given = {} if options.fresh else options.loaded.urls
        urls: dict[str, Secret] = {}
        servers: list[ServerKeeper] = []
        if DEFAULT_DATABASE not in options.without:
            urls |= {name: url for name, url in given.items() if is_database(name)}
        for name in [name for name in private if name not in options.without]:
            if (url := given.get(name)) is None:
                say = partial(_log.info, extra={"event": "server_starts"})
                server, estate = private[name], left.get(private[name].name)
                url = Secret(stack.enter_context(server.running(say, estate)))
                count = estate.restart_count if estate is not None else 0
                servers.append(ServerKeeper(server, restart_count=count))
            urls[name] = url
        if options.fresh and "database" in urls:
            _empty_database(urls["database"])
        return cls(options, layout, urls, memory, servers)


def private_bytes(options: ServiceOptions, layout: Layout) -> int:
    """About how much memory servers of our own take when they are full."""
    urls = options.loaded.urls
    database = 0 if DEFAULT_DATABASE in urls else _PRIVATE_DATABASE_BYTES
    return database + (0 if "redis" in urls else redis_plan(options, layout).memory_bytes)


def redis_plan(options: ServiceOptions, layout: Layout) -> RedisPlan:
    """For the streams that are known; a demo's Redis is as large as any."""
    kinds = known_kinds(layout, [] if options.fresh else options.loaded.stream_keys())
    redis = options.loaded.config.redis
    return plan_redis(redis.memory_mb, redis.stream_maxlen, kinds, memory_bytes(), redis.maxlens)


def known_kinds(layout: Layout, configured: Iterable[StreamKey]) -> list[StreamKind]:
    """Of each stream of the file, and of each that commands have added, as far as is known."""
    added = (entry.key for entry in Wanted(layout.wanted, owned=False).wanted())
    return [key.kind for key in {*configured, *added}]


def same_server(
    loaded: LoadedConfig, layout: Layout, urls: Iterable[str], memory: RedisPlan
) -> RedisPlan:
    """The plan for a server that runs with so much memory, of an engine that has these sinks and
    is to go on with this configuration. Raises ConfigError where that is no wish for it.
    """
    options = ServiceOptions(loaded, without={*_SINKS} - {*urls})
    options.check()
    return replace(redis_plan(options, layout), memory_bytes=memory.memory_bytes)


def empty(layout: Layout) -> None:
    """Forget an earlier demo: slots, journal, rings. The private database is emptied apart."""
    for directory in (
        layout.journal_dir, layout.positions_dir, layout.quarantine_dir, layout.shm_dir,
        layout.state_dir / "ledger",
    ):  # fmt: skip
        shutil.rmtree(directory, ignore_errors=True)
    for file in (layout.slots, layout.wanted, layout.limits, layout.routes, layout.log_file):
        file.unlink(missing_ok=True)


def _empty_database(url: Secret) -> None:
    with session(url.reveal(), HOUSEKEEPING) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
