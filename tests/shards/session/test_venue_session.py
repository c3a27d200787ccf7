"""Streams that come and go on live sockets: real sockets, a venue of the test's own."""

import asyncio
from pathlib import Path

import pytest

from engine.data.names import StreamKind
from engine.messages.limits import LeaseBlocked, LeaseRequest
from tests.shards.venue_rig import SYMBOLS, Rig, message, run, spec, trade


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

    run(tmp_path, test)


def test_a_stream_that_comes_back_declares_what_it_missed(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(0), spec(1)])
        server = await rig.socket()
        server.send(trade(SYMBOLS[1], 10))
        await rig.until(lambda: rig.ids(1) == [10])
        rig.session.stop([1])
        server.send(trade(SYMBOLS[1], 11))
        server.send(trade(SYMBOLS[0], 1))
        await rig.until(lambda: rig.ids(0) == [1])
        rig.session.start([spec(1)])
        await rig.until(lambda: rig.session.streams[-1].state == "syncing")
        assert rig.session.streams[-1].row_count == 0, "its earlier life is counted elsewhere"
        assert rig.session.counts_by_kind[StreamKind.TRADES].row_count == 2
        server.send(trade(SYMBOLS[1], 15))
        await rig.until(lambda: rig.ids(1) == [10, 15])
        counts = rig.session.counts_by_kind[StreamKind.TRADES]
        assert (counts.row_count, counts.missing_count) == (3, 4), "over all lives"
        rig.session.stop([0, 1])
        assert rig.session.counts_by_kind == {StreamKind.TRADES: counts}
        (gap,) = rig.double.rows("gap")
        assert (gap["stream"], gap["from_seq"], gap["to_seq"], gap["missing"]) == (1, 11, 14, 4)

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
        async with asyncio.timeout(30):
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
def test_a_venue_that_bans_requests_holds_up_no_subscription(tmp_path: Path) -> None:
    """Neither at a start nor later: a shard asks nobody what the venue lists."""

    async def test(rig: Rig) -> None:
        rig.withheld = {"rest_weight"}
        rig.leases.blocked(LeaseBlocked("binance_linear", "rest_weight", 3600.0))
        for number in range(2):
            rig.session.start([spec(number)])
            if not number:
                server = await rig.socket()
            assert (await message(server))["params"] == [f"s{number}usdt@aggTrade"]
        assert not any(isinstance(m, LeaseRequest) and m.pool == "rest_weight" for m in rig.sent)
        assert rig.listing_count == 0

    run(tmp_path, test)
