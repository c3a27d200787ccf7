"""Streams that come and go on live sockets: real sockets, a venue of the test's own."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from aiohttp import web
from picows import ws_create_server

from engine.catalog import Instrument, StreamKind
from engine.clock import monotonic_s, wall_ns
from engine.commands import (
    FromChild,
    LeaseBlocked,
    LeaseGranted,
    LeaseRequest,
    LimitFeedback,
    SeatsGranted,
    SeatsWanted,
    StreamSpec,
    StreamState,
)
from engine.layout import Layout, open_layout
from engine.lease_desk import LeaseDesk
from engine.settings import VenueSettings
from shards import instruments, sockets, venue_session
from shards.leases import LeaseClient
from shards.venue_session import VenueSession
from shards.venues import VENUES
from shards.venues.budgets import limits_of
from shards.venues.spec import Venue
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.test_connection import Server

SYMBOLS = [f"S{number}USDT" for number in range(450)]


def trade(symbol: str, trade_id: int) -> bytes:
    return (
        b'{"e":"aggTrade","E":1,"s":"%s","a":%d,"p":"10.5","q":"2","f":1,"l":1,"T":%d,"m":false}'
        % (symbol.encode(), trade_id, 1_700_000_000_000 + trade_id)
    )


def spec(number: int, kind: StreamKind = StreamKind.TRADES) -> StreamSpec:
    """Slot `number` is the trades of symbol `number`."""
    return spec_of(number, symbol=SYMBOLS[number], kind=kind)


def described(number: int) -> StreamSpec:
    """The same, as the stream table knows it from an earlier run."""
    facts = Instrument("binance_linear", SYMBOLS[number], 2, 3, SYMBOLS[number], "USDT", "0.01")
    return msgspec.structs.replace(spec(number), instrument=facts)


class Rig:
    """A venue with REST and sockets, and a session with it."""

    def __init__(
        self, layout: Layout, settings: VenueSettings, venue: Venue, shard_count: int
    ) -> None:
        self.sockets: asyncio.Queue[Server] = asyncio.Queue()
        self.listed = list(SYMBOLS)
        self.refusals: list[web.Response] = []
        self.snapshots: list[bytes] = []
        self.listing_count = 0
        self.double = MemoryRings()
        self.sent: list[FromChild] = []
        self.withheld: set[str] = set()
        self.faults: list[BaseException] = []
        self.stored: list[dict[int, Instrument]] = []
        self.tick_size = "0.01"
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
                self._store,
                self.faults.append,
                self.clients[name],
                shard_count=self._shard_count,
            )
        )
        return self.sessions[-1]

    def _send(self, name: str, message: FromChild) -> None:
        self.sent.append(message)
        loop = asyncio.get_running_loop()
        if isinstance(message, SeatsWanted):
            loop.call_soon(self.desk.want, name, message)
        elif isinstance(message, LimitFeedback):
            loop.call_soon(self.desk.feedback, message)
        elif isinstance(message, LeaseRequest) and message.pool not in self.withheld:
            granted = LeaseGranted(message.request_id)
            loop.call_soon(self.clients[name].granted, granted)

    def _answer(self, name: str, message: LeaseGranted | LeaseBlocked | SeatsGranted) -> None:
        if isinstance(message, SeatsGranted) and name in self.clients:
            self.clients[name].seated(message)

    def budget(self, pool: str) -> float:
        """What may be spent in a window, as the desk says."""
        (budget,) = [each.budget for each in self.desk.reports() if each.pool == pool]
        return budget

    def seats(self) -> dict[str, tuple[float, int]]:
        """Of what may be held at once, how much is held and how much is waited for."""
        return {
            each.pool.removeprefix("ws_"): (each.used, each.waiting_count)
            for each in self.desk.reports()
            if each.window_s is None
        }

    async def _store(self, instruments: dict[int, Instrument]) -> None:
        self.stored.append(instruments)
        await asyncio.sleep(0)

    async def exchange_info(self, _: web.Request) -> web.Response:
        self.listing_count += 1
        if self.refusals:
            return self.refusals.pop(0)
        symbols = [
            {"symbol": name, "status": "TRADING", "baseAsset": name, "quoteAsset": "USDT",
             "filters": [{"filterType": "PRICE_FILTER", "tickSize": self.tick_size}]}
            for name in self.listed
        ]  # fmt: skip
        headers = {"X-MBX-USED-WEIGHT-1M": "7"}
        body = {"rateLimits": self.rate_limits, "symbols": symbols}
        return web.json_response(body, headers=headers)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

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


def test_a_new_stream_joins_the_socket_and_a_removed_one_leaves_it(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(0)])
        server = await rig.socket()
        first = await message(server)
        assert first == {"method": "SUBSCRIBE", "params": ["s0usdt@aggTrade"], "id": 1}
        server.send(trade(SYMBOLS[0], 1))
        rig.session.start([spec(1), spec(2)])
        assert (await message(server))["params"] == ["s1usdt@aggTrade", "s2usdt@aggTrade"]
        server.send(trade(SYMBOLS[0], 2))
        server.send(trade(SYMBOLS[1], 70))
        await rig.until(lambda: rig.ids(1) == [70])
        rig.session.stop([1])
        assert await message(server) == {
            "method": "UNSUBSCRIBE", "params": ["s1usdt@aggTrade"], "id": 3,
        }  # fmt: skip
        server.send(trade(SYMBOLS[1], 71))
        server.send(trade(SYMBOLS[0], 3))
        await rig.until(lambda: rig.ids(0) == [1, 2, 3])
        assert rig.ids(1) == [70], "what comes late is nobody's"
        assert not rig.session.malformed_by_reason
        server.send(trade("STRANGER", 1))
        await rig.until(lambda: rig.session.malformed_by_reason)
        assert rig.session.malformed_by_reason == {"not_subscribed": 1}
        assert [stream.slot for stream in rig.session.streams] == [0, 2]
        assert rig.sockets.empty(), "one socket, all the time"
        assert rig.listing_count == 1

    run(tmp_path, test)


def test_a_stream_that_comes_back_declares_what_it_missed(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(0), spec(1)])
        server = await rig.socket()
        server.send(trade(SYMBOLS[1], 10))
        await rig.until(lambda: rig.ids(1) == [10])
        rig.session.stop([1])
        server.send(trade(SYMBOLS[1], 11))
        rig.session.start([spec(1)])
        await rig.until(lambda: rig.session.streams[-1].state == "syncing")
        assert rig.session.streams[-1].row_count == 0, "its earlier life is counted elsewhere"
        assert rig.session.counts_by_kind[StreamKind.TRADES].row_count == 1
        server.send(trade(SYMBOLS[1], 15))
        await rig.until(lambda: rig.ids(1) == [10, 15])
        counts = rig.session.counts_by_kind[StreamKind.TRADES]
        assert (counts.row_count, counts.missing_count) == (2, 4), "over all lives"
        rig.session.stop([0, 1])
        assert rig.session.counts_by_kind == {StreamKind.TRADES: counts}
        (gap,) = rig.double.rows("gap")
        assert (gap["stream"], gap["from_seq"], gap["to_seq"], gap["missing"]) == (1, 11, 14, 4)

    run(tmp_path, test)


def test_full_sockets_are_left_alone_and_empty_ones_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_LINGER_S", 0.1)

    async def test(rig: Rig) -> None:
        rig.session.start([spec(0), spec(1)])
        first = await rig.socket()
        rig.session.start([spec(2)])
        second = await rig.socket()
        assert (await message(second))["params"] == ["s2usdt@aggTrade"]
        await rig.until(lambda: all(c.is_connected for c in rig.session.connections))
        rig.session.stop([0, 1])
        async with asyncio.timeout(10):
            while len(rig.session.connections) == 2:
                rig.session.tick()
                await asyncio.sleep(0.01)
        await asyncio.wait_for(first.transport.wait_disconnected(), 10)
        second.send(trade(SYMBOLS[2], 5))
        await rig.until(lambda: rig.ids(2) == [5])
        rig.session.start([spec(3)])
        await rig.until(second.received.qsize)
        assert rig.sockets.empty(), "there was room"

    run(tmp_path, test, size=2)


def test_hundreds_are_subscribed_in_few_messages_at_the_venues_pace(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        rig.session.start([spec(0)])
        server = await rig.socket()
        await message(server)
        began_s = loop.time()
        rig.session.start([spec(number) for number in range(1, 450)])
        sizes = [len((await message(server))["params"]) for _ in range(2)]
        assert sizes == [100, 99]
        assert loop.time() - began_s >= VENUES["binance_linear"].groups["market"].message_interval_s
        counts = []
        for other in [await rig.socket(), await rig.socket()]:
            sizes = [len((await message(other))["params"])]
            if sizes == [100]:
                sizes.append(len((await message(other))["params"]))
            counts.append(sum(sizes))
        assert sorted(counts) == [50, 200], "whichever connects first"

    run(tmp_path, test)


def test_a_symbol_nobody_lists_is_never_subscribed_and_found_once_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_MISSING_AGE_S", 0.0)

    async def test(rig: Rig) -> None:
        rig.listed.remove(SYMBOLS[7])
        rig.session.start([spec(0)])
        server = await rig.socket()
        await message(server)
        rig.session.start([spec(7)])
        await rig.until(lambda: rig.session.streams[-1].state == "failed")
        assert "did you mean" in rig.session.streams[-1].reason
        rig.listed.append(SYMBOLS[7])
        rig.session.stop([7])
        rig.session.start([spec(7)])
        assert (await message(server))["params"] == ["s7usdt@aggTrade"]
        assert rig.listing_count == 3

    run(tmp_path, test)


@pytest.mark.fault("A10")
def test_a_stream_begins_by_itself_once_its_symbol_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_MISSING_AGE_S", 0.0)
    monkeypatch.setattr(venue_session, "_TRY_AGAIN_EVERY_S", 0.0)

    async def test(rig: Rig) -> None:
        late = rig.listed.pop()
        rig.session.start([spec_of(7, symbol=late)])
        await rig.until(lambda: rig.session.streams[0].state == "failed")
        rig.session.tick()
        rig.listed.append(late)
        while rig.sockets.empty():
            rig.session.tick()
            await asyncio.sleep(0.01)
        server = await rig.socket()
        assert (await message(server))["params"] == [f"{late.lower()}@aggTrade"]

    run(tmp_path, test)


@pytest.mark.fault("K01")
@pytest.mark.parametrize("set_by_s", [3600.0, -3600.0])
def test_silence_is_measured_by_a_clock_nobody_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by_s: float
) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(0)])
        server = await rig.socket()
        server.send(trade(SYMBOLS[0], 1))
        await rig.until(lambda: rig.ids(0) == [1])
        (stream,) = rig.session.streams
        rig.session.tick()
        passed_s = 0.0
        monkeypatch.setattr(
            venue_session, "wall_ns", lambda: wall_ns() + int((set_by_s + passed_s) * 1e9)
        )
        monkeypatch.setattr(venue_session, "monotonic_s", lambda: monotonic_s() + passed_s)
        rig.session.tick()
        assert stream.status().state is StreamState.LIVE, "it delivered a moment ago"
        passed_s = 301.0
        rig.session.tick()
        assert stream.status().state is StreamState.STALE
        assert (await message(server))["id"] == 1
        assert (await message(server))["params"] == ["s0usdt@aggTrade"], "subscribed again"
        passed_s = 0.0

    run(tmp_path, test)


@pytest.mark.fault("A09")
def test_what_the_venue_does_not_allow_an_address_is_not_asked_for(tmp_path: Path) -> None:
    venue = dataclasses.replace(VENUES["binance_linear"], subscriptions_max=4)

    async def test(rig: Rig) -> None:
        rig.session.start([spec(number) for number in range(5)])
        server = await rig.socket()
        assert len((await message(server))["params"]) == 4
        *_, beyond = rig.session.streams
        await rig.until(lambda: beyond.status().state is StreamState.FAILED)
        assert beyond.status().reason == (
            "no place: binance_linear allows 4 subscriptions an address (ws_subscriptions),"
            " and all are taken"
        )
        assert rig.seats() == {"subscriptions": (4, 1)}
        rig.session.stop([0])
        rig.session.tick()
        assert rig.seats() == {"subscriptions": (4, 1)}, "the venue does not know yet"
        assert (await message(server))["method"] == "UNSUBSCRIBE"
        rig.session.tick()
        assert (await message(server))["params"] == ["s4usdt@aggTrade"]
        assert beyond.status().state is StreamState.SYNCING
        rig.session.stop([4])
        await message(server)
        rig.session.tick()
        await rig.until(lambda: rig.seats() == {"subscriptions": (3, 0)})

    run(tmp_path, test, venue=venue)


@pytest.mark.fault("A09")
def test_more_shards_than_sockets_wait_for_one_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three shards, an address with two sockets; then one shard is killed, and one lets go."""
    monkeypatch.setattr(sockets, "_LINGER_S", 0.0)
    venue = dataclasses.replace(VENUES["binance_linear"], subscriptions_max=8, sockets_max=2)

    async def test(rig: Rig) -> None:
        late, later = rig.shard("shard-1"), rig.shard("shard-2")
        for number, session in enumerate(rig.sessions):
            session.start([spec(number), spec(number + 3)])
            while sum(rig.seats()["sockets"]) <= number:
                await asyncio.sleep(0.005)
        first, second = await rig.socket(), await rig.socket()
        await message(first)
        await message(second)
        stream, _ = later.streams
        await rig.until(lambda: stream.status().state is StreamState.FAILED)
        assert stream.status().reason == (
            "no place: binance_linear allows 2 sockets an address (ws_sockets), and all are taken"
        )
        assert rig.seats() == {"subscriptions": (6, 0), "sockets": (2, 1)}
        await rig.sessions.pop(0).close()
        del rig.clients["shard-0"]
        rig.desk.client_ended("shard-0")
        assert (await message(await rig.socket()))["params"] == [
            "s2usdt@aggTrade", "s5usdt@aggTrade",
        ]  # fmt: skip
        rig.shard("shard-0").start([spec(0)])
        await rig.until(lambda: rig.seats()["sockets"] == (2, 1))
        late.stop([1, 4])
        async with asyncio.timeout(10):
            while rig.sockets.empty():
                late.tick()
                await asyncio.sleep(0.01)
        assert (await message(await rig.socket()))["params"] == ["s0usdt@aggTrade"]
        assert rig.seats() == {"subscriptions": (3, 0), "sockets": (2, 0)}

    run(tmp_path, test, venue=venue, shard_count=3)


def test_a_storm_of_starts_and_stops_leaves_what_was_wanted_last(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(0)])
        server = await rig.socket()
        await message(server)
        for number in range(300):
            rig.session.start([spec(1), spec(2)])
            if number % 7 == 0:
                await asyncio.sleep(0.003)
            rig.session.stop([1])
            rig.session.stop([2])
        rig.session.start([spec(1)])
        wanted = {"s0usdt@aggTrade", "s1usdt@aggTrade"}
        subscribed = {"s0usdt@aggTrade"}
        async with asyncio.timeout(10):
            while subscribed != wanted:
                sent = await message(server)
                change = subscribed.update if sent["method"] == "SUBSCRIBE" else None
                (change or subscribed.difference_update)(sent["params"])
        server.send(trade(SYMBOLS[1], 5))
        await rig.until(lambda: rig.ids(1) == [5])
        assert len(rig.session.connections) == 1
        await rig.until(lambda: len(rig.session._tasks) <= 5)  # four snapshot workers, one socket

    run(tmp_path, test)


@pytest.mark.fault("H02")
def test_a_ban_is_passed_on_and_what_was_granted_before_it_waits(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        rig.refusals.append(web.Response(status=418, headers={"Retry-After": "1"}))
        began_s = loop.time()
        rig.session.start([spec(0)])
        await rig.socket()
        assert loop.time() - began_s >= 1.0
        feedback = [each for each in rig.sent if isinstance(each, LimitFeedback)]
        banned = LimitFeedback("binance_linear", "rest_weight", retry_after_s=1.0, status=418)
        pools = ("rest_funding", "rest_polls")
        others = [msgspec.structs.replace(banned, pool=pool) for pool in pools]
        used = LimitFeedback("binance_linear", "rest_weight", used=7.0)
        told = [feedback[0], *sorted(feedback[1:-1], key=lambda each: each.pool), feedback[-1]]
        assert told == [banned, *others, used], "a ban is about the address, whatever the pool"
        assert rig.listing_count == 2

    run(tmp_path, test)


@pytest.mark.fault("H03")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "HTTP 403: its firewall refuses this address"),
        (451, "HTTP 451: it does not serve this region"),
    ],
)
def test_an_address_that_is_refused_asks_nothing_more(
    tmp_path: Path, status: int, words: str
) -> None:
    async def test(rig: Rig) -> None:
        rig.refusals.append(web.Response(status=status, body=b"<html>"))
        rig.session.start([spec(0)])
        pools = {"rest_weight", "rest_polls", "rest_funding"}
        await rig.until(
            lambda: pools == {each.pool for each in rig.desk.reports() if each.blocked_s}
        )
        assert {each.blocked_reason for each in rig.desk.reports() if each.blocked_s} == {words}
        assert rig.desk.refusal.startswith(f"binance_linear: {words}; asked again in ")
        (stream,) = rig.session.streams

        def says_so() -> bool:
            rig.session.tick()
            return words in stream.status().reason

        await rig.until(says_so)
        await rig.until(lambda: "blocked" in rig.session._instruments.trouble)
        assert words in rig.session._instruments.trouble
        assert rig.listing_count == 1

    run(tmp_path, test)


@pytest.mark.fault("X05")
def test_sockets_that_wait_for_the_end_of_a_refusal_say_so(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.withheld = {"ws_connects"}
        rig.session.start([spec(0)])
        (stream,) = rig.session.streams
        await rig.until(lambda: "its turn" in stream.status().reason)
        rig.leases.blocked(LeaseBlocked("binance_linear", "ws_connects", 3600.0, 451))
        rig.session.tick()
        assert stream.status().state is StreamState.CONNECTING
        assert re.fullmatch(
            r"waiting for the budget ws_connects, blocked 3[56]\d\d s"
            r" \(HTTP 451: it does not serve this region\)",
            stream.status().reason,
        )

    run(tmp_path, test)


@pytest.mark.fault("H07")
def test_the_weight_a_venue_announces_is_followed_downwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_AGE_S_MAX", 0.0)

    async def test(rig: Rig) -> None:
        minute = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
        orders = {**minute, "rateLimitType": "ORDERS", "limit": 10}
        for number, (announced, allowed) in enumerate(
            (
                ([{**minute, "limit": 1200}, orders], 1200),
                ([{**minute, "limit": 9000}], 2400),
                ([{**minute, "limit": 9000}, {**minute, "interval": "HOUR", "limit": 6000}], 100),
                ([], 100),
                ([{**minute, "limit": 0}], 100),
                ([{**minute, "interval": "FORTNIGHT", "limit": 1}], 100),
                ([{**minute, "limit": 2400}], 2400),
            )
        ):
            rig.rate_limits = announced
            rig.session.start([spec(number)])
            await rig.until(lambda: rig.session.streams[-1].state is StreamState.SYNCING)
            await rig.until(lambda: rig.listing_count == len(rig.session.streams))
            assert rig.budget("rest_weight") == pytest.approx(0.8 * allowed)
            assert rig.budget("rest_polls") == pytest.approx(0.48 * allowed)
            rig.session.tick()
            assert rig.session._poll_share.weight_per_minute == pytest.approx(0.432 * allowed)

    run(tmp_path, test)


@pytest.mark.fault("H05")
def test_a_hostile_answer_costs_another_call_and_not_the_shard(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        for body in (
            b'{"x":' + b"[" * 100_000,
            b'{"symbols":[{"symbol":"\xff"}]}',
            b"<html>",
            b"null",
            b'{"symbols":[]}',
        ):
            rig.refusals.append(web.Response(body=body))
        rig.session.start([spec(0)])
        await rig.socket()
        assert rig.listing_count == 6
        assert rig.faults == []

    run(tmp_path, test)


@pytest.mark.fault("H05")
def test_a_hostile_snapshot_costs_another_call_and_not_the_shard(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.snapshots += [
            b'{"lastUpdateId":5,"T":1,"bids":' + b"[" * 100_000,
            b'{"lastUpdateId":5,"T":1,"bids":[["\xff","1"]],"asks":[]}',
            b'{"lastUpdateId":5,"T":1,"bids":[["1e999","1"]],"asks":[]}',
            b'{"lastUpdateId":5,"T":1,"bids":[["10","1"]],"asks":[]}',
        ]
        rig.session.start([spec(0, StreamKind.L2_BOOK)])
        server = await rig.socket()
        server.send(
            b'{"e":"depthUpdate","E":1,"T":1,"s":"S0USDT","U":4,"u":6,"pu":3,"b":[["9","1"]],"a":[]}'
        )
        (book,) = rig.session.streams
        await rig.until(lambda: book.status().state is StreamState.LIVE)
        assert rig.snapshots == []
        assert rig.double.rows("book")["seq"].tolist() == [5, 6]

    run(tmp_path, test)


def test_nothing_is_asked_of_a_venue_without_a_lease(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.withheld = {"rest_weight"}
        rig.session.start([spec(0)])
        await rig.until(lambda: rig.sent)
        request = rig.sent[0]
        assert isinstance(request, LeaseRequest)
        assert (request.pool, request.units, rig.listing_count) == ("rest_weight", 1, 0)
        rig.withheld.clear()
        rig.leases.granted(LeaseGranted(request.request_id))
        await rig.socket()
        pools = [each.pool for each in rig.sent if isinstance(each, LeaseRequest)]
        assert pools == ["rest_weight", "ws_connects"]

    run(tmp_path, test)


@pytest.mark.fault("H02")
def test_a_ban_from_rest_holds_up_nobody_whose_instrument_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at a restart nor later, whoever waits already."""
    monkeypatch.setattr(instruments, "_PATIENCE_S", 0.1)

    async def test(rig: Rig) -> None:
        rig.withheld = {"rest_weight"}
        rig.session.start([described(0), spec(1)])
        server = await rig.socket()
        assert (await message(server))["params"] == ["s0usdt@aggTrade"]
        rig.session.start([described(2)])
        assert (await message(server))["params"] == ["s2usdt@aggTrade"]
        rig.leases.blocked(LeaseBlocked("binance_linear", "rest_weight", 3600.0))
        rig.session.tick()
        bare = rig.session.streams[1].status()
        assert bare.state is StreamState.CONNECTING
        assert re.fullmatch(
            r"instruments: waiting for the budget rest_weight, blocked 3[56]\d\d s", bare.reason
        )
        assert sorted(slot for news in rig.stored for slot in news) == [0, 2]
        (asked,) = [m for m in rig.sent if isinstance(m, LeaseRequest) and m.pool == "rest_weight"]
        rig.tick_size = "0.0001"
        rig.leases.granted(LeaseGranted(asked.request_id))
        assert (await message(server))["params"] == ["s1usdt@aggTrade"]
        news = {slot: facts for stored in rig.stored for slot, facts in stored.items()}
        assert [news[slot].price_decimals for slot in range(3)] == [4, 4, 4], "what has changed"
        assert rig.listing_count == 1

    run(tmp_path, test)


@pytest.mark.fault("H02")
def test_what_began_on_old_facts_ends_when_the_venue_lists_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_PATIENCE_S", 0.1)

    async def test(rig: Rig) -> None:
        rig.listed.remove(SYMBOLS[0])
        rig.refusals += [web.Response(status=503) for _ in range(2)]
        rig.session.start([described(0), described(1)])
        server = await rig.socket()
        assert (await message(server))["params"] == ["s0usdt@aggTrade", "s1usdt@aggTrade"]
        assert await message(server) == {
            "method": "UNSUBSCRIBE", "params": ["s0usdt@aggTrade"], "id": 2,
        }  # fmt: skip
        gone, other = rig.session.streams
        assert gone.status().state is StreamState.FAILED
        assert "lists no 'S0USDT'" in gone.status().reason
        server.send(trade(SYMBOLS[1], 1))
        await rig.until(lambda: other.status().state is StreamState.LIVE)
        rig.session.stop([0])

    run(tmp_path, test)


def test_what_the_engine_heard_later_is_not_hidden_by_a_young_listing(tmp_path: Path) -> None:
    """A tick size has changed, and a symbol is gone, since this shard asked a moment ago."""

    async def test(rig: Rig) -> None:
        rig.session.start([spec(0)])
        await message(await rig.socket())
        rig.tick_size = "0.0001"
        known = Instrument(
            "binance_linear", SYMBOLS[1], 4, 3, SYMBOLS[1], "USDT", "0.0001", "0.001",
            status="TRADING",
        )  # fmt: skip
        before = msgspec.structs.replace(spec(1), instrument=known, listed_s=0.0)
        rig.session.start([before])
        await rig.until(lambda: len(rig.stored) == 2)
        assert rig.stored[1][1].price_decimals == 2, "from an earlier run"
        rig.session.stop([1])
        later = msgspec.structs.replace(before, listed_s=monotonic_s(), slot=11)
        rig.session.start([later])
        await rig.until(lambda: len(rig.stored) == 3)
        assert rig.stored[2][11].price_decimals == 4
        assert rig.listing_count == 2
        rig.listed.remove(SYMBOLS[2])
        gone = msgspec.structs.replace(spec(2), listed_s=monotonic_s())
        rig.session.start([gone])
        await rig.until(lambda: rig.session.streams[-1].state is StreamState.FAILED)
        assert rig.listing_count == 3
        rig.session.start([msgspec.structs.replace(spec(3), instrument=known, listed_s=1e-9)])
        await rig.until(lambda: len(rig.stored) == 4)
        assert rig.listing_count == 3, "an earlier one is no news"

    run(tmp_path, test)


def test_facts_are_asked_for_again_when_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(0)])
        server = await rig.socket()
        await message(server)
        rig.tick_size = "0.0001"
        rig.session.start([spec(1)])
        await message(server)
        assert [news[slot].price_decimals for slot, news in enumerate(rig.stored)] == [2, 2]
        monkeypatch.setattr(instruments, "_MISSING_AGE_S", 0.0)
        rig.session.start([described(2)])
        await message(server)
        assert rig.stored[2][2].price_decimals == 4, "what the engine knows is something else"
        monkeypatch.setattr(instruments, "_AGE_S_MAX", 0.0)
        rig.tick_size = "0.001"
        rig.session.start([spec(3)])
        await message(server)
        assert rig.stored[3][3].price_decimals == 3, "the listing is old"
        assert rig.listing_count == 3

    run(tmp_path, test)
