"""Streams that come and go on live sockets: real sockets, a venue of the test's own."""

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web

from engine.data.names import StreamKind
from engine.messages.limits import LeaseBlocked, LeaseGranted, LeaseRequest
from engine.messages.streams import StreamState
from shards.session import instruments, venue_session
from tests.shards.doubles import spec_of
from tests.shards.venue_rig import SYMBOLS, Rig, described, message, run, spec, trade


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
def test_a_ban_that_is_known_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_PATIENCE_S", 60.0)

    async def test(rig: Rig) -> None:
        rig.withheld = {"rest_weight"}
        rig.session.start([described(0)])
        rig.leases.blocked(LeaseBlocked("binance_linear", "rest_weight", 3600.0))
        server = await rig.socket()
        assert (await message(server))["params"] == ["s0usdt@aggTrade"]

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
