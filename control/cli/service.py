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

from control.cli.addresses import Addresses, http_url, make_note
from control.cli.exits import Exit
from control.cli.ground import Ground, ServiceOptions, bind, check_kept, empty, machine_plan
from control.cli.terminal import standard_streams
from control.cli.terminal.live_view import can_show_view, watch
from control.http.auth import Guard
from engine.base import signals
from engine.data.layout import open_layout
from engine.data.names import StreamKey
from engine.messages.settings import LogSettings, VenueSettings
from engine.messages.status import EngineStatus
from engine.process import instance, logs
from engine.start import migrations
from engine.start.config import LoadedConfig
from engine.supervisor.spawning import SupervisorSettings
from engine.supervisor.supervisor import Supervisor
from shards.venues import raised_limits, socket_count, venue_limits

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
    config = options.loaded.config
    options.check()
    with contextlib.ExitStack() as stack:
        signals.ignore_what_is_not_meant()
        stack.enter_context(interruptible(signal.SIGTERM))  # while the servers start
        Guard.load(config.control.token_file, config.control.read_token_file)  # or refuse to start
        streams = scenario.streams(options.loaded)
        layout = open_layout(options.loaded.state_dir)
        stack.enter_context(instance.hold(layout))
        stack.enter_context(instance.hold_rings(layout))
        check_kept(options, layout)
        listener = stack.enter_context(bind(config.control.host, config.control.port))
        metrics = config.metrics
        second = None
        if metrics.port is not None:
            second = stack.enter_context(bind(metrics.host, metrics.port, section="metrics"))
        sockets = socket_count(streams, config.venues)
        ring_plan, cpus = machine_plan(options.loaded, layout, sockets)
        if options.fresh:
            empty(layout)
        has_view = can_show_view() and not options.json
        written = config.log
        log = LogSettings(
            str(layout.log_file), written.level, not has_view, written.format, written.fold_s
        )
        logs.set_up(log, "supervisor")
        for line in [ring_plan.note, *raised_limits(config.venues)]:
            if line:
                _log.warning(line)
        if not options.restores:
            _log.warning("no stream begins (--without-restore); what is known waits")
        ground = Ground.lay(options, layout, stack)
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
            metrics_fd=second.fileno() if second else -1,
            urls=ground.urls,
            routes=options.loaded.routes(),
            owner_urls={} if options.fresh else options.loaded.owner_urls,
            memory=ground.memory,
            limits=venue_limits(config.venues),
            restores=options.restores,
            shares_limits=config.limits.shared and not options.fresh,
        )
        note = make_note(ground, config.control.host, port)
        if second is not None:
            url = http_url(metrics.host, second.getsockname()[1]) + metrics.path
            note = msgspec.structs.replace(note, metrics_url=url)
        instance.write_note(layout, note)
        addresses = Addresses.of(note, ground)
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
        settings,
        migrate=migrations.migrate,
        servers=ground.servers,
        renew=ground.options.renew,
    )
    reload, is_ignored = ground.options.reload, signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    if reload is not None and not is_ignored:  # as by `nohup`
        loop.add_signal_handler(signal.SIGHUP, reload(supervisor, settings))
    view = asyncio.create_task(watch(supervisor.status, addresses, live=has_view))
    try:
        await _live(supervisor, stop, ground.options)
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


@contextlib.contextmanager
def interruptible(*numbers: int) -> Iterator[None]:
    """Have these signals unwind at once, as Ctrl-C does, where no loop takes them in."""
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
