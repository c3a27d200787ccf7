"""Where an engine stands on a machine: its locks, its ports, its rings and CPUs. Taken before
anything is started, or handed on by the program before this one, which had them.
"""

import contextlib
import socket
from dataclasses import dataclass

from control.cli.changes.legacy import Legacy
from control.cli.ground import ServiceOptions, known_kinds
from engine.base import handles
from engine.base.errors import ConfigError
from engine.data.kinds import KINDS
from engine.data.layout import Layout
from engine.data.names import StreamKey
from engine.messages.settings import HeldLimitSettings, LimitSettings, RingSettings
from engine.process import instance
from engine.process.instance import Locks
from engine.start import preflight
from shards.venues import raised_limits, socket_count, venue_limits

_UNREAD_S = 20.0
"""A client that takes nothing for so long is gone, whatever its kernel says."""


@dataclass(frozen=True, slots=True)
class Footing:
    """All of it. `notes` are to be logged."""

    locks: Locks
    listener: socket.socket
    metrics: socket.socket | None
    """A second port, where metrics have one of their own."""
    rings: list[RingSettings]
    cpus: list[int | None]
    limits: list[LimitSettings | HeldLimitSettings]
    notes: list[str]

    @property
    def port(self) -> int:
        """That of the API."""
        return int(self.listener.getsockname()[1])

    @classmethod
    def take(
        cls,
        options: ServiceOptions,
        layout: Layout,
        streams: list[StreamKey],
        stack: contextlib.ExitStack,
    ) -> "Footing":
        """The stack gives it back. Raises EngineError where something is in the way."""
        config, legacy = options.loaded.config, options.legacy
        limits = venue_limits(config.venues)
        if legacy is not None:
            return cls._handed_on(legacy, layout, limits, stack)
        locks = Locks(
            stack.enter_context(instance.hold(layout)),
            stack.enter_context(instance.hold_rings(layout)),
        )
        check_kept(options, layout)
        listener = stack.enter_context(bind(config.control.host, config.control.port))
        metrics, second = config.metrics, None
        if metrics.port is not None:
            second = stack.enter_context(bind(metrics.host, metrics.port, section="metrics"))
        plan, cpus = machine_plan(options, layout, streams)
        notes = [line for line in (plan.note, *raised_limits(config.venues)) if line]
        return cls(locks, listener, second, plan.rings, cpus, limits, notes)

    @classmethod
    def _handed_on(
        cls,
        legacy: Legacy,
        layout: Layout,
        limits: list[LimitSettings | HeldLimitSettings],
        stack: contextlib.ExitStack,
    ) -> "Footing":
        stack.enter_context(instance.hold(layout, fd=legacy.locks.state))
        stack.enter_context(instance.hold_rings(layout, legacy.locks.rings))
        listener = stack.enter_context(socket.socket(fileno=legacy.listen_fd))
        second = None
        if legacy.metrics_fd >= 0:
            second = stack.enter_context(socket.socket(fileno=legacy.metrics_fd))
        return cls(legacy.locks, listener, second, legacy.rings, legacy.cpus, limits, [])


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
    options: ServiceOptions, layout: Layout, streams: list[StreamKey]
) -> tuple[preflight.RingPlan, list[int | None]]:
    """Rings that fit into shared memory, and a CPU for each shard. Raises ConfigError where there
    is no room, or where so many WebSockets are more than a process may open.
    """
    loaded, allowed = options.loaded, preflight.allowed_cpus()
    chosen = preflight.shard_cpus(loaded.config, loaded.source, allowed)
    # On one CPU everything shares it; pinning would only forbid the kernel to help.
    cpus: list[int | None] = list(chosen) if len(allowed) > 1 else [None for _ in chosen]
    kinds = [key.kind for key in streams] if options.fresh else known_kinds(layout, streams)
    ring_plan = preflight.plan_rings(
        loaded.config, loaded.source, len(cpus), *preflight.ring_room(layout),
        streams=kinds, rows_s=options.rows_s,
    )  # fmt: skip
    open_files(len(cpus), socket_count(streams, loaded.config.venues))
    return ring_plan, cpus


def check_kept(options: ServiceOptions, layout: Layout) -> None:
    """Raises ConfigError where the state directory has what this version cannot read."""
    preflight.demand_own_format(layout)
    if not options.fresh:
        preflight.demand_own_rows(layout)


def open_files(shards: int, sockets: int) -> tuple[int, int]:
    """How many files a process may have open, and the most that one of so many shards with so many
    WebSockets needs. Raises ConfigError where that is more.
    """
    counts, limit = handles.needed(shards, len(KINDS), sockets), handles.raise_limit()
    handles.demand(counts, limit)
    return limit, max(counts.values())
