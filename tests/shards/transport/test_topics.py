"""A topic carries any number of streams, of several kinds or of all symbols; real sockets."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.data.flags import GapReason
from engine.data.names import StreamKind, Transport
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds import handover
from shards.feeds.contracts import Liquidations
from shards.venues import VENUES
from shards.venues.kit import Channel, Venue
from tests.shards.doubles import spec_of, with_places
from tests.shards.fake_venue import (
    FakeRig,
    agg_trade,
    binance_symbol,
    exchange_info,
    running,
)

BINANCE = VENUES["binance_linear"]
NAMES = ("BTCUSDT", "ETHUSDT")
KINDS = (StreamKind.TRADES, StreamKind.TICKER)
ALL = "!forceOrder@arr"
SHUTDOWN = b'{"e":"serverShutdown","E":1}'


def shared(**changes: Any) -> Venue:
    """Binance, if trades and quotes of a symbol had one topic, and all liquidations another."""
    channels = {
        (kind, Transport.WS): Channel(
            "market",
            BINANCE.channels[kind, Transport.WS].feed,
            lambda symbol, _: f"{symbol.lower()}@all",
            300.0,
        )
        for kind in KINDS
    }
    everybody = Channel("market", Liquidations, lambda *_: ALL, math.inf, is_of_all_symbols=True)
    own = {**BINANCE.channels, **channels, (StreamKind.LIQUIDATIONS, Transport.WS): everybody}
    group = dataclasses.replace(BINANCE.groups["market"], message_interval_s=0.0)
    groups = {**BINANCE.groups, "market": group}
    return dataclasses.replace(BINANCE, channels=own, groups=groups, **changes)


def both(symbol: str = "BTCUSDT", slot: int = 0) -> list[StreamSpec]:
    return [spec_of(slot + n, symbol=symbol, kind=kind) for n, kind in enumerate(KINDS)]


def quote(number: int, symbol: str = "BTCUSDT") -> dict[str, Any]:
    return {
        "e": "bookTicker", "u": number, "s": symbol, "b": "1", "B": "1", "a": "2", "A": str(number),
        "T": 1_700_000_000_000 + number, "E": 1,
    }  # fmt: skip


def liquidation(symbol: str) -> dict[str, Any]:
    order = {
        "s": symbol,
        "S": "BUY",
        "q": "1",
        "p": "2",
        "ap": "2",
        "z": "1",
        "T": 1_700_000_000_000,
    }
    return {"e": "forceOrder", "E": 1, "o": order}


def listing(rig: FakeRig) -> None:
    rig.fake.answer("/fapi/v1/exchangeInfo", exchange_info(*map(binance_symbol, NAMES)))


def said(method: str, *topics: str, number: int) -> dict[str, Any]:
    return {"method": method, "params": list(topics), "id": number}


def test_two_kinds_on_a_topic_are_subscribed_with_the_first_and_ended_with_the_last(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with running(tmp_path, shared()) as rig:
            listing(rig)
            first, second = both()
            rig.session.start([first])
            socket = await rig.fake.socket()
            assert await socket.message() == said("SUBSCRIBE", "btcusdt@all", number=1)
            rig.session.start([second])
            await rig.until(lambda: len(rig.session.streams) == 2)
            await rig.until(lambda: rig.session.streams[1].state is StreamState.SYNCING)
            trades, quotes = rig.session.streams
            socket.send(agg_trade("BTCUSDT", 1))
            socket.send(quote(1))
            await rig.until(lambda: trades.row_count == quotes.row_count == 1)
            rig.session.stop([first.slot])
            socket.send(agg_trade("BTCUSDT", 2))
            socket.send(quote(2))
            await rig.until(lambda: quotes.row_count == 2)
            assert rig.session.malformed_by_reason == {}, "it was under way"
            rig.session.start([spec_of(7, symbol="ETHUSDT")])
            assert await socket.message() == said("SUBSCRIBE", "ethusdt@all", number=2)
            rig.session.stop([second.slot])
            assert await socket.message() == said("UNSUBSCRIBE", "btcusdt@all", number=3)
            assert trades.row_count == 1

    uvloop.run(body())


def test_a_topic_of_all_symbols_brings_the_rows_of_each_that_is_wanted(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, with_places(shared(), subscriptions=1, sockets=1)) as rig:
            listing(rig)
            kind = StreamKind.LIQUIDATIONS
            rig.session.start([spec_of(n, symbol=name, kind=kind) for n, name in enumerate(NAMES)])
            socket = await rig.fake.socket()
            assert await socket.message() == said("SUBSCRIBE", ALL, number=1)
            for name in (*NAMES, "SOLUSDT"):
                socket.send(liquidation(name))
            await rig.until(lambda: [s.row_count for s in rig.session.streams] == [1, 1])
            states = {stream.state for stream in rig.session.streams}
            assert states == {StreamState.LIVE}, "one subscription is enough for both"
            assert rig.session.malformed_by_reason == {"not_subscribed": 1}, (
                "nobody takes the third"
            )

    uvloop.run(body())


def test_streams_of_a_topic_move_to_the_next_socket_together(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, shared()) as rig:
            listing(rig)
            rig.session.start(both())
            old = await rig.fake.socket()
            trades, quotes = rig.session.streams
            for number in (1, 2):
                old.send(agg_trade("BTCUSDT", number))
                old.send(quote(number))
            await rig.until(lambda: trades.row_count == quotes.row_count == 2)
            old.send(SHUTDOWN)
            await rig.until(lambda: len(rig.session.connections) == 2)
            new = await rig.fake.socket()
            assert await new.message() == said("SUBSCRIBE", "btcusdt@all", number=1)
            new.send(agg_trade("BTCUSDT", 2))
            new.send(agg_trade("BTCUSDT", 3))
            await rig.until(lambda: trades.row_count == 3)
            assert quotes.row_count == 2
            new.send(quote(2))
            new.send(quote(3))
            await rig.until(lambda: quotes.row_count == 3)
            await rig.until(lambda: len(rig.session.connections) == 1)
            assert len(rig.double.rows("gap")) == 0
            assert new.received.empty()

    uvloop.run(body())


def test_a_silent_stream_whose_topic_is_heard_is_not_asked_for_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, shared(), stale_after_s=0.3) as rig:
            listing(rig)
            rig.session.start(both())
            socket = await rig.fake.socket()
            await socket.message()
            trades, quotes = rig.session.streams
            number = 0

            def is_stale() -> bool:
                nonlocal number
                number += 1
                socket.send(agg_trade("BTCUSDT", number))
                return quotes.state is StreamState.STALE and number > 150

            await rig.until(is_stale)
            assert quotes.reason == "no data for 0 s, though its topic is heard"
            assert trades.state is StreamState.LIVE
            assert socket.received.empty()
            assert len(rig.session.connections) == 1
            socket.send(quote(1))
            await rig.until(lambda: quotes.state is StreamState.LIVE)

    uvloop.run(body())


def test_streams_follow_the_one_that_left_a_deaf_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_CONFIRMED_S", 0.3)

    async def body() -> None:
        async with running(tmp_path, shared(), stale_after_s=0.2) as rig:
            listing(rig)
            rig.session.start(both())
            old = await rig.fake.socket()
            trades, quotes = rig.session.streams
            old.send(agg_trade("BTCUSDT", 1))
            old.send(quote(1))
            await rig.until(lambda: trades.row_count == quotes.row_count == 1)
            (first,) = rig.session.connections
            await rig.until(lambda: len(rig.session.connections) == 2)
            new = await rig.fake.socket()
            await new.message()
            number = 1

            def is_over() -> bool:
                nonlocal number
                number += 1
                new.send(agg_trade("BTCUSDT", number))
                new.send(quote(number))
                carrying = [each for each in rig.session.connections if each.streams]
                return len(carrying) == 1 and carrying[0] is not first and number > 20

            await rig.until(is_over)
            await rig.until(lambda: trades.row_count == number)
            (gap,) = rig.double.rows("gap")
            assert (gap["stream"], gap["reason"]) == (quotes.slot, GapReason.SILENCE)

    uvloop.run(body())
