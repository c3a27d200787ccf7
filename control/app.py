"""The Starlette application: routes by path, documents, the dashboard, and the gate around all."""

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Scope

from control import ui
from control.api import openapi
from control.api.routes import (
    Operation,
    Services,
    health,
    history,
    instruments,
    probes,
    streams,
    upgrade,
)
from control.http.errors import ApiError, json_response, on_api_error, on_fault, on_http_error
from control.http.gate import Gate
from control.http.requests import ClientGoneError, must_be_waited_for
from control.http.traffic import Traffic
from control.ui.state import DashboardLimits
from engine.process.metrics import RequestMetrics
from engine.process.release import version

OPERATIONS: Sequence[Operation] = [
    *probes.OPERATIONS, *health.OPERATIONS, *streams.OPERATIONS, *instruments.OPERATIONS,
    *history.OPERATIONS, *upgrade.OPERATIONS,
]  # fmt: skip
PUBLIC_PATHS = frozenset({"/docs", "/openapi.json"}) | probes.PATHS
"""What needs no token: it says nothing about this engine, but for the probes' one word. So do the
dashboard's static files."""


class Api:
    """The application and what it is made of. Call it as an ASGI application."""

    def __init__(
        self,
        services: Services,
        allowed_hosts: Iterable[str] = (),
        dashboard_limits: DashboardLimits | None = None,
    ) -> None:
        pages = ui.routes(services.backend, dashboard_limits, services.guard.may_command)
        self.routes: list[BaseRoute] = [*_routes(services), *_documents(), *pages]
        self.public_paths = PUBLIC_PATHS | ui.PUBLIC_PATHS
        self._services, self._allowed_hosts = services, list(allowed_hosts)
        self._requests = RequestMetrics()
        self._app = self._behind_the_gate(self.routes, self.public_paths)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        await self._app(scope, receive, send)

    def metrics_only(self, path: str) -> ASGIApp:
        """What the port for metrics answers: those at `path`, the probes, and `/healthz`, which is
        `/livez` by the name that most ask for. Requests are counted together with the others.
        """
        known = {operation.path: operation for operation in OPERATIONS}
        probed = {each: known[each] for each in sorted(probes.PATHS)}
        metrics = {path: known["/metrics"], f"{path}/streams": known["/metrics/streams"]}
        shown = {**metrics, "/healthz": known["/livez"], **probed}
        routes: list[BaseRoute] = [
            _route(each, {operation.method: operation}, self._services)
            for each, operation in shown.items()
        ]
        return self._behind_the_gate(routes, shown.keys() - metrics.keys())

    def _behind_the_gate(self, routes: list[BaseRoute], public_paths: Collection[str]) -> ASGIApp:
        inner = Starlette(
            routes=routes,
            exception_handlers={
                ApiError: on_api_error,
                HTTPException: on_http_error,
                ClientGoneError: _on_client_gone,
                Exception: on_fault,
            },
        )
        inner.router.redirect_slashes = False  # a redirect would echo the client's own Host
        gate = Gate(
            inner,
            self._services.guard,
            allowed_hosts=self._allowed_hosts,
            public_paths=public_paths,
        )
        return Traffic(gate, routes, self._requests)


class _OwnPath(Route):
    """A path that is this route's whatever the method. Otherwise a method that it does not answer
    could be answered by a path with an open part in it, which says something else is wrong.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """All or nothing; `handle` then refuses the wrong method, and names the right ones."""
        match, child_scope = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child_scope


def _routes(services: Services) -> list[BaseRoute]:
    """One route a path, so that a wrong method is told all the right ones."""
    by_path: defaultdict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS:
        by_path[operation.path][operation.method] = operation
    return [_route(path, members, services) for path, members in by_path.items()]


def _route(path: str, members: dict[str, Operation], services: Services) -> Route:
    async def serve(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        operation = members[method]
        if method == "GET":
            await must_be_waited_for(request)
        if operation.query is None and request.scope.get("query_string"):
            raise ApiError("invalid_argument", "this route takes no query", field="query")
        return await operation.handler(request, services)

    return _OwnPath(path, serve, methods=sorted(members), name=path)


@functools.cache
def _described() -> tuple[list[str], bytes, str]:
    """Paths, document and page: the same for every application."""
    described = openapi.document(OPERATIONS, version())
    return list(described["paths"]), msgspec.json.encode(described), openapi.page(described)


def _documents() -> list[BaseRoute]:
    paths, body, text = _described()

    async def document(_: Request) -> Response:
        return Response(body, media_type="application/json")

    async def page(_: Request) -> Response:
        headers = {"Content-Security-Policy": openapi.PAGE_POLICY}
        return Response(text, headers=headers, media_type="text/html")

    async def index(_: Request) -> Response:
        return json_response(
            {"name": "fintickstreams", "routes": sorted({*paths, "/docs", "/openapi.json", "/ui"})}
        )

    return [
        Route("/", index, methods=["GET"]),
        Route("/openapi.json", document, methods=["GET"]),
        Route("/docs", page, methods=["GET"]),
    ]


async def _on_client_gone(_: Request, __: Exception) -> Response:
    """Nobody reads this."""
    return Response(status_code=400)
