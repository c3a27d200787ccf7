"""The simulator as a whole: one HTTP server, all venues, one ledger, and the admin routes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from shards.simulator.core.instruments import (
    VENUE_NAMES,
    binance_instruments,
    hyperliquid_instruments,
)
from shards.simulator.core.ledger import Ledger
from shards.simulator.core.pace import MAX_RATE, PacedVenue, Pacer
from shards.simulator.core.rest_gate import RestGate
from shards.simulator.core.sessions import Hub
from shards.simulator.faults import FaultTarget, inject
from shards.simulator.listing_changes import change_instruments
from shards.simulator.replay import ReplayVenue, add_replay_rest, read_capture
from shards.simulator.settings import SimulatorSettings, parse_rate
from shards.simulator.venues.binance import BinanceVenue
from shards.simulator.venues.binance_rest import add_binance_rest
from shards.simulator.venues.binance_routes import add_binance_streams
from shards.simulator.venues.hyperliquid import HyperliquidVenue
from shards.simulator.venues.hyperliquid_routes import add_hyperliquid

__all__ = ["Simulator"]

_HOST = "127.0.0.1"
_DRAIN_TIMEOUT_S = 30.0
_SHUTDOWN_S = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Simulator:
    """Listens from `start` to `close`; both belong into one event loop."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.port = 0
        self.binance: BinanceVenue | ReplayVenue
        self._app = web.Application()
        gates = _gates(settings)
        if settings.replay is None:
            coins = self._open_markets(settings, gates)
        else:
            coins = self._open_replay(settings, gates)
        self.hyperliquid = coins
        add_binance_streams(self._app, self.binance, gates[0], settings.ping_s)
        add_hyperliquid(self._app, coins, gates[1])
        market = self.binance if isinstance(self.binance, BinanceVenue) else None
        self._targets = {
            VENUE_NAMES[0]: FaultTarget(self.binance.hub, gates[0], market),
            VENUE_NAMES[1]: FaultTarget(coins.hub, gates[1], coins),
        }
        self._add_admin()
        self._runner = web.AppRunner(
            self._app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _open_markets(self, settings: SimulatorSettings, gates: list[RestGate]) -> HyperliquidVenue:
        count, seed = settings.symbols, settings.seed
        names = [(VENUE_NAMES[0], i.symbol) for i in binance_instruments(count)]
        names += [(VENUE_NAMES[1], i.symbol) for i in hyperliquid_instruments(count)]
        in_sums = settings.ledger_in_sums
        self.ledger = Ledger(settings.ledger, VENUE_NAMES, names, in_sums=in_sums)
        binance = BinanceVenue(count, seed, self.ledger, settings.liquidations_per_minute)
        coins = HyperliquidVenue(count, seed, self.ledger, settings.slow_book_s)
        add_binance_rest(self._app, binance, gates[0])
        share = settings.binance_share
        self._pace([(binance, share), (coins, 1.0 - share)], settings.trades_per_s)
        self.binance = binance
        return coins

    def _open_replay(self, settings: SimulatorSettings, gates: list[RestGate]) -> HyperliquidVenue:
        """Serve a recorded session. Nothing is made up beside it: the other venue is silent."""
        assert settings.replay is not None
        capture = read_capture(settings.replay)
        silent = Ledger(None, VENUE_NAMES, [])
        symbols = [entry["symbol"] for entry in json.loads(capture.exchange_info)["symbols"]]
        names = [(VENUE_NAMES[0], symbol) for symbol in symbols]
        self.ledger = Ledger(settings.ledger, VENUE_NAMES, names)
        self.binance = ReplayVenue(capture, settings.speed, self.ledger)
        coins = HyperliquidVenue(1, settings.seed, silent, settings.slow_book_s)
        add_replay_rest(self._app, self.binance, gates[0])
        self._pace([], 0.0)
        return coins

    def _pace(self, venues: list[tuple[PacedVenue, float]], trades_per_s: float) -> None:
        self.pacer = Pacer(venues, self.ledger, trades_per_s, self.settings.seed)

    async def start(self) -> None:
        """Listen and let time pass."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self.settings.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._tasks.append(asyncio.create_task(self.pacer.run()))
        if isinstance(self.binance, ReplayVenue):
            self._tasks.append(asyncio.create_task(self.binance.run()))

    async def wait_failed(self) -> None:
        """Return only by raising, if a task that should run for ever breaks."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Stop the market, drop all sockets, and put the ledger on disk."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task
        for hub in self._hubs():
            for session in list(hub.sessions):
                session.transport.abort()
        await self._runner.cleanup()
        self.ledger.close()

    def _hubs(self) -> tuple[Hub, Hub]:
        return self.binance.hub, self.hyperliquid.hub

    def listening(self) -> dict[str, object]:
        """Say where the venues are."""
        urls = {
            name: {
                "rest_url": f"http://{_HOST}:{self.port}/{name}",
                "ws_url": f"ws://{_HOST}:{self.port}/{name}",
            }
            for name in VENUE_NAMES
        }
        return {"event": "listening", "port": self.port, **urls}

    def status(self) -> dict[str, Any]:
        """Count everything sent so far."""
        hubs = self._hubs()
        rate = self.pacer.trades_per_s
        answer: dict[str, Any] = {
            "sent": _added([hub.sent() for hub in hubs]),
            "served": _added([hub.served_counts for hub in hubs]),
            "connections": sum(len(hub.sessions) for hub in hubs),
            "subscriptions": sum(len(s.names) for hub in hubs for s in hub.sessions),
            "buffered_bytes": sum(hub.buffered_bytes() for hub in hubs),
            "paused": self.pacer.paused,
            "trades_per_s": "max" if rate == MAX_RATE else rate,
            "venues": {
                target.hub.name: target.hub.status() | {"rest": target.gate.status()}
                for target in self._targets.values()
            },
        }
        if isinstance(self.binance, ReplayVenue):
            answer["replay"] = self.binance.status()
        return answer

    def _set_paused(self, *, paused: bool) -> None:
        self.pacer.paused = paused
        if isinstance(self.binance, ReplayVenue):
            self.binance.paused = paused

    async def pause(self, timeout_s: float = _DRAIN_TIMEOUT_S) -> bool:
        """Stop generating, and wait until everything sent is out and in the ledger."""
        self._set_paused(paused=True)
        drained = await self.pacer.drain(timeout_s, self._hubs())
        self.ledger.flush()
        return drained

    def resume(self) -> None:
        """Let time pass again."""
        self._set_paused(paused=False)

    def _add_admin(self) -> None:
        add = self._app.router
        add.add_get("/simulator/status", self._get_status)
        for name, action in (
            ("pause", self._post_pause),
            ("resume", self._post_resume),
            ("rate", self._post_rate),
            ("faults", self._post_faults),
            ("limits", self._post_limits),
            ("instruments", self._post_instruments),
            ("replay", self._post_replay),
        ):
            add.add_post(f"/simulator/{name}", _explained(action))

    async def _get_status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.status())

    async def _post_pause(self, _: web.Request) -> web.StreamResponse:
        drained = await self.pause()
        return web.json_response(self.status(), status=200 if drained else 504)

    async def _post_resume(self, _: web.Request) -> web.StreamResponse:
        self.resume()
        return web.json_response(self.status())

    async def _post_rate(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if not isinstance(body, dict) or set(body) != {"trades_per_s"}:
            raise ValueError('the body must be {"trades_per_s": number or "max"}')
        self.pacer.set_rate(parse_rate(body["trades_per_s"]))
        return web.json_response(self.status())

    async def _post_faults(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(inject(self._targets, await _body(request)))

    async def _post_limits(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if not isinstance(body, dict) or not isinstance(body.get("enforced"), bool):
            raise ValueError('the body must be {"enforced": true or false}')
        for target in self._targets.values():
            target.gate.enforced = body["enforced"]
        return web.json_response(self.status())

    async def _post_instruments(self, request: web.Request) -> web.StreamResponse:
        targets = self._targets.items()
        venues = {name: target.market for name, target in targets if target.market is not None}
        if len(venues) < len(targets):
            raise ValueError("not possible while a recorded session is replayed")
        return web.json_response(change_instruments(venues, await _body(request)))

    async def _post_replay(self, _: web.Request) -> web.StreamResponse:
        if not isinstance(self.binance, ReplayVenue):
            raise ValueError("started without a session to replay")
        self.binance.start()
        return web.json_response(self.status())


def _gates(settings: SimulatorSettings) -> list[RestGate]:
    gates = [
        RestGate("X-MBX-USED-WEIGHT-1M", settings.binance_weight, bans=True),
        RestGate(None, settings.hyperliquid_weight, bans=False),
    ]
    for gate in gates:
        gate.enforced, gate.ban_s = settings.enforce_limits, settings.ban_s
    return gates


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    return {kind: sum(each[kind] for each in counts) for kind in counts[0]}


async def _body(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except ValueError:
        raise ValueError("the body must be JSON") from None


def _explained(handler: Handler) -> Handler:
    """Turn a bad request into a 400 that says what is wrong."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError as error:
            answer = {"error": str(error), "kind": "bad_request"}
            return web.json_response(answer, status=400)

    return handle
