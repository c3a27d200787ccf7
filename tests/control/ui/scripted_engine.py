"""The real API and dashboard over an engine that says and does what the test tells it."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from control.api.admission import Admissions
from control.api.routes import Services
from control.app import Api
from control.cli.footing import bind
from control.http.auth import Guard
from control.http.protocol import BoundedHttp, Limits
from control.main import make_server
from control.state.backend import Backend
from control.state.health import Health, HealthLight
from control.state.listings import Listings
from control.ui.state import DashboardLimits
from engine.base.clock import wall_ns
from engine.data.instrument import Instrument
from engine.data.layout import Layout
from engine.data.names import StreamKey
from engine.messages.control import AddStreams, RemoveStreams, RenewBook, SetKnobs
from engine.messages.pipes import FromChild
from engine.messages.status import (
    ChildReport,
    EngineStatus,
    LimiterReport,
    ShardReport,
    StreamReport,
    WriterReport,
)
from engine.messages.streams import Knobs, StreamState
from engine.messages.upkeep import DatabaseReport, TableSize, TaskReport
from engine.messages.writer import SinkStatus
from shards.venues import VENUES
from tests.control.api.api_rig import BINANCE, HYPERLIQUID, OFFERS, Supervisor, instrument

CONFIGURED = Knobs(flush_rows=50_000, flush_interval_ms=50, max_rows_per_copy=100_000)
LISTED = {
    "binance_linear": [instrument("binance_linear", symbol) for symbol in BINANCE],
    "hyperliquid_perp": [instrument("hyperliquid_perp", symbol) for symbol in HYPERLIQUID],
}


def stream(slot: int, symbol: str, kind: str = "Trades", **changes: Any) -> StreamReport:
    """A live stream of Binance, with what a test changes."""
    defaults: dict[str, Any] = {
        "venue": "binance_linear", "shard": 0, "state": StreamState.LIVE,
        "last_recv_ns": wall_ns(), "added_ns": wall_ns(),
    }  # fmt: skip
    return StreamReport(slot=slot, symbol=symbol, kind=kind, **(defaults | changes))


def looked_after(**changes: Any) -> DatabaseReport:
    """A database with columns, and a task that does what it should."""
    now_ns = wall_ns()
    trade = TableSize(
        "trade", 4_000_000, 53_000_000, 13.3, 61_000_000, 4_600_000, 40_000_000, 348_000_000,
        1_764_000_000_000_000_000, "400d",
    )  # fmt: skip
    report = DatabaseReport(
        "database", "hypertables", [trade, TableSize("liquidation")],
        [TaskReport("days_ahead", now_ns, 0.1, now_ns + 600 * 10**9, "made 2026-11-24")],
        disk_free_bytes=211_000_000_000, days_until_full=42.0,
    )  # fmt: skip
    return msgspec.structs.replace(report, **changes)


def engine_status(streams: list[StreamReport]) -> EngineStatus:
    """A running engine with these streams."""
    return EngineStatus(
        status="green", reason="", phase="running", instance="5f3a9c21b7d0", uptime_s=93784.0,
        shards=[ShardReport(ChildReport("shard-0", "up"), 0, connection_count=4,
                            rss_bytes=98_000_000, loop_lag_ms=1.2)],
        writer=WriterReport(
            ChildReport("writer", "up"),
            sinks=[SinkStatus("database", "up", backlog_rows=1840), SinkStatus("redis", "up")],
            journal_bytes=412_000_000, rss_bytes=164_000_000,
            recent_latency_us={"database": {"p50": 21000.0, "p90": 50100.0, "p99": 63000.0}},
        ),
        control=ChildReport("control", "up"), streams=streams,
        limiters=[
            LimiterReport("binance_linear", "rest_weight", 2400, 60.0, 412.0, 431.0),
            LimiterReport("binance_linear", "ws_connects", 300, 300.0, 4.0),
            LimiterReport("hyperliquid_perp", "rest_weight", 1200, 60.0, 1010.0),
            LimiterReport("hyperliquid_perp", "ws_messages", 2000, 60.0, 2000.0, None, 12.0, 3,
                          blocked_reason="HTTP 429: too many requests"),
            LimiterReport("hyperliquid_perp", "ws_sockets", 10, None, 4.0),
        ],
        upkeep=[looked_after()],
    )  # fmt: skip


class ScriptedHealth(Health):
    """Lights as a test sets them."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.shown = {name: HealthLight("green") for name in ("runtime", "db", "redis")}

    def lights(self) -> Mapping[str, HealthLight]:
        """As they were set."""
        return self.shown


class _Supervisor(Supervisor):
    """Answers commands as the engine does and speaks at once; its status is the test's."""

    def __init__(self, status: EngineStatus) -> None:
        super().__init__()
        self.told = status
        self.tuned: list[tuple[StreamKey, Knobs]] = []

    def status(self) -> EngineStatus:
        """What the test says, with the streams there are."""
        return msgspec.structs.replace(self.told, streams=list(self.streams.values()))

    def send(self, message: FromChild) -> None:
        """The pipe."""
        before = {key: report.knobs for key, report in self.streams.items()}
        super().send(message)
        if isinstance(message, SetKnobs):
            knobs = self.streams[message.key].knobs
            if knobs != before[message.key]:
                self.tuned.append((message.key, knobs))
        asyncio.get_running_loop().call_soon(self.tell)


class ScriptedEngine:
    """The control process's application, over a supervisor that the test speaks for."""

    def __init__(
        self,
        folder: Path,
        streams: list[StreamReport],
        *,
        limits: DashboardLimits | None = None,
        tokens: Mapping[str, str] | None = None,
        listed: Mapping[str, list[Instrument]] = LISTED,
    ) -> None:
        self.layout = Layout(folder / "state", "test", folder / "shm")
        self.layout.state_dir.mkdir(exist_ok=True)
        self.health = ScriptedHealth()
        self.supervisor = _Supervisor(engine_status([]))
        self.backend = Backend(
            self.supervisor.send, self.health, self.layout, configured_knobs=CONFIGURED
        )
        self.supervisor.backend = self.backend
        self.instruments = Listings(VENUES, None, _no_venue, self.backend.tell_listing)
        self.instruments._listings = {
            venue: {each.symbol: each for each in listing} for venue, listing in listed.items()
        }
        self.instruments._announced = set(VENUES)
        guard = Guard.load(None, None, tokens or {})
        services = Services(
            self.backend,
            Admissions(OFFERS, "green", CONFIGURED.max_rows_per_copy),
            self.instruments,
            guard,
        )
        self._api = Api(services, dashboard_limits=limits)
        self.seen_paths: list[str] = []
        self.port = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.say(streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            self.seen_paths.append(scope["path"])
        await self._api(scope, receive, send)

    @property
    def told(self) -> EngineStatus:
        """What the supervisor says the next time, but for the streams."""
        return self.supervisor.told

    def streams(self) -> list[StreamReport]:
        """The streams now."""
        return list(self.backend.streams.values())

    def say(self, streams: list[StreamReport] | None = None) -> None:
        """The supervisor speaks, of these streams from now on."""
        self.within_loop(lambda: self._say(streams))

    def _say(self, streams: list[StreamReport] | None) -> None:
        if streams is not None:
            self.supervisor.streams = {_key(report): report for report in streams}
        self.supervisor.tell()

    def within_loop(self, action: Callable[[], None]) -> None:
        """Do something where the server does its work, and wait for its end."""
        if self.loop is None:
            action()
            return
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def act() -> None:
            action()
            done.set_result(None)

        self.loop.call_soon_threadsafe(act)
        done.result(10)

    @property
    def added(self) -> list[StreamKey]:
        """Streams the API asked the engine to begin."""
        asked = [each for each in self.supervisor.received if isinstance(each, AddStreams)]
        return [request.key for each in asked for request in each.streams]

    @property
    def removed(self) -> list[list[StreamKey]]:
        """Streams the API asked the engine to end, by command."""
        return [each.keys for each in self.supervisor.received if isinstance(each, RemoveStreams)]

    @property
    def renewed(self) -> list[StreamKey]:
        """Books of which the API asked for a snapshot."""
        return [each.key for each in self.supervisor.received if isinstance(each, RenewBook)]

    @property
    def tuned(self) -> list[tuple[StreamKey, Knobs]]:
        """Knobs that the API had changed, as they were then."""
        return self.supervisor.tuned


async def _no_venue(venue: Any) -> list[bytes]:
    raise AssertionError(f"nobody asked for {venue.name}")


def _key(report: StreamReport) -> StreamKey:
    names = ("venue", "symbol", "kind", "transport")
    return msgspec.convert({name: getattr(report, name) for name in names}, StreamKey)


@contextmanager
def serving(
    engine: ScriptedEngine, unread_s: float = 20.0, app: Any = None, port: int = 0
) -> Iterator[str]:
    """Serve the engine's API (or an application around it), from a thread of its own; yields the
    address.
    """
    listener = bind("127.0.0.1", port, unread_s)
    server = make_server(app or engine, BoundedHttp.within(Limits()))
    ready = threading.Event()

    async def serve() -> None:
        engine.loop = asyncio.get_running_loop()
        ready.set()
        await server.serve(sockets=[listener])
        engine.loop = None

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    engine.port = listener.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{engine.port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
