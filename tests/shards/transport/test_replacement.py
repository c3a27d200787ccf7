"""Sockets that are replaced while they deliver: real sockets, a venue of the test's own."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import uvloop

from engine.base.clock import monotonic_s
from engine.data.flags import GapReason
from shards.venues import VENUES
from tests.shards.doubles import spec_of, with_places
from tests.shards.fake_venue import (
    TEXT,
    FakeSocket,
    agg_trade,
    binance_symbol,
    exchange_info,
    frame,
    running,
)
from tests.shards.transport.test_connection import Server
from tests.shards.venue_rig import SYMBOLS, Rig, message, run, spec, trade
from tests.waiting import until

SHUTDOWN = b'{"e":"serverShutdown","E":1}'


async def ticking_until(rig: Rig, condition: Callable[[], object]) -> None:
    """What a shard does a few times a second, until something is so."""
    await until(condition, doing=rig.session.tick)


async def replaced(rig: Rig) -> Server:
    """The socket that is opened beside those there are, once it has subscribed."""
    await ticking_until(rig, lambda: not rig.sockets.empty())
    server = await rig.socket()
    assert (await message(server))["method"] == "SUBSCRIBE"
    return server


async def delivering(rig: Rig, *last_ids: int) -> Server:
    """The first socket, on which stream 0, 1, … has brought its trades up to these."""
    rig.session.start([spec(number) for number in range(len(last_ids))])
    server = await rig.socket()
    await message(server)
    for number, last_id in enumerate(last_ids):
        for trade_id in range(1, last_id + 1):
            server.send(trade(SYMBOLS[number], trade_id))
    await rig.until(lambda: all(rig.ids(n) == [*range(1, i + 1)] for n, i in enumerate(last_ids)))
    return server


def gaps(rig: Rig) -> list[tuple[int, int, int, int]]:
    columns = ("stream", "from_seq", "to_seq", "reason")
    return [tuple(int(gap[name]) for name in columns) for gap in rig.double.rows("gap")]  # type: ignore[misc]


@pytest.mark.fault("X01")
def test_the_next_socket_delivers_before_the_present_one_is_closed(tmp_path: Path) -> None:
    """One stream is ahead on the next socket, one behind. Each goes over when it can."""

    async def test(rig: Rig) -> None:
        first = await delivering(rig, 3, 3)
        first.send(SHUTDOWN)
        second = await replaced(rig)
        second.send(trade(SYMBOLS[0], 6))
        second.send(trade(SYMBOLS[1], 2))
        for trade_id in (4, 5):
            first.send(trade(SYMBOLS[0], trade_id))
        await rig.until(lambda: rig.ids(0) == [1, 2, 3, 4, 5])
        assert len(rig.session.connections) == 2, "both are open"
        await ticking_until(rig, lambda: len(rig.session.connections) == 1)
        await asyncio.wait_for(first.transport.wait_disconnected(), 10)
        second.send(trade(SYMBOLS[0], 7))
        for trade_id in (3, 4):
            second.send(trade(SYMBOLS[1], trade_id))
        await rig.until(lambda: rig.ids(1) == [1, 2, 3, 4])
        assert rig.ids(0) == [1, 2, 3, 4, 5, 6, 7]
        assert gaps(rig) == []
        assert rig.session.reconnect_count == 1

    run(tmp_path, test)


@pytest.mark.fault("X01")
def test_a_present_socket_cut_too_early_costs_what_neither_delivered(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        first = await delivering(rig, 3, 3, 3)
        first.send(SHUTDOWN)
        second = await replaced(rig)
        second.send(trade(SYMBOLS[0], 6))
        second.send(trade(SYMBOLS[1], 4))
        await rig.until(lambda: rig.ids(1) == [1, 2, 3, 4])
        first.transport.disconnect()
        await rig.until(lambda: rig.ids(0) == [1, 2, 3, 6])
        assert gaps(rig) == [(0, 4, 5, GapReason.RECONNECT)]
        second.send(trade(SYMBOLS[2], 4))
        await rig.until(lambda: rig.ids(2) == [1, 2, 3, 4])
        assert len(gaps(rig)) == 1, "the third had missed nothing"
        assert rig.sockets.empty(), "the first is not opened anew"
        assert [stream.state for stream in rig.session.streams] == ["live"] * 3

    run(tmp_path, test)


@pytest.mark.fault("X01")
def test_a_next_socket_that_dies_comes_back_and_takes_over_then(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        first = await delivering(rig, 3)
        first.send(SHUTDOWN)
        second = await replaced(rig)
        second.send(trade(SYMBOLS[0], 6))
        second.transport.disconnect()
        first.send(trade(SYMBOLS[0], 4))
        third = await replaced(rig)
        third.send(trade(SYMBOLS[0], 5))
        await rig.until(lambda: rig.ids(0) == [1, 2, 3, 4, 5])
        await ticking_until(rig, lambda: len(rig.session.connections) == 1)
        assert gaps(rig) == []

    run(tmp_path, test)


def test_where_no_further_socket_is_allowed_the_present_one_closes_first(tmp_path: Path) -> None:
    venue = with_places(VENUES["binance_linear"], subscriptions=200, sockets=1)

    async def test(rig: Rig) -> None:
        first = await delivering(rig, 3)
        first.send(SHUTDOWN)
        second = await replaced(rig)
        await asyncio.wait_for(first.transport.wait_disconnected(), 10)
        second.send(trade(SYMBOLS[0], 6))
        await rig.until(lambda: rig.ids(0) == [1, 2, 3, 6])
        assert gaps(rig) == [(0, 4, 5, GapReason.RECONNECT)]

    run(tmp_path, test, venue=venue)


def test_streams_that_begin_meanwhile_open_no_socket_beyond_the_limit(tmp_path: Path) -> None:
    venue = with_places(VENUES["binance_linear"], subscriptions=4, sockets=2)

    async def test(rig: Rig) -> None:
        first = await delivering(rig, 3)
        first.send(SHUTDOWN)
        second = await replaced(rig)
        rig.session.start([spec(1), spec(2)])
        assert len((await message(second))["params"]) == 1, "there is room for one"
        for _ in range(10):
            rig.session.tick()
        assert rig.sockets.empty(), "the third socket waits for the seat of the first"
        second.send(trade(SYMBOLS[0], 4))
        await replaced(rig)
        assert gaps(rig) == []

    run(tmp_path, test, venue=venue, size=2)


def test_sockets_of_one_age_are_replaced_one_after_the_other(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(number) for number in range(3)])
        servers = [await rig.socket() for _ in range(3)]
        for server in servers:
            (topic,) = (await message(server))["params"]
            server.send(trade(topic.partition("@")[0].upper(), 1))
        await rig.until(lambda: all(rig.ids(number) == [1] for number in range(3)))
        await rig.until(lambda: all(each.due for each in rig.session.connections))
        held = rig.session._sockets
        held._settings = msgspec.structs.replace(held._settings, connection_lifetime_s=3600.0)
        for _ in range(3):
            await ticking_until(rig, lambda: not rig.sockets.empty())
            server = await rig.socket()
            (topic,) = (await message(server))["params"]
            for _ in range(10):
                rig.session.tick()
            assert len(rig.session.connections) == 4, "no other one meanwhile"
            symbol = topic.partition("@")[0].upper()
            server.send(trade(symbol, 2))
            number = SYMBOLS.index(symbol)
            await rig.until(lambda number=number: rig.ids(number) == [1, 2])  # type: ignore[misc]
        await ticking_until(rig, lambda: len(rig.session.connections) == 3)
        assert gaps(rig) == []

    run(tmp_path, test, size=1, lifetime_s=0.5)


def test_a_stream_that_ends_during_its_handover_ends_on_both_sockets(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        first = await delivering(rig, 3, 3)
        first.send(SHUTDOWN)
        second = await replaced(rig)
        rig.session.stop([0])
        assert (await message(second))["method"] == "UNSUBSCRIBE"
        second.send(trade(SYMBOLS[0], 4))
        second.send(trade(SYMBOLS[1], 4))
        await rig.until(lambda: rig.ids(1) == [1, 2, 3, 4])
        assert rig.ids(0) == [1, 2, 3]
        assert not rig.session.malformed_by_reason

    run(tmp_path, test)


@pytest.mark.fault("N39")
@pytest.mark.whole
def test_sockets_whose_end_is_announced_at_once_are_replaced_less_and_less(tmp_path: Path) -> None:
    """New sockets are a budget of all streams: four a second leave nothing for the others."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer("/fapi/v1/exchangeInfo", exchange_info(binance_symbol("BTCUSDT")))
            rig.fake.greeting = frame(TEXT, SHUTDOWN)
            rig.session.start([spec_of()])
            sockets: list[FakeSocket] = []
            ends_s = monotonic_s() + 2.5
            trade_id = 0

            def goes_on() -> bool:
                nonlocal trade_id
                if not rig.fake.sockets.empty():
                    sockets.append(rig.fake.sockets.get_nowait())
                trade_id += 1
                for socket in sockets:
                    if not socket.ended.is_set():
                        socket.send(agg_trade("BTCUSDT", trade_id))
                return monotonic_s() > ends_s

            await rig.until(goes_on)
            assert 2 <= rig.fake.handshake_count <= 3, "at once, then after a second"
            ids = rig.double.rows("trade")["trade_id"].tolist()
            assert ids == [*range(ids[0], ids[-1] + 1)]
            assert len(rig.double.rows("gap")) == 0

    uvloop.run(body())
