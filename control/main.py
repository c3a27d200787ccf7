"""The control process: answers questions about the engine over HTTP, on the loopback address.

It knows only what the supervisor tells it. It can be killed at any time: the listening socket
belongs to the supervisor, and the next control process goes on with it.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.channel import Channel
from engine.clock import monotonic_s
from engine.commands import Drain, Ready, SystemStatus, ToChild
from engine.settings import ControlSettings
from engine.status import EngineStatus

_log = logging.getLogger(__name__)

_SILENT_AFTER_S = 5.0


class LastStatus:
    """What the supervisor said last, and when."""

    def __init__(self) -> None:
        self.status: EngineStatus | None = None
        self._heard_s = monotonic_s()

    def take(self, body: msgspec.Raw) -> None:
        """Remember a status."""
        self.status = msgspec.json.decode(body, type=EngineStatus)
        self._heard_s = monotonic_s()

    def runtime(self) -> dict[str, Any]:
        """The body of `/health/runtime`."""
        status = self.status
        if status is None:
            return {"status": "yellow", "reason": "starting", "uptime_s": 0.0, "shards": [],
                    "writer": None}  # fmt: skip
        body: dict[str, Any] = msgspec.to_builtins(status)
        body.pop("streams")
        body["stream_count"] = len(status.streams)
        silence_s = monotonic_s() - self._heard_s
        if silence_s > _SILENT_AFTER_S:
            body["status"] = "red"
            body["reason"] = f"the supervisor is silent for {silence_s:.0f} s"
        return body


def make_app(last: LastStatus) -> Starlette:
    """The routes."""

    async def index(_: Request) -> Response:
        return _json({"name": "fintickstreams", "routes": ["/", "/health/runtime"]})

    async def runtime(_: Request) -> Response:
        return _json(last.runtime())

    async def missing(_: Request, __: Exception) -> Response:
        return _json({"error": "no such route", "kind": "not_found"}, 404)

    async def wrong_method(_: Request, __: Exception) -> Response:
        return _json({"error": "this route only answers GET", "kind": "method_not_allowed"}, 405)

    return Starlette(
        routes=[Route("/", index), Route("/health/runtime", runtime)],
        exception_handlers={404: missing, 405: wrong_method},
    )


class _Server(uvicorn.Server):
    """A server whose signals belong to `engine.process`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: ControlSettings, channel: Channel[ToChild]) -> int:
    """Process entry."""
    last = LastStatus()
    listener = _listener(settings)
    server = _Server(
        uvicorn.Config(
            make_app(last),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=5,
            limit_concurrency=256,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    channel.send(Ready(port=listener.getsockname()[1]))
    try:
        while (message := await channel.receive()) is not None:
            match message:
                case SystemStatus():
                    last.take(message.body)
                case Drain():
                    break
                case _:
                    _log.error(f"control has no use for a {type(message).__name__}")
    finally:
        server.should_exit = True
        await serving
    return 0


def _listener(settings: ControlSettings) -> socket.socket:
    if settings.listen_fd >= 0:
        return socket.socket(fileno=settings.listen_fd)
    return socket.create_server((settings.host, settings.port))


def _json(body: object, status_code: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status_code, media_type="application/json")
