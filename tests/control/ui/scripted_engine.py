"""A control process without an engine: the routes the page calls, over a status the test writes."""

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from control.ui import PUBLIC_PATHS, routes
from control.ui.event_stream import drop_unread
from control.ui.state import DashboardLimits
from engine.clock import wall_ns
from engine.commands import StreamState
from engine.layout import Layout
from engine.status import (
    ChildReport,
    EngineStatus,
    Light,
    LimiterReport,
    ShardReport,
    StreamReport,
    WriterReport,
)
from tests.control.ui.sockets import free_listener

CAPABILITIES = [
    {"exchange": "binance_linear", "transport": "Ws", "kind": "Trades", "note": None},
    {"exchange": "binance_linear", "transport": "Ws", "kind": "L2Book", "note": None},
    {"exchange": "binance_linear", "transport": "HttpPoll", "kind": "OpenInterest",
     "note": "asked once a minute"},
    {"exchange": "hyperliquid_perp", "transport": "Ws", "kind": "Trades", "note": None},
]  # fmt: skip
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCUSDC"]


class FakeLight(NamedTuple):
    """A light as a test sets it."""

    status: Light
    reason: str


def stream(slot: int, symbol: str, kind: str = "Trades", **changes: Any) -> StreamReport:
    """A live stream of Binance, with what a test changes."""
    defaults: dict[str, Any] = {
        "venue": "binance_linear", "shard": 0, "state": StreamState.LIVE,
        "last_recv_ns": wall_ns(), "added_ns": wall_ns(),
    }  # fmt: skip
    return StreamReport(slot=slot, symbol=symbol, kind=kind, **(defaults | changes))


def engine_status(streams: list[StreamReport]) -> EngineStatus:
    """A running engine with these streams."""
    return EngineStatus(
        status="green", reason="", phase="running", instance="5f3a9c21b7d0", uptime_s=93784.0,
        shards=[ShardReport(ChildReport("shard-0", "up"), 0, connection_count=4,
                            rss_bytes=98_000_000, loop_lag_ms=1.2)],
        writer=WriterReport(
            ChildReport("writer", "up"), database_state="up", redis_state="up",
            journal_bytes=412_000_000, rss_bytes=164_000_000, backlog_rows=1840,
            latency_us={"database": {"p50": 21000.0, "p90": 50100.0, "p99": 63000.0}},
        ),
        control=ChildReport("control", "up"), streams=streams,
        limiters=[
            LimiterReport("binance_linear", "rest_weight", 2400, 60.0, 412.0, 431.0),
            LimiterReport("binance_linear", "ws_connects", 300, 300.0, 4.0),
            LimiterReport("hyperliquid_perp", "rest_weight", 1200, 60.0, 1010.0),
            LimiterReport("hyperliquid_perp", "ws_messages", 2000, 60.0, 2000.0, None, 12.0, 3),
        ],
    )  # fmt: skip


class FakeControl:
    """State of the dashboard and the public API over it. `calls` has every mutation."""

    def __init__(
        self,
        folder: Path,
        streams: list[StreamReport],
        *,
        limits: DashboardLimits | None = None,
        token: str = "",
    ) -> None:
        self.layout = Layout(folder / "state", "test", folder / "shm")
        self.layout.state_dir.mkdir(exist_ok=True)
        self.status: EngineStatus | None = engine_status(streams)
        self.shown_lights = {name: FakeLight("green", "") for name in ("runtime", "db", "redis")}
        self.calls: list[tuple[str, str, Any]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.token = token
        self.seen_paths: list[str] = []
        self.port = 0
        self.app: ASGIApp = _TokenGuard(self, Starlette(routes=self._routes(limits)))

    def lights(self) -> Mapping[str, FakeLight]:
        """As `DashboardState` wants them."""
        return self.shown_lights

    def streams(self) -> list[StreamReport]:
        """The streams now."""
        return list(self.status.streams) if self.status else []

    def say(self, streams: list[StreamReport] | None = None) -> None:
        """The supervisor speaks: a new status, the counters where the caller left them."""
        assert self.status is not None
        status = copy.copy(self.status)
        status.streams = self.streams() if streams is None else streams
        self.status = status

    def find(self, body: Mapping[str, Any]) -> StreamReport | None:
        """The stream a request names."""
        for report in self.streams():
            if (report.venue, report.symbol, report.kind, report.transport) == (
                body["exchange"], body["symbol"], body["kind"], body["transport"],
            ):  # fmt: skip
                return report
        return None

    def _routes(self, limits: DashboardLimits | None) -> list[Any]:
        knobs = "/streams/{exchange}/{symbol:path}/{kind}/{transport}/knobs"
        return [
            *routes(self, limits),
            Route("/streams/capabilities", self._capabilities),
            Route("/streams", self._change, methods=["POST", "DELETE"]),
            Route(knobs, self._patch, methods=["PATCH"]),
            Route("/instruments", self._instruments),
        ]

    async def _capabilities(self, _: Request) -> Response:
        return JSONResponse(CAPABILITIES)

    async def _instruments(self, request: Request) -> Response:
        query = request.query_params
        wanted = query.get("q", "").upper()
        found = [
            {"exchange": query["exchange"], "symbol": symbol, "base": symbol[:3],
             "quote": symbol[3:], "status": "TRADING", "tick_size": "0.10"}
            for symbol in SYMBOLS if wanted in symbol
        ]  # fmt: skip
        return JSONResponse(found)

    async def _change(self, request: Request) -> Response:
        body = msgspec.json.decode(await request.body())
        self.calls.append((request.method, "/streams", body))
        known = self.find(body)
        if self.refusal:
            return JSONResponse(self.refusal[1], self.refusal[0])
        if request.method == "POST":
            if known:
                return _error(409, "stream_exists", "this stream is already collected")
            if body["symbol"] not in SYMBOLS:
                return JSONResponse(
                    {"error": f"no such instrument: {body['symbol']}", "kind": "unknown_symbol",
                     "near": ["BTCUSDT", "BTCUSDC"]}, 404,
                )  # fmt: skip
            added = stream(
                len(self.streams()) + 100, body["symbol"], body["kind"], venue=body["exchange"],
                transport=body["transport"], state=StreamState.CONNECTING,
            )  # fmt: skip
            self.say([*self.streams(), added])
            return JSONResponse("ok")
        if not known:
            return _error(404, "stream_not_found", "no such stream")
        self.say([each for each in self.streams() if each is not known])
        return JSONResponse("ok")

    async def _patch(self, request: Request) -> Response:
        changes = msgspec.json.decode(await request.body())
        self.calls.append(("PATCH", request.url.path, changes))
        if self.refusal:
            return JSONResponse(self.refusal[1], self.refusal[0])
        report = self.find(request.path_params)
        if report is None:
            return _error(404, "stream_not_found", "no such stream")
        changed = copy.copy(report)
        changed.knobs = msgspec.structs.replace(report.knobs, **changes)
        self.say([changed if each is report else each for each in self.streams()])
        return JSONResponse({"knobs": msgspec.to_builtins(changed.knobs)})


class _TokenGuard:
    """Asks for the bearer token wherever the page is not public."""

    def __init__(self, control: FakeControl, app: ASGIApp) -> None:
        self._control = control
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._control.seen_paths.append(scope["path"])
            wanted = self._control.token
            shown = dict(scope["headers"]).get(b"authorization", b"").decode()
            if wanted and scope["path"] not in PUBLIC_PATHS and shown != f"Bearer {wanted}":
                response = _error(401, "unauthorized", "a bearer token is needed")
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _error(status: int, kind: str, text: str) -> Response:
    return JSONResponse({"error": text, "kind": kind}, status)


@contextmanager
def serving(control: FakeControl, unread_after_s: float = 20.0) -> Iterator[str]:
    """Serve on a free port, from a thread of its own; yields the address."""
    listener = free_listener()
    drop_unread(listener, unread_after_s)
    config = uvicorn.Config(
        control.app, lifespan="off", log_config=None, access_log=False, ws="none",
        timeout_graceful_shutdown=1, timeout_keep_alive=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    control.port = listener.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{control.port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
