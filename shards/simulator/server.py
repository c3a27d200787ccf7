"""The simulator as a whole: one HTTP server, all venues, one ledger, and the admin routes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web

from shards.simulator.core.encoder import Encoder
from shards.simulator.core.ledger import Ledger
from shards.simulator.core.limits import LimitBook, Pools, RestGate
from shards.simulator.core.market import Scene
from shards.simulator.core.pace import MAX_RATE, Pacer
from shards.simulator.core.sessions import Hub
from shards.simulator.core.venue import SimVenue
from shards.simulator.faults import FaultTarget, inject
from shards.simulator.listing_changes import change_instruments
from shards.simulator.replay import ReplayVenue, add_replay_rest, read_capture
from shards.simulator.routes import add_rest, add_sockets
from shards.simulator.settings import SimulatorSettings, parse_rate, tls_context
from shards.simulator.venues import chosen

__all__ = ["Simulator"]

_HOST = "127.0.0.1"
_DRAIN_TIMEOUT_S = 30.0
_SHUTDOWN_S = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Simulator:
    """Listens from `start` to `close`; both belong into one event loop."""

    def __init__(
        self,
        settings: SimulatorSettings,
        encoders: Sequence[Callable[[], Encoder]] | None = None,
    ) -> None:
        """Simulate one venue an encoder, where none are given those that the settings name; the
        first gets its share of the trades, the others the
        rest. A recorded session takes the place of the first, beside which all are silent.
        """
        self.settings = settings
        self.port = 0
        self.tls_port = 0
        """0 where venues speak no TLS."""
        self.replay: ReplayVenue | None = None
        self.venues: dict[str, SimVenue] = {}
        self._pools = Pools()
        self._app = web.Application()
        made = [encoder() for encoder in encoders or chosen(settings.venues)]
        names = tuple(encoder.name for encoder in made)
        if settings.replay is None:
            listed = [(e.name, grid.symbol) for e in made for grid in e.grids(settings.symbols)]
            own = {kind: layout for e in made for kind, layout in e.own_kinds.items()}
            self.ledger = Ledger(
                settings.ledger, names, listed, in_sums=settings.ledger_in_sums, own_kinds=own
            )
            self._open_markets(made, 0, self._scene(settings.symbols), self.ledger)
        else:
            self._open_replay(made, names)
        self._pace()
        self._targets = {name: self._target(venue) for name, venue in self._all().items()}
        for venue in self._all().values():
            add_sockets(self._app, venue.encoder, venue, settings.ping_s)
        self._add_admin()
        self._runner = web.AppRunner(
            self._app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _scene(self, symbols: int) -> Scene:
        settings = self.settings
        return Scene(symbols, settings.seed, settings.liquidations_per_minute, settings.slow_book_s)

    def _open_markets(
        self, encoders: Sequence[Encoder], first: int, scene: Scene, ledger: Ledger
    ) -> None:
        for number, encoder in enumerate(encoders, first):
            venue = SimVenue(encoder, number, scene, ledger, self._gate(encoder))
            venue.gate.limits.follow(venue.hub.sessions)
            self.venues[encoder.name] = venue
            add_rest(self._app, venue)

    def _open_replay(self, encoders: Sequence[Encoder], names: tuple[str, ...]) -> None:
        """Serve a recorded session. Nothing is made up beside it: the other venues are silent."""
        settings = self.settings
        assert settings.replay is not None
        capture = read_capture(settings.replay)
        listed = [(names[0], symbol) for symbol in capture.symbols]
        self.ledger = Ledger(settings.ledger, names, listed)
        gate = self._gate(encoders[0])
        self.replay = ReplayVenue(capture, settings.speed, self.ledger, encoders[0], gate)
        gate.limits.follow(self.replay.hub.sessions)
        add_replay_rest(self._app, self.replay)
        self._open_markets(encoders[1:], 1, self._scene(1), Ledger(None, names, []))

    def _gate(self, encoder: Encoder) -> RestGate:
        settings = self.settings
        table = [settings.told(limit) for limit in encoder.limits]
        enforced = settings.enforce_limits
        limits = LimitBook(encoder.name, table, self._pools, enforced=enforced)
        return RestGate(limits, encoder.weight_header, encoder.bans, encoder.busy, settings.ban_s)

    def _pace(self) -> None:
        settings, venues = self.settings, list(self.venues.values())
        first = settings.binance_share if len(venues) > 1 else 1.0
        shares = [first] + [(1.0 - first) / max(1, len(venues) - 1)] * (len(venues) - 1)
        lanes = [] if self.replay else list(zip(venues, shares, strict=True))
        rate = 0.0 if self.replay else settings.trades_per_s
        self.pacer = Pacer(
            lanes, self.ledger, rate, settings.seed,
            on_schedule=settings.on_schedule, book_speed=settings.book_speed,
        )  # fmt: skip

    def _all(self) -> dict[str, SimVenue | ReplayVenue]:
        replay = {self.replay.hub.name: self.replay} if self.replay else {}
        return {**replay, **self.venues}

    @staticmethod
    def _target(venue: SimVenue | ReplayVenue) -> FaultTarget:
        market = venue if isinstance(venue, SimVenue) else None
        return FaultTarget(venue.encoder, venue.hub, venue.gate, market)

    async def start(self) -> None:
        """Listen and let time pass."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self.settings.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        if self.settings.certificate is not None:
            context = tls_context(self.settings.certificate)
            await web.TCPSite(self._runner, _HOST, 0, ssl_context=context).start()
            self.tls_port = self._runner.addresses[1][1]
        self._tasks.append(asyncio.create_task(self.pacer.run()))
        if self.replay is not None:
            self._tasks.append(asyncio.create_task(self.replay.run()))

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

    def _hubs(self) -> list[Hub]:
        return [target.hub for target in self._targets.values()]

    def listening(self) -> dict[str, object]:
        """Say where the venues are."""
        at, s = f"{_HOST}:{self.tls_port or self.port}", "s" * bool(self.tls_port)
        urls = {
            name: {"rest_url": f"http{s}://{at}/{name}", "ws_url": f"ws{s}://{at}/{name}"}
            for name in self._targets
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
        if self.settings.on_schedule:
            answer["book_speed"] = self.pacer.book_speed
            answer["late_ms"] = self.pacer.late_ns / 1e6
        if self.replay is not None:
            answer["replay"] = self.replay.status()
        return answer

    def limits(self) -> dict[str, list[dict[str, object]]]:
        """Give the ledger of limits: of each venue what was used of each at most."""
        targets = self._targets.values()
        return {target.hub.name: target.gate.limits.ledger() for target in targets}

    def _set_paused(self, *, paused: bool) -> None:
        self.pacer.paused = paused
        if self.replay is not None:
            self.replay.paused = paused

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
        add.add_get("/simulator/limits", self._get_limits)
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

    async def _get_limits(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.limits())

    async def _post_pause(self, _: web.Request) -> web.StreamResponse:
        drained = await self.pause()
        return web.json_response(self.status(), status=200 if drained else 504)

    async def _post_resume(self, _: web.Request) -> web.StreamResponse:
        self.resume()
        return web.json_response(self.status())

    async def _post_rate(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        known = {"trades_per_s", "book_speed"}
        if not isinstance(body, dict) or not body or not known.issuperset(body):
            raise ValueError(
                'the body must be {"trades_per_s": number or "max", "book_speed": number}, or one'
            )
        self.pacer.set_rate(
            parse_rate(body.get("trades_per_s", self.pacer.trades_per_s)),
            parse_rate(body.get("book_speed", self.pacer.book_speed)),
        )
        return web.json_response(self.status())

    async def _post_faults(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(inject(self._targets, await _body(request)))

    async def _post_limits(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if not isinstance(body, dict) or not isinstance(body.get("enforced"), bool):
            raise ValueError('the body must be {"enforced": true or false}')
        for target in self._targets.values():
            target.gate.limits.enforced = body["enforced"]
        return web.json_response(self.status())

    async def _post_instruments(self, request: web.Request) -> web.StreamResponse:
        if self.replay is not None:
            raise ValueError("not possible while a recorded session is replayed")
        return web.json_response(change_instruments(self.venues, await _body(request)))

    async def _post_replay(self, _: web.Request) -> web.StreamResponse:
        if self.replay is None:
            raise ValueError("started without a session to replay")
        self.replay.start()
        return web.json_response(self.status())


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    kinds = dict.fromkeys(kind for each in counts for kind in each)
    return {kind: sum(each.get(kind, 0) for each in counts) for kind in kinds}


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
