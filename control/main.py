"""The control process: the API of the engine over HTTP.

It knows what the supervisor tells it and what the venues list. It can be killed at any time: the
listening socket belongs to the supervisor, and the next control process goes on with it.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from control.admission import Admissions, offered_by
from control.app import Api
from control.auth import Guard
from control.backend import Backend
from control.health import Health
from control.instruments import Instruments
from control.protocol import BoundedHttp
from control.routes import Services
from control.venue_listings import VenueListings
from engine.channel import Channel
from engine.clock import monotonic_s
from engine.commands import Drain, Ready, ToChild
from engine.metrics import ProcessMetrics
from engine.settings import ControlSettings
from shards.venues import VENUES

_log = logging.getLogger(__name__)

_LAG_LOOK_S = 0.25


class _Server(uvicorn.Server):
    """A server whose signals belong to `engine.process`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: ControlSettings, channel: Channel[ToChild]) -> int:
    """Process entry."""
    listener = _listener(settings)
    health = Health(settings.health_hold_s)
    layout = settings.paths.layout() if settings.paths else None
    backend = Backend(channel.send, health, layout, configured_knobs=settings.configured_knobs)
    listings = VenueListings(settings.venues, backend.leases)
    instruments = Instruments(
        VENUES,
        layout.state_dir / "instruments" if layout else None,
        listings.fetch,
        backend.store_instruments,
        settings.instruments_refresh_s,
    )
    instruments.load_files()
    guard = Guard.load(settings.token_file, settings.read_token_file)
    services = Services(backend, Admissions(offered_by(), settings.admission), instruments, guard)
    server = make_server(Api(services, settings.allowed_hosts))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    channel.send(Ready(port=listener.getsockname()[1]))
    work = [
        asyncio.create_task(instruments.run(), name="instruments"),
        asyncio.create_task(_watch_loop(health), name="loop-lag"),
    ]
    try:
        while (message := await channel.receive()) is not None:
            if isinstance(message, Drain):
                break
            backend.take(message)
    finally:
        server.should_exit = True
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await listings.close()
        await serving
    return 0


def make_server(app: ASGIApp, protocol: type[BoundedHttp] = BoundedHttp) -> uvicorn.Server:
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


async def _watch_loop(health: Health) -> None:
    """Measure how late this process's own event loop is."""
    metrics = ProcessMetrics("control")
    while True:
        started_s = monotonic_s()
        await asyncio.sleep(_LAG_LOOK_S)
        lag_s = max(monotonic_s() - started_s - _LAG_LOOK_S, 0.0)
        health.own_loop_lag_ms = lag_s * 1e3
        metrics.feed(time.process_time(), lag_s)


def _listener(settings: ControlSettings) -> socket.socket:
    if settings.listen_fd >= 0:
        return socket.socket(fileno=settings.listen_fd)
    return socket.create_server((settings.host, settings.port))
