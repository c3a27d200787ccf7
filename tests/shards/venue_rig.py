"""A venue of the test's own, with REST and real sockets, and shards' sessions with it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from picows import ws_create_server

from engine.data.layout import Layout, open_layout
from engine.data.names import StreamKind
from engine.limits.lease_desk import LeaseDesk
from engine.limits.leases import LeaseClient
from engine.messages.limits import (
    BudgetAnnounced,
    LeaseAnswer,
    LeaseGranted,
    LeaseRequest,
    LimitFeedback,
    PlacesGranted,
    PlacesWanted,
)
from engine.messages.pipes import FromChild
from engine.messages.settings import VenueSettings
from engine.messages.streams import StreamSpec
from shards.session.venue_session import VenueSession
from shards.venues import VENUES
from shards.venues.budgets import limits_of
from shards.venues.kit import Venue
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.transport.test_connection import Server
from tests.waiting import until

SYMBOLS = [f"S{number}USDT" for number in range(450)]


def trade(symbol: str, trade_id: int) -> bytes:
    return (
        b'{"e":"aggTrade","E":1,"s":"%s","a":%d,"p":"10.5","q":"2","f":1,"l":1,"T":%d,"m":false}'
        % (symbol.encode(), trade_id, 1_700_000_000_000 + trade_id)
    )


def spec(number: int, kind: StreamKind = StreamKind.TRADES) -> StreamSpec:
    """Slot `number` is the trades of symbol `number`."""
    return spec_of(number, symbol=SYMBOLS[number], kind=kind)


class Rig:
    """A venue with REST and sockets, and a session with it."""

    def __init__(
        self, layout: Layout, settings: VenueSettings, venue: Venue, shard_count: int
    ) -> None:
        self.sockets: asyncio.Queue[Server] = asyncio.Queue()
        self.refusals: list[web.Response] = []
        self.snapshots: list[bytes] = []
        self.listing_count = 0
        self.double = MemoryRings()
        self.sent: list[FromChild] = []
        self.withheld: set[str] = set()
        self.faults: list[BaseException] = []
        self.rate_limits: list[dict[str, Any]] = []
        self._layout, self._settings, self._venue = layout, settings, venue
        self._shard_count = shard_count
        self.desk = LeaseDesk(limits_of(venue), layout.limits, self._answer)
        self.clients: dict[str, LeaseClient] = {}
        self.sessions: list[VenueSession] = []
        self.session = self.shard("shard-0", self.double)
        self.leases = self.clients["shard-0"]

    def shard(self, name: str, double: MemoryRings | None = None) -> VenueSession:
        """A shard's session with the venue; all of them ask the same desk."""
        self.clients[name] = LeaseClient(partial(self._send, name))
        self.sessions.append(
            VenueSession(
                self._venue,
                self._settings,
                (double or MemoryRings()).rings,
                self._layout,
                self.faults.append,
                self.clients[name],
                shard_count=self._shard_count,
            )
        )
        return self.sessions[-1]

    def _send(self, name: str, message: FromChild) -> None:
        self.sent.append(message)
        loop = asyncio.get_running_loop()
        if isinstance(message, PlacesWanted):
            loop.call_soon(self.desk.want, name, message)
        elif isinstance(message, LimitFeedback):
            loop.call_soon(self.desk.feedback, message)
        elif isinstance(message, LeaseRequest) and message.pool not in self.withheld:
            granted = LeaseGranted(message.request_id)
            loop.call_soon(self.clients[name].granted, granted)

    def _answer(self, name: str, message: LeaseAnswer) -> None:
        if isinstance(message, PlacesGranted | BudgetAnnounced) and name in self.clients:
            self.clients[name].take(message)

    def budget(self, pool: str) -> float:
        """What may be spent in a window, as the desk says."""
        (budget,) = [each.budget for each in self.desk.reports() if each.pool == pool]
        return budget

    def places(self) -> dict[str, tuple[float, int]]:
        """Of what may be held at once, how much is held and how much is waited for."""
        return {
            each.pool.removeprefix("ws_"): (each.used, each.waiting_count)
            for each in self.desk.reports()
            if each.window_s is None
        }

    async def fetch_listing(self) -> list[bytes]:
        """As the control process does."""
        return await self.session._rest.listing()

    async def exchange_info(self, _: web.Request) -> web.Response:
        self.listing_count += 1
        if self.refusals:
            return self.refusals.pop(0)
        symbols = [
            {"symbol": name, "status": "TRADING", "baseAsset": name, "quoteAsset": "USDT",
             "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01"},
                         {"filterType": "LOT_SIZE", "stepSize": "0.001"}]}
            for name in SYMBOLS
        ]  # fmt: skip
        headers = {"X-MBX-USED-WEIGHT-1M": "7"}
        body = {"rateLimits": self.rate_limits, "symbols": symbols}
        return web.json_response(body, headers=headers)

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def socket(self) -> Server:
        return await asyncio.wait_for(self.sockets.get(), 10)

    def ids(self, slot: int) -> list[int]:
        rows = self.double.rows("trade")
        found: list[int] = rows["trade_id"][rows["stream"] == slot].tolist()
        return found


async def message(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await asyncio.wait_for(server.received.get(), 10))
    return found


def run(
    tmp_path: Path,
    test: Callable[[Rig], Awaitable[None]],
    size: int | None = None,
    *,
    venue: Venue = VENUES["binance_linear"],
    shard_count: int = 1,
    lifetime_s: float | None = None,
    stale_after_s: float | None = None,
) -> None:
    async def body() -> None:
        app = web.Application()
        runner = web.AppRunner(app)
        layout = open_layout(tmp_path / "state", tmp_path)
        rigs: list[Rig] = []

        async def exchange_info(request: web.Request) -> web.Response:
            return await rigs[0].exchange_info(request)

        async def depth(_: web.Request) -> web.Response:
            return web.Response(body=rigs[0].snapshots.pop(0))

        app.router.add_get("/fapi/v1/exchangeInfo", exchange_info)
        app.router.add_get("/fapi/v1/depth", depth)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        rest_port = runner.addresses[0][1]
        server = await ws_create_server(lambda _: Server(rigs[0].sockets), "127.0.0.1", 0)
        settings = VenueSettings(
            rest_url=f"http://127.0.0.1:{rest_port}",
            ws_url=f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            streams_per_connection=size,
            connection_lifetime_s=lifetime_s,
            stale_after_s=stale_after_s,
        )
        rigs.append(Rig(layout, settings, venue, shard_count))
        try:
            await asyncio.wait_for(test(rigs[0]), 40)
            assert rigs[0].faults == []
        finally:
            for session in rigs[0].sessions:
                await session.close()
            await rigs[0].desk.close()
            server.close()
            await server.wait_closed()
            await runner.cleanup()

    uvloop.run(body())
