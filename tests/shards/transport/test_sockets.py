"""Sockets of a venue: who rides on which, who is heard, and who finds no place."""

import asyncio
import re
from pathlib import Path

import pytest

from engine.base.clock import monotonic_s, wall_ns
from engine.messages.limits import LeaseBlocked
from engine.messages.streams import StreamState
from shards.session import venue_session
from shards.transport import sockets
from shards.venues import VENUES
from tests.shards.doubles import with_places
from tests.shards.venue_rig import SYMBOLS, Rig, message, run, spec, trade


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
        async with asyncio.timeout(30):
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
    venue = with_places(VENUES["binance_linear"], subscriptions=4)

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
        assert rig.places() == {"subscriptions": (4, 1)}
        rig.session.stop([0])
        rig.session.tick()
        assert rig.places() == {"subscriptions": (4, 1)}, "the venue does not know yet"
        assert (await message(server))["method"] == "UNSUBSCRIBE"
        rig.session.tick()
        assert (await message(server))["params"] == ["s4usdt@aggTrade"]
        assert beyond.status().state is StreamState.SYNCING
        rig.session.stop([4])
        await message(server)
        rig.session.tick()
        await rig.until(lambda: rig.places() == {"subscriptions": (3, 0)})

    run(tmp_path, test, venue=venue)


@pytest.mark.fault("A09")
def test_more_shards_than_sockets_wait_for_one_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three shards, an address with two sockets; then one shard is killed, and one lets go."""
    monkeypatch.setattr(sockets, "_LINGER_S", 0.0)
    venue = with_places(VENUES["binance_linear"], subscriptions=8, sockets=2)

    async def test(rig: Rig) -> None:
        late, later = rig.shard("shard-1"), rig.shard("shard-2")
        for number, session in enumerate(rig.sessions):
            session.start([spec(number), spec(number + 3)])
            while sum(rig.places()["sockets"]) <= number:
                await asyncio.sleep(0.005)
        first, second = await rig.socket(), await rig.socket()
        await message(first)
        await message(second)
        stream, _ = later.streams
        await rig.until(lambda: stream.status().state is StreamState.FAILED)
        assert stream.status().reason == (
            "no place: binance_linear allows 2 sockets an address (ws_sockets), and all are taken"
        )
        assert rig.places() == {"subscriptions": (6, 0), "sockets": (2, 1)}
        await rig.sessions.pop(0).close()
        del rig.clients["shard-0"]
        rig.desk.client_ended("shard-0")
        assert (await message(await rig.socket()))["params"] == [
            "s2usdt@aggTrade", "s5usdt@aggTrade",
        ]  # fmt: skip
        rig.shard("shard-0").start([spec(0)])
        await rig.until(lambda: rig.places()["sockets"] == (2, 1))
        late.stop([1, 4])
        async with asyncio.timeout(30):
            while rig.sockets.empty():
                late.tick()
                await asyncio.sleep(0.01)
        assert (await message(await rig.socket()))["params"] == ["s0usdt@aggTrade"]
        assert rig.places() == {"subscriptions": (3, 0), "sockets": (2, 0)}

    run(tmp_path, test, venue=venue, shard_count=3)


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
