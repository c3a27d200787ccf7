"""What an engine stands on: its directory, its port, its share of the machine, the private servers.

Made before the supervisor and taken down after it. Whatever fails, what was started before it is
taken down in reverse.
"""

import argparse
import contextlib
import logging
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from control.state.memory import memory_bytes
from engine.base import handles
from engine.base.errors import ConfigError
from engine.data.kinds import KINDS
from engine.data.layout import Layout
from engine.database.session import HOUSEKEEPING, session
from engine.messages.status import EngineStatus
from engine.servers.postgres import PrivatePostgres
from engine.servers.server_keeper import ServerKeeper
from engine.servers.valkey import PrivateValkey
from engine.start import preflight
from engine.start.config import LoadedConfig, Secret
from engine.start.redis_memory import RedisPlan, plan_redis
from engine.streams.wanted import Wanted

_log = logging.getLogger(__name__)

_UNREAD_S = 20.0
"""A client that takes nothing for so long is gone, whatever its kernel says."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the command line decided."""

    loaded: LoadedConfig
    run_s: float | None = None
    json: bool = False
    with_database: bool = True
    with_redis: bool = True
    fresh: bool = False
    """Begin with an empty state directory and an empty private database (the demo)."""
    ends_when: Callable[[EngineStatus], bool] = lambda _: False
    """What is no reason to go on."""

    def check(self) -> None:
        """Raises ConfigError for wishes that contradict each other."""
        if self.loaded.config.limits.shared and not self.with_redis:
            raise ConfigError("--no-redis: limits.shared = true needs Redis; choose one of them")

    @classmethod
    def of(
        cls, options: argparse.Namespace, loaded: LoadedConfig, **others: Any
    ) -> "ServiceOptions":
        """From what `control.cli.options.add_service` read."""
        return cls(
            loaded, options.run_s, options.json, not options.no_database, not options.no_redis,
            **others,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ground:
    """What the engine stands on while it runs."""

    options: ServiceOptions
    layout: Layout
    database_url: Secret | None
    redis_url: Secret | None
    servers: list[ServerKeeper] = field(default_factory=list)
    """Those of the two that are our own."""

    @classmethod
    def lay(
        cls, options: ServiceOptions, layout: Layout, plan: RedisPlan, stack: contextlib.ExitStack
    ) -> "Ground":
        """Start the private servers that are needed; the stack ends them."""
        servers: list[ServerKeeper] = []

        def start(server: PrivatePostgres | PrivateValkey) -> Secret:
            url = stack.enter_context(server.running(_log.info))
            servers.append(ServerKeeper(server))
            return Secret(url)

        database_url = redis_url = None
        if options.with_database:
            database_url = None if options.fresh else options.loaded.database_url
            if database_url is None:
                added = options.loaded.config.database.private_settings
                database_url = start(PrivatePostgres(layout.state_dir, layout.instance, added))
                if options.fresh:
                    _empty_database(database_url)
        if options.with_redis:
            if plan.note:
                _log.warning(plan.note)
            redis_url = None if options.fresh else options.loaded.redis_url
            if redis_url is None:
                redis_url = start(
                    PrivateValkey(layout.state_dir, layout.instance, plan.memory_bytes)
                )
        return cls(options, layout, database_url, redis_url, servers)


def bind(host: str, port: int, unread_s: float = _UNREAD_S) -> socket.socket:
    """Take the control port before anything is started; the control child inherits the socket.

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
        raise ConfigError(
            f"control port {port} on {host}: {error.strerror}; choose another with --port N"
            " (0 takes a free one) or [control] port"
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
    handles.demand(handles.needed(len(cpus), len(KINDS), sockets), handles.raise_limit())
    return ring_plan, cpus


def redis_plan(options: ServiceOptions, layout: Layout) -> RedisPlan:
    """For the streams of the file and those that commands have added, as far as they are known."""
    keys = {entry.key for entry in Wanted(layout.wanted).wanted()}
    keys.update([] if options.fresh else options.loaded.stream_keys())
    redis = options.loaded.config.redis
    kinds = [key.kind for key in keys]
    return plan_redis(redis.memory_mb, redis.stream_maxlen, kinds, memory_bytes())


def empty(layout: Layout) -> None:
    """Forget an earlier demo: slots, journal, rings. The private database is emptied apart."""
    for directory in (
        layout.journal_dir, layout.positions_dir, layout.quarantine_dir, layout.shm_dir,
        layout.state_dir / "ledger",
    ):  # fmt: skip
        shutil.rmtree(directory, ignore_errors=True)
    for file in (layout.slots, layout.wanted, layout.limits, layout.log_file):
        file.unlink(missing_ok=True)


def _empty_database(url: Secret) -> None:
    with session(url.reveal(), HOUSEKEEPING) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
