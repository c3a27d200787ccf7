"""The control process: the API of the engine over HTTP.

It knows what the supervisor tells it and what the venues list. It can be killed at any time: the
listening socket belongs to the supervisor, and the next control process goes on with it. Streams
of new instruments begin once that has heard what their venues list, and all others run. Requests
that come meanwhile wait in the socket's queue until the new one has heard what runs.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from control.api.admission import Admissions
from control.api.routes import Services
from control.app import Api
from control.http.auth import Guard
from control.http.protocol import BoundedHttp, Limits
from control.state.backend import Backend
from control.state.health import Health
from control.state.listing_fetch import ListingFetch
from control.state.listings import Listings
from engine.base.clock import monotonic_s, wall_ns
from engine.messages.control import Heartbeat, SystemStatus
from engine.messages.listings import ListingWanted
from engine.messages.pipes import Drain, ToChild
from engine.messages.settings import ControlSettings, Reconfigure
from engine.process import logs
from engine.process.birth import ExitCode, ready
from engine.process.metrics import ProcessMetrics
from engine.process.pipe import Pipe
from shards.venues import VENUES

_log = logging.getLogger(__name__)

_LAG_LOOK_S = 0.25


class _Server(uvicorn.Server):
    """A server whose signals belong to `engine.process.birth`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: ControlSettings, pipe: Pipe[ToChild]) -> int:
    """Process entry."""
    listener = _listener(settings)
    health = Health(settings.health_hold_s, settings.health)
    layout = settings.paths.layout() if settings.paths else None
    backend = Backend(
        pipe.send,
        health,
        layout,
        configured_knobs=settings.configured_knobs,
        prices_url=settings.prices_url,
    )
    listings = ListingFetch(settings.venues, backend.leases)
    instruments = Listings(
        VENUES,
        layout.state_dir / "instruments" if layout else None,
        listings.fetch,
        backend.tell_listing,
        settings.instruments_refresh_s,
        listings.waits_for,
    )
    instruments.load_files()
    guard = Guard.load(settings.token_file, settings.read_token_file)
    most_rows = settings.configured_knobs.max_rows_per_copy
    admissions = Admissions(VENUES, settings.admission, most_rows)
    services = Services(backend, admissions, instruments, guard, settings.metrics_streams)
    limits = Limits().behind_proxy() if settings.behind_proxy else Limits()
    servers = _servers(Api(services, settings.allowed_hosts), listener, settings, limits)
    # The answer is a first status.
    pipe.send(ready(listener.getsockname()[1]))
    taking_over = partial(_take_over, backend, admissions, instruments)
    listening = asyncio.create_task(
        _listen(pipe, backend, instruments, taking_over), name="supervisor"
    )
    serving = asyncio.create_task(_serve(servers, backend), name="http")
    work = [
        listening,
        asyncio.create_task(instruments.run(), name="instruments"),
        asyncio.create_task(_watch_loop(backend, pipe, instruments), name="loop-lag"),
    ]
    try:
        await asyncio.wait([*work, serving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for server, _ in servers:
            server.should_exit = True
        ended = [task for task in [*work, serving] if task.done()]
        if not backend.heard.is_set():
            serving.cancel()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await listings.close()
        await asyncio.gather(serving, return_exceptions=True)
        for _, each in servers:
            each.close()
    for task in ended:
        task.result()  # a fault ends the process: the supervisor starts a whole one
    return ExitCode.OK if listening in ended else ExitCode.FAULT


_Servers = list[tuple[uvicorn.Server, socket.socket]]


def _servers(
    api: Api, listener: socket.socket, settings: ControlSettings, limits: Limits
) -> _Servers:
    """Of the control port, and of the one for metrics where there is one."""
    protocol = BoundedHttp.within(limits)
    servers = [(make_server(api, protocol), listener)]
    if settings.metrics_fd >= 0:
        second = make_server(api.metrics_only(settings.metrics_path), protocol)
        servers.append((second, socket.socket(fileno=settings.metrics_fd)))
    return servers


async def _serve(servers: _Servers, backend: Backend) -> None:
    """Answer requests, once it is known what runs: an engine without streams it is not."""
    await backend.heard.wait()
    await asyncio.gather(*(server.serve(sockets=[each]) for server, each in servers))


def _take_over(
    backend: Backend, admissions: Admissions, listings: Listings, message: Reconfigure
) -> None:
    """What the configuration says now."""
    logs.change(message.log)
    backend.configured_knobs = message.configured_knobs
    backend.health.hold(message.health_hold_s)
    admissions.policy = message.admission
    admissions.max_rows_per_copy = message.configured_knobs.max_rows_per_copy
    listings.refresh_s = message.instruments_refresh_s


async def _listen(
    pipe: Pipe[ToChild],
    backend: Backend,
    listings: Listings,
    take_over: Callable[[Reconfigure], None],
) -> None:
    """Take in what the supervisor says, until it wants this process to leave or is gone."""
    while (message := await pipe.receive()) is not None and not isinstance(message, Drain):
        if isinstance(message, ListingWanted):
            listings.want(message.venue)
        elif isinstance(message, Reconfigure):
            take_over(message)
        else:
            backend.take(message)
            if isinstance(message, SystemStatus):
                listings.follow({key.venue for key in backend.streams})


def make_server(app: ASGIApp, protocol: type[BoundedHttp]) -> uvicorn.Server:
    """The HTTP server, not yet serving."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # one line a bad request otherwise
    return _Server(
        uvicorn.Config(
            app,
            http=protocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=5,
            h11_max_incomplete_event_size=protocol.limits.header_bytes,
            timeout_graceful_shutdown=1,
        )
    )


async def _watch_loop(backend: Backend, pipe: Pipe[ToChild], listings: Listings) -> None:
    """Measure how late this process's own event loop is, and tell the supervisor that it turns.
    What is remembered of the engine is looked at as often.
    """
    metrics, health = ProcessMetrics("control"), backend.health
    while True:
        worst = health.worst_light()
        pipe.send(Heartbeat(worst.status, worst.reason, listings.missing()))
        started_s = monotonic_s()
        await asyncio.sleep(_LAG_LOOK_S)
        lag_s = max(monotonic_s() - started_s - _LAG_LOOK_S, 0.0)
        health.own_loop_lag_ms = lag_s * 1e3
        metrics.feed(time.process_time(), lag_s)
        backend.look(wall_ns())


def _listener(settings: ControlSettings) -> socket.socket:
    if settings.listen_fd >= 0:
        return socket.socket(fileno=settings.listen_fd)
    return socket.create_server((settings.host, settings.port))
