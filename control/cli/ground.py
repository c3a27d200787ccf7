"""What an engine stands on: its directory, its port, its share of the machine, the private servers.

Made before the supervisor and taken down after it. Whatever fails, what was started before it is
taken down in reverse.
"""

import argparse
import contextlib
import logging
import shutil
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from control.state.memory import memory_bytes
from engine.base import handles
from engine.base.errors import ConfigError
from engine.data.kinds import KINDS
from engine.data.layout import Layout
from engine.data.names import DEFAULT_DATABASE, is_database
from engine.database.session import HOUSEKEEPING, session
from engine.messages.status import EngineStatus
from engine.messages.writer import LIVE
from engine.servers.postgres import PrivatePostgres
from engine.servers.private_server import PrivateServer
from engine.servers.server_keeper import ServerKeeper
from engine.servers.valkey import PrivateValkey
from engine.start import preflight
from engine.start.addresses import Secret
from engine.start.config import LoadedConfig
from engine.start.redis_memory import RedisPlan, plan_redis
from engine.streams.wanted import Wanted

_log = logging.getLogger(__name__)

_UNREAD_S = 20.0
"""A client that takes nothing for so long is gone, whatever its kernel says."""
_PRIVATE_DATABASE_BYTES = 512 << 20
"""Its shared buffers, and its sessions."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the command line decided."""

    loaded: LoadedConfig
    run_s: float | None = None
    json: bool = False
    without: frozenset[str] = frozenset()
    """Sinks that are not wanted, by name."""
    fresh: bool = False
    """Begin with an empty state directory and an empty private database (the demo)."""
    restores: bool = True
    """Whether streams of the configuration and of an earlier life begin."""
    ends_when: Callable[[EngineStatus], bool] = lambda _: False
    """What is no reason to go on."""
    renew: Callable[[Any], Awaitable[Any]] | None = None
    """Makes the settings of an upgrade of those of now (`engine.supervisor.upgrade.Renew`); None
    where they stay.
    """

    reload: Callable[..., Callable[[], None]] | None = None
    """Makes of supervisor and settings what reads the configuration again at SIGHUP; None: nothing
    does.
    """

    def check(self) -> None:
        """Raises ConfigError for wishes that contradict each other."""
        if self.loaded.config.limits.shared and "redis" in self.without:
            raise ConfigError("--no-redis: limits.shared = true needs Redis; choose one of them")

    @classmethod
    def of(
        cls, options: argparse.Namespace, loaded: LoadedConfig, **others: Any
    ) -> "ServiceOptions":
        """From what `control.cli.options.add_service` read."""
        names = ("database", *(live.name for live in LIVE))
        without = frozenset(name for name in names if getattr(options, f"no_{name}"))
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
        where, memory = (layout.state_dir, layout.instance), redis_plan(options, layout)
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
                url = Secret(stack.enter_context(private[name].running(say)))
                servers.append(ServerKeeper(private[name]))
            urls[name] = url
        if options.fresh and "database" in urls:
            _empty_database(urls["database"])
        return cls(options, layout, urls, memory, servers)


def bind(
    host: str, port: int, unread_s: float = _UNREAD_S, section: str = "control"
) -> socket.socket:
    """Take a port before anything is started; the control child inherits the socket. `section` is
    where the port is configured.

    The kernel resets a connection whose peer takes no data for `unread_s`. Linux counts an
    acknowledged but closed window as taking none. Raises ConfigError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, round(unread_s * 1000))
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        option_too = "--port N (0 takes a free one) or " if section == "control" else ""
        raise ConfigError(
            f"{section} port {port} on {host}: {error.strerror}; choose another with {option_too}"
            f"[{section}] port"
        ) from error
    return listener


def machine_plan(
    loaded: LoadedConfig, layout: Layout, sockets: int
) -> tuple[preflight.RingPlan, list[int | None]]:
    """Rings that fit into shared memory, and a CPU for each shard. Raises ConfigError where there
    is no room, or where so many WebSockets are more than a process may open.
    """
    allowed = preflight.allowed_cpus()
    chosen = preflight.shard_cpus(loaded.config, loaded.source, allowed)
    # On one CPU everything shares it; pinning would only forbid the kernel to help.
    cpus: list[int | None] = list(chosen) if len(allowed) > 1 else [None for _ in chosen]
    room = preflight.ring_room(layout)
    ring_plan = preflight.plan_rings(loaded.config, loaded.source, len(cpus), *room)
    open_files(len(cpus), sockets)
    return ring_plan, cpus


def check_kept(options: ServiceOptions, layout: Layout) -> None:
    """Raises ConfigError where the state directory has rows that this version cannot read."""
    if not options.fresh:
        preflight.demand_own_rows(layout)


def open_files(shards: int, sockets: int) -> tuple[int, int]:
    """How many files a process may have open, and the most that one of so many shards with so many
    WebSockets needs. Raises ConfigError where that is more.
    """
    counts, limit = handles.needed(shards, len(KINDS), sockets), handles.raise_limit()
    handles.demand(counts, limit)
    return limit, max(counts.values())


def private_bytes(options: ServiceOptions, layout: Layout) -> int:
    """About how much memory servers of our own take when they are full."""
    urls = options.loaded.urls
    database = 0 if DEFAULT_DATABASE in urls else _PRIVATE_DATABASE_BYTES
    return database + (0 if "redis" in urls else redis_plan(options, layout).memory_bytes)


def redis_plan(options: ServiceOptions, layout: Layout) -> RedisPlan:
    """For the streams of the file and those that commands have added, as far as they are known."""
    keys = {entry.key for entry in Wanted(layout.wanted).wanted()}
    keys.update([] if options.fresh else options.loaded.stream_keys())
    redis = options.loaded.config.redis
    kinds = [key.kind for key in keys]
    return plan_redis(redis.memory_mb, redis.stream_maxlen, kinds, memory_bytes(), redis.maxlens)


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
