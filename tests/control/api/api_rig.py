"""The API over a supervisor of the test's own: in process, or on a real socket."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.types import ASGIApp

from control.api.admission import Admissions
from control.api.routes import Services
from control.app import Api
from control.http.auth import Guard
from control.http.protocol import BoundedHttp, Limits
from control.main import make_server
from control.state.backend import Backend
from control.state.health import Health
from control.state.listings import Listings
from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.layout import Layout
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.control import (
    AddStreams,
    CommandResult,
    KeyResult,
    RemoveStreams,
    RenewBook,
    SetKnobs,
    SystemStatus,
    UpgradeEngine,
)
from engine.messages.listings import ListingLoaded
from engine.messages.pipes import FromChild
from engine.messages.settings import Admission
from engine.messages.status import (
    ChildReport,
    EngineStatus,
    Light,
    LimiterReport,
    ShardReport,
    StreamReport,
    UpgradeReport,
    WriterReport,
)
from engine.messages.streams import KnobChanges, StreamRequest, StreamState
from engine.messages.upkeep import DatabaseReport
from engine.messages.writer import SinkStatus
from shards.venues import VENUES

WS, POLL = Transport.WS, Transport.HTTP_POLL
OFFERED = {
    "binance_linear": [
        (StreamKind.TRADES, WS), (StreamKind.L2_BOOK, WS), (StreamKind.FUNDING, WS),
        (StreamKind.FUNDING, POLL), (StreamKind.OPEN_INTEREST, POLL), (StreamKind.LIQUIDATIONS, WS),
    ],
    "hyperliquid_perp": [
        (StreamKind.TRADES, WS), (StreamKind.L2_BOOK, WS), (StreamKind.FUNDING_OPEN_INTEREST, WS),
        (StreamKind.FUNDING_OPEN_INTEREST, POLL),
    ],
}  # fmt: skip
OFFERS = VENUES | {
    name: replace(VENUES[name], channels={each: VENUES[name].channels[each] for each in offered})
    for name, offered in OFFERED.items()
}
"""The venues, two with fewer kinds: something must not be on offer."""
MAX_ROWS_PER_COPY = 100_000
BINANCE = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCUSDC"]
HYPERLIQUID = ["BTC", "ETH", "kPEPE", "xyz:TSLA", "PURR/USDC", "币安人生"]


def instrument(venue: str, symbol: str, **changes: Any) -> Instrument:
    """An instrument that trades."""
    quote = "USDC" if venue == "hyperliquid_perp" else symbol[-4:]
    base = symbol.removesuffix(quote) or symbol
    facts = Instrument(
        venue, symbol, 2, 3, base=base, quote=quote, tick_size="0.01", lot_size="0.001",
        status="TRADING", state=InstrumentState.TRADING, kind=InstrumentKind.PERPETUAL,
        settle=quote, contract_unit=SizeUnit.BASE,
    )  # fmt: skip
    return msgspec.structs.replace(facts, **changes)


class Supervisor:
    """Answers commands as the engine does, or not at all (`deaf`)."""

    def __init__(self) -> None:
        self.streams: dict[StreamKey, StreamReport] = {}
        self.deaf = False
        self.answer_kind = ""
        self.received: list[FromChild] = []
        self.stored_instruments: list[ListingLoaded] = []
        self.backend: Backend | None = None
        self.upkeep: list[DatabaseReport] = []
        self.release = ""
        self.writer = WriterReport(
            ChildReport("writer", "up"),
            sinks=[SinkStatus("database", "up"), SinkStatus("redis", "up")],
        )
        self.phase: Any = "running"
        self.verdict: tuple[Light, str] = ("green", "all streams deliver")
        self.blocked_s = 0.0
        self.shard_state: Any = "up"
        self.upgrade: UpgradeReport | None = None
        self.no_upgrade = ""
        """Why none can be begun."""

    def send(self, message: FromChild) -> None:
        """The pipe: the answer comes in a later turn of the loop."""
        self.received.append(message)
        if isinstance(message, ListingLoaded):
            self.stored_instruments.append(message)
        elif not self.deaf:
            results = self._results(message)
            request_id = getattr(message, "request_id", 0)
            why_not = self.no_upgrade if isinstance(message, UpgradeEngine) else ""
            result = CommandResult(request_id, results, why_not)
            asyncio.get_running_loop().call_soon(self._answer, result)

    def _answer(self, result: CommandResult) -> None:
        """Behind a status that shows the effect, as the real one does."""
        assert self.backend is not None
        self.tell()
        self.backend.take(result)

    def runs(self, supervisor: str, child: str = "") -> None:
        """Which code the engine runs, and its writer, if that is another one."""
        self.release = supervisor
        self.writer.child.release = child or supervisor

    def tell(self) -> None:
        """Send a status."""
        assert self.backend is not None
        body = msgspec.Raw(msgspec.json.encode(self.status()))
        self.backend.take(SystemStatus(body))

    def status(self) -> EngineStatus:
        """The engine."""
        shard = ShardReport(ChildReport("shard-0", self.shard_state, reason="killed"), 0, 0)
        limiter = LimiterReport(
            "binance_linear", "rest_weight", 2400, 60, 400, 398.0, self.blocked_s
        )
        return EngineStatus(
            *self.verdict, self.phase, "x", 12.5, [shard], self.writer,
            ChildReport("control", "up"), list(self.streams.values()), [limiter],
            upkeep=self.upkeep, upgrade=self.upgrade, upgrades={"done": 2}, release=self.release,
        )  # fmt: skip

    def run(self, key: StreamKey, state: StreamState = StreamState.LIVE) -> None:
        """Have a stream."""
        self.streams[key] = StreamReport(
            len(self.streams), key.venue, key.symbol, key.kind.value, 0, key.transport.value,
            state=state,
        )  # fmt: skip

    def _results(self, message: FromChild) -> list[KeyResult]:
        match message:
            case AddStreams():
                return [self._add(request) for request in message.streams]
            case RemoveStreams():
                return [self._remove(key) for key in message.keys]
            case SetKnobs():
                return [self._tune(message.key, message.changes)]
            case RenewBook():
                return [KeyResult(message.key)]
            case _:
                return []

    def _add(self, request: StreamRequest) -> KeyResult:
        key = request.key
        if self.answer_kind:
            return KeyResult(key, self.answer_kind, "refused by the supervisor")
        if key in self.streams:
            return KeyResult(key, "stream_exists", f"{key} exists")
        self.run(key, StreamState.PENDING)
        self.streams[key].knobs = request.knobs
        return KeyResult(key)

    def _tune(self, key: StreamKey, changes: KnobChanges) -> KeyResult:
        if key not in self.streams:
            return KeyResult(key, "stream_not_found", f"{key} is not running")
        knobs = changes.over(self.streams[key].knobs)
        if problem := knobs.contradiction(MAX_ROWS_PER_COPY):
            return KeyResult(key, "contradiction", problem, field="flush_rows")
        self.streams[key].knobs = knobs
        return KeyResult(key)

    def _remove(self, key: StreamKey) -> KeyResult:
        if self.streams.pop(key, None) is None:
            return KeyResult(key, "stream_not_found", f"{key} is not running")
        return KeyResult(key)


class Answer(msgspec.Struct):
    """What came back."""

    status: int
    headers: dict[str, str]
    text: bytes

    @property
    def body(self) -> Any:
        """As JSON."""
        return json.loads(self.text)


class Rig:
    """An API with everything behind it faked but itself. Made inside a running loop."""

    def __init__(
        self,
        *,
        guard: Guard | None = None,
        admission: Admission = "green",
        hold_s: float = 0.0,
        timeout_s: float = 0.2,
        listed: bool = True,
        allowed_hosts: tuple[str, ...] = (),
        layout: Layout | None = None,
    ) -> None:
        self.supervisor = Supervisor()
        self.listings = {
            "binance_linear": [instrument("binance_linear", symbol) for symbol in BINANCE],
            "hyperliquid_perp": [instrument("hyperliquid_perp", symbol) for symbol in HYPERLIQUID],
        }
        self.health = Health(hold_s)
        self.backend = Backend(self.supervisor.send, self.health, layout, timeout_s)
        self.supervisor.backend = self.backend
        self.instruments = Listings(VENUES, None, self._fetch, self.backend.tell_listing)
        if listed:
            self.instruments._listings = {
                venue: {each.symbol: each for each in self.listings.get(venue, ())}
                for venue in VENUES
            }
            self.instruments._announced = set(VENUES)
        guard = guard or Guard.load(None, None, {})
        self.services = Services(
            self.backend, Admissions(OFFERS, admission, MAX_ROWS_PER_COPY), self.instruments, guard
        )
        self.serve(self.services, allowed_hosts)
        self.supervisor.tell()

    def serve(self, services: Services, allowed_hosts: tuple[str, ...] = ()) -> None:
        """Have these answer what is asked."""
        self.services = services
        self.app = Api(services, allowed_hosts)
        self.served: ASGIApp = self.app
        """Who answers."""

    async def _fetch(self, venue: Any) -> list[bytes]:
        raise AssertionError(f"nobody asked for {venue.name}")

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """One request, spoken in ASGI."""
        path, _, query = target.partition("?")
        payload = raw if raw is not None else b"" if body is None else msgspec.json.encode(body)
        sent_headers = {"host": "127.0.0.1:8080"}
        if payload:
            sent_headers |= {
                "content-type": "application/json", "content-length": str(len(payload)),
            }  # fmt: skip
        sent_headers |= {name.lower(): value for name, value in (headers or {}).items()}
        return await self._speak(method, path, query, sent_headers, payload)

    async def _speak(
        self, method: str, path: str, query: str, headers: dict[str, str], payload: bytes
    ) -> Answer:
        parts: Iterator[bytes] = iter([payload])
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            try:
                return {"type": "http.request", "body": next(parts), "more_body": False}
            except StopIteration:
                await asyncio.sleep(3600)
                return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(),
            "query_string": query.encode(), "http_version": "1.1", "scheme": "http",
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()
                        if v != DROP],
            "client": ("127.0.0.1", 50_000),
        }  # fmt: skip
        await self.served(scope, receive, send)
        got = {n.decode("latin-1"): v.decode("latin-1") for n, v in sent[0]["headers"]}
        return Answer(sent[0]["status"], got, b"".join(each.get("body", b"") for each in sent[1:]))


DROP = "\0drop"
"""A header value that means: do not send this header."""


def run_with_rig(scenario: Callable[[Rig], Any], **options: Any) -> Any:
    """Run an async scenario with a rig."""

    async def main() -> Any:
        return await scenario(Rig(**options))

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def served(rig: Rig, limits: Limits | None = None) -> AsyncIterator[int]:
    """The rig's API on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = make_server(rig.app, BoundedHttp.within(limits or Limits()))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    telling = asyncio.create_task(_keep_telling(rig.supervisor))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield listener.getsockname()[1]
    finally:
        telling.cancel()
        server.should_exit = True
        await serving
        listener.close()


async def _keep_telling(supervisor: Supervisor) -> None:
    """As the real one does: its silence would turn the light red."""
    while True:
        await asyncio.sleep(0.5)
        supervisor.tell()
