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
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from control.cli.addresses import Addresses, publish
from control.cli.changes.parting import Parting
from control.cli.exits import Exit
from control.cli.footing import Footing
from control.cli.ground import Ground, ServiceOptions, empty
from control.cli.terminal import standard_streams
from control.cli.terminal.live_view import can_show_view, watch
from engine.base import signals
from engine.data.layout import Layout, open_layout
from engine.data.names import StreamKey
from engine.messages.settings import LogSettings, VenueSettings
from engine.messages.status import EngineStatus
from engine.process import logs
from engine.start import migrations
from engine.start.config import LoadedConfig
from engine.supervisor.spawning import SupervisorSettings, fork_server
from engine.supervisor.supervisor import Supervisor

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
_UNREAD_S = 20.0
"""A client that takes nothing for so long is gone, whatever its kernel says."""


Look = Callable[[], EngineStatus]
"""How the engine is now."""


class Scenario(Protocol):
    """What makes `up` and `demo` differ."""

    def streams(self, loaded: LoadedConfig) -> list[StreamKey]:
        """What is collected, known before anything starts."""

    def prepare(self, ground: Ground, stack: contextlib.ExitStack) -> dict[str, VenueSettings]:
        """Venue settings; what must be undone at the end goes on the stack."""

    async def before_drain(self, look: Look, *, hurried: bool) -> None:
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
    config, back = options.loaded.config, options.back
    with contextlib.ExitStack() as stack, back.open() if back else contextlib.nullcontext():
        if back is None:  # else they wait until there is somebody who obeys
            options.check()
            signals.ignore_what_is_not_meant()
            stack.enter_context(interruptible(signal.SIGTERM))  # while the servers start
        forks = fork_server()  # before a file is opened or a thread begun; it imports meanwhile
        stack.callback(forks.close)
        if back is not None:
            back.before = forks.close
        streams = scenario.streams(options.loaded)
        layout = open_layout(options.loaded.state_dir)
        footing = Footing.take(options, layout, streams, stack)
        if options.fresh:
            empty(layout)
        has_view = can_show_view() and not options.json
        log = _log_settings(options, layout, has_view=has_view)
        logs.set_up(log, "supervisor")
        for line in footing.notes:
            _log.warning(line)
        if not options.restores:
            _log.warning("no stream begins (--without-restore); what is known waits")
        ground = Ground.lay(options, layout, stack)
        settings = SupervisorSettings(
            layout=layout,
            config=config,
            rings=footing.rings,
            cpus=footing.cpus,
            streams=streams,
            venues=scenario.prepare(ground, stack),
            log=log,
            listen_fd=footing.listener.fileno(),
            port=footing.port,
            metrics_fd=footing.metrics.fileno() if footing.metrics else -1,
            urls=ground.urls,
            routes=options.loaded.routes(),
            owner_urls={} if options.fresh else options.loaded.owner_urls,
            memory=ground.memory,
            limits=footing.limits,
            restores=options.restores,
            forks=forks,
            shares_limits=config.limits.shared and not options.fresh,
        )
        addresses = publish(ground, footing)
        with asyncio.Runner() as runner:
            parting = Parting(options.loaded, footing.locks, forks)
            outcome = runner.run(_run(settings, ground, scenario, addresses, parting, has_view))
        text = msgspec.json.encode(outcome.summary).decode() if options.json else outcome.text
        if text:
            standard_streams.say(text)
        return outcome.exit_code


def _log_settings(options: ServiceOptions, layout: Layout, *, has_view: bool) -> LogSettings:
    written = options.loaded.config.log
    return LogSettings(
        str(layout.log_file), written.level, not has_view, written.format, written.fold_s
    )


async def _run(
    settings: SupervisorSettings,
    ground: Ground,
    scenario: Scenario,
    addresses: Addresses,
    parting: Parting,
    has_view: bool,
) -> Outcome:
    stop, options = _Stop(), ground.options
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    supervisor = stop.supervisor = Supervisor(
        settings,
        migrate=migrations.migrate,
        servers=ground.servers,
        renew=options.renew,
        hand_over=parting if options.renew is not None else None,
    )
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    if options.reload is not None and not is_ignored:  # as by `nohup`
        loop.add_signal_handler(signal.SIGHUP, options.reload(supervisor))
    view = asyncio.create_task(watch(supervisor.status, addresses, live=has_view))
    try:
        await _live(supervisor, stop, options, parting)
        if not stop.forced:
            await scenario.before_drain(supervisor.status, hurried=stop.asked.is_set())
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


async def _live(
    supervisor: Supervisor, stop: _Stop, options: ServiceOptions, parting: Parting
) -> None:
    """Start, then wait for the first of: the time is up, a signal, nothing left to collect, or
    what the options want to end for.
    """
    asked = asyncio.create_task(stop.asked.wait())
    starting = asyncio.create_task(_begin(supervisor, options))
    unfit = asyncio.create_task(_until(options.ends_when, supervisor))
    try:
        await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        starting.result()
        left_s = parting.begin(options.run_s, options.legacy)
        ends: list[asyncio.Future[Any]] = [asked, supervisor.failed, unfit]
        await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (asked, starting, unfit):
            task.cancel()
        await asyncio.gather(asked, starting, unfit, return_exceptions=True)


async def _begin(supervisor: Supervisor, options: ServiceOptions) -> None:
    """Start, or go on with what another program of this process has left."""
    if (back := options.back) is None:
        await supervisor.start()
    else:
        with back.open():
            legacy = back.legacy
            await supervisor.take_over(legacy.estate, back.close, legacy.why_back)
        signals.ignore_what_is_not_meant()
        signals.obey_what_waits()


async def _until(condition: Callable[[EngineStatus], bool], supervisor: Supervisor) -> None:
    while not condition(supervisor.status()):
        await asyncio.sleep(_LOOK_S)


@contextlib.contextmanager
def interruptible(*numbers: int) -> Iterator[None]:
    """Have these signals unwind at once, as Ctrl-C does, where no loop takes them in."""
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
