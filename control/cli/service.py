"""Runs one engine from the command line: everything around the supervisor, in order.

    wishes → lock → port, machine → private servers → supervisor → (time passes) → drain → last look
    → servers down

What is cheap and certain is checked first, so that each refusal names the true cause and nothing
was touched for it: a second engine on one directory hears of the first one, not of its port.
Whatever fails, what was started before it is taken down in reverse. The first SIGTERM or SIGINT
drains; the second kills the children, whose rows then wait in rings and journal for the next start.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec

from control.cli.exits import Exit
from control.cli.terminal import standard_streams
from control.cli.terminal.live_view import Addresses, can_show_view, watch
from control.http.auth import Guard
from control.state.memory import memory_bytes
from engine.base import handles, signals
from engine.base.clock import wall_ns
from engine.base.errors import ConfigError
from engine.data.kinds import SPECS
from engine.data.layout import Layout, open_layout
from engine.data.slots import StreamKey
from engine.database.session import HOUSEKEEPING, session
from engine.messages.settings import LogSettings, VenueSettings
from engine.messages.status import EngineStatus
from engine.process import instance, logs
from engine.servers.postgres import PrivatePostgres
from engine.servers.quoting import shell_word
from engine.servers.server_keeper import ServerKeeper
from engine.servers.valkey import PrivateValkey
from engine.start import migrations, preflight
from engine.start.config import LoadedConfig, Secret, masked_url
from engine.start.redis_memory import RedisPlan, plan_redis
from engine.streams.wanted import Wanted
from engine.supervisor.supervisor import Supervisor, SupervisorSettings
from shards.venues import socket_count, venue_limits

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
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


@dataclass(frozen=True, slots=True)
class Ground:
    """What the engine stands on while it runs."""

    options: ServiceOptions
    layout: Layout
    database_url: Secret | None
    redis_url: Secret | None
    servers: list[ServerKeeper] = field(default_factory=list)
    """Those of the two that are our own."""


class Scenario(Protocol):
    """What makes `up` and `demo` differ."""

    def streams(self, loaded: LoadedConfig) -> list[StreamKey]:
        """What is collected, known before anything starts."""

    def prepare(self, ground: Ground, stack: contextlib.ExitStack) -> dict[str, VenueSettings]:
        """Venue settings; what must be undone at the end goes on the stack."""

    async def before_drain(self, supervisor: Supervisor, *, hurried: bool) -> None:
        """The time is up or (`hurried`) a signal came; everything still runs."""

    def after_drain(self, ground: Ground, status: EngineStatus, delivered: bool) -> "Outcome":
        """Everything is drained; the servers still run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: the exit code, and what to print."""

    exit_code: int
    summary: dict[str, Any]
    text: str


class _Stop:
    """Turns signals into one event, and the second one into force."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = False
        self.supervisor: Supervisor | None = None

    def __call__(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self.asked.is_set():
            _log.info(f"{name}: draining; once more to stop at once")
            self.asked.set()
            return
        _log.warning(f"{name} again: children are killed, undelivered rows stay in the journal")
        self.forced = True
        if self.supervisor is not None:
            self.supervisor.kill()


def run_service(options: ServiceOptions, scenario: Scenario) -> int:
    """Run an engine to its end; return the exit code."""
    config = options.loaded.config
    if config.limits.shared and not options.with_redis:
        raise ConfigError("--no-redis: limits.shared = true needs Redis; choose one of them")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_interruptible())
        Guard.load(config.control.token_file, config.control.read_token_file)  # or refuse to start
        streams = scenario.streams(options.loaded)
        layout = open_layout(options.loaded.state_dir)
        stack.enter_context(instance.hold(layout))
        stack.enter_context(instance.hold_rings(layout))
        listener = stack.enter_context(bind(config.control.host, config.control.port))
        ring_plan, cpus = _plan(options.loaded, layout)
        sockets = socket_count(streams, config.venues)
        handles.demand(handles.needed(len(cpus), len(SPECS), sockets), handles.raise_limit())
        if options.fresh:
            _empty(layout)
        has_view = can_show_view() and not options.json
        log = LogSettings(str(layout.log_file), config.log.level, to_stderr=not has_view)
        logs.set_up(log, "supervisor")
        if ring_plan.note:
            _log.warning(ring_plan.note)
        redis_plan = _redis_plan(options, layout)
        servers: list[ServerKeeper] = []
        ground = Ground(
            options,
            layout,
            database_url=_database(options, layout, stack, servers),
            redis_url=_redis(options, layout, stack, servers, redis_plan),
            servers=servers,
        )
        venues = scenario.prepare(ground, stack)
        port = listener.getsockname()[1]
        settings = SupervisorSettings(
            layout=layout,
            config=config,
            rings=ring_plan.rings,
            cpus=cpus,
            streams=streams,
            venues=venues,
            log=log,
            listen_fd=listener.fileno(),
            port=port,
            database_url=ground.database_url,
            redis_url=ground.redis_url,
            redis_plan=redis_plan,
            limits=venue_limits(),
            shares_limits=config.limits.shared and not options.fresh,
        )
        note = make_note(ground, config.control.host, port)
        instance.write_note(layout, note)
        addresses = Addresses.of(note, config.redis.prefix, layout.log_file)
        for line in addresses.lines():
            _log.info(line)
        with asyncio.Runner() as runner:
            outcome = runner.run(_run(settings, ground, scenario, addresses, has_view))
        text = msgspec.json.encode(outcome.summary).decode() if options.json else outcome.text
        if text:
            standard_streams.say(text)
        return outcome.exit_code


async def _run(
    settings: SupervisorSettings,
    ground: Ground,
    scenario: Scenario,
    addresses: Addresses,
    has_view: bool,
) -> Outcome:
    stop = _Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    supervisor = stop.supervisor = Supervisor(
        settings, migrate=migrations.migrate, servers=ground.servers
    )
    view = asyncio.create_task(watch(supervisor.status, addresses, live=has_view))
    try:
        await _live(supervisor, stop, ground.options)
        if not stop.forced:
            await scenario.before_drain(supervisor, hurried=stop.asked.is_set())
    finally:
        try:
            delivered = await supervisor.stop()
        finally:
            view.cancel()
            await asyncio.gather(view, return_exceptions=True)
    if stop.forced:
        return Outcome(Exit.FAILED, {"error": "stopped by force"}, "")
    if supervisor.failed.done():
        raise supervisor.failed.result()
    return scenario.after_drain(ground, supervisor.status(), delivered)


async def _live(supervisor: Supervisor, stop: _Stop, options: ServiceOptions) -> None:
    """Start, then wait for the first of: the time is up, a signal, nothing left to collect, or
    what the options want to end for.
    """
    asked = asyncio.create_task(stop.asked.wait())
    starting = asyncio.create_task(supervisor.start())
    unfit = asyncio.create_task(_until(options.ends_when, supervisor))
    try:
        await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        starting.result()
        ends: list[asyncio.Future[Any]] = [asked, supervisor.failed, unfit]
        await asyncio.wait(ends, timeout=options.run_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (asked, starting, unfit):
            task.cancel()
        await asyncio.gather(asked, starting, unfit, return_exceptions=True)


async def _until(condition: Callable[[EngineStatus], bool], supervisor: Supervisor) -> None:
    while not condition(supervisor.status()):
        await asyncio.sleep(_LOOK_S)


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


def make_note(ground: Ground, host: str, port: int) -> instance.EngineNote:
    """Where everything is, without passwords."""
    database = masked_url(ground.database_url) if ground.database_url else "off"
    redis = masked_url(ground.redis_url) if ground.redis_url else "off"
    return instance.EngineNote(
        pid=os.getpid(),
        control_url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
        database=database,
        psql=f"psql {shell_word(database)}" if ground.database_url else "",
        redis=redis,
        redis_cli=_redis_cli(redis) if ground.redis_url else "",
        started_ns=wall_ns(),
    )


def _redis_cli(url: str) -> str:
    if url.startswith("unix://"):
        path = unquote(url.removeprefix("unix://").partition("?")[0])
        return f"redis-cli -s {shell_word(path)}"
    return f"redis-cli -u {shell_word(url)}"


def _plan(loaded: LoadedConfig, layout: Layout) -> tuple[preflight.RingPlan, list[int | None]]:
    allowed = preflight.allowed_cpus()
    chosen = preflight.shard_cpus(loaded.config, loaded.source, allowed)
    # On one CPU everything shares it; pinning would only forbid the kernel to help.
    cpus: list[int | None] = list(chosen) if len(allowed) > 1 else [None for _ in chosen]
    room = preflight.ring_room(layout)
    return preflight.plan_rings(loaded.config, loaded.source, len(cpus), *room), cpus


def _database(
    options: ServiceOptions,
    layout: Layout,
    stack: contextlib.ExitStack,
    servers: list[ServerKeeper],
) -> Secret | None:
    if not options.with_database:
        return None
    if options.loaded.database_url is not None and not options.fresh:
        return options.loaded.database_url
    added = options.loaded.config.database.private_settings
    server = PrivatePostgres(layout.state_dir, layout.instance, added)
    url = stack.enter_context(server.running(_log.info))
    servers.append(ServerKeeper(server))
    if options.fresh:
        with session(url, HOUSEKEEPING) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
    return Secret(url)


def _redis(
    options: ServiceOptions,
    layout: Layout,
    stack: contextlib.ExitStack,
    servers: list[ServerKeeper],
    plan: RedisPlan,
) -> Secret | None:
    if not options.with_redis:
        return None
    if plan.note:
        _log.warning(plan.note)
    if options.loaded.redis_url is not None and not options.fresh:
        return options.loaded.redis_url
    server = PrivateValkey(layout.state_dir, layout.instance, plan.memory_bytes)
    url = stack.enter_context(server.running(_log.info))
    servers.append(ServerKeeper(server))
    return Secret(url)


def _redis_plan(options: ServiceOptions, layout: Layout) -> RedisPlan:
    """For the streams of the file and those that commands have added, as far as they are known."""
    keys = {entry.key for entry in Wanted(layout.wanted).wanted()}
    keys.update([] if options.fresh else options.loaded.stream_keys())
    redis = options.loaded.config.redis
    kinds = [key.kind for key in keys]
    return plan_redis(redis.memory_mb, redis.stream_maxlen, kinds, memory_bytes())


def _empty(layout: Layout) -> None:
    """Forget an earlier demo: slots, journal, rings. The private database is emptied apart."""
    for directory in (
        layout.journal_dir, layout.positions_dir, layout.quarantine_dir, layout.shm_dir,
        layout.state_dir / "ledger",
    ):  # fmt: skip
        shutil.rmtree(directory, ignore_errors=True)
    for file in (layout.slots, layout.wanted, layout.limits, layout.log_file):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """While the servers start there is no loop yet: SIGTERM unwinds as Ctrl-C does, and what nobody
    means is ignored from now on.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    signals.ignore_what_is_not_meant()
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
