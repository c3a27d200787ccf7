"""Counts what the ports answer, the refusals of the gate as well."""

import re
from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.base.clock import monotonic_s
from engine.process.metrics import RequestMetrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Traffic:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute], metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._paths: dict[Any, str] = {
            route.endpoint: re.sub(r":path\}", "}", route.path)
            for route in routes
            if isinstance(route, Route)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. It counts when its answer begins: a live feed has no end."""
        started_s = monotonic_s()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The router has left its choice in the scope by now, if it was asked at all.
                route = self._paths.get(scope.get("endpoint"), "none")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                seconds = monotonic_s() - started_s
                self._metrics.answered(route, method, message["status"], seconds)
            await send(message)

        await self._app(scope, receive, send_counted)
