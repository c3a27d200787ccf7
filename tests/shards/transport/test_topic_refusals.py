"""A venue that says no: to whom it says so, and what is asked again and how."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.base.clock import wall_ns
from engine.messages.limits import LimitFeedback
from engine.messages.streams import StreamState
from shards.venues import VENUES
from shards.venues.kit import topics_in
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import (
    CLOSE,
    FakeRig,
    FakeSocket,
    agg_trade,
    binance_symbol,
    coin,
    exchange_info,
    frame,
    running,
)

HL = VENUES["hyperliquid_perp"]


def _topic(name: str, kind: str = "trades") -> str:
    return json.dumps({"type": kind, "coin": name}, separators=(",", ":"))


def _trade(name: str, tid: int) -> dict[str, Any]:
    row = {"coin": name, "side": "B", "px": "10", "sz": "1", "time": tid, "tid": tid}
    return {"channel": "trades", "data": [row]}


async def _two_coins(rig: FakeRig) -> FakeSocket:
    """A socket with two subscriptions, of which BTC delivers."""
    rig.fake.answer("/info#meta", {"universe": [coin("BTC"), coin("ETH")]})
    rig.session.start([spec_of(n, HL.name, name) for n, name in enumerate(("BTC", "ETH"))])
    socket = await rig.fake.socket()
    for name in ("BTC", "ETH"):
        said = await socket.message()
        assert said == {"method": "subscribe", "subscription": json.loads(_topic(name))}
        socket.send({"channel": "subscriptionResponse", "data": said})
    return socket


@pytest.mark.fault("N10")
def test_a_silent_stream_is_unsubscribed_before_it_is_subscribed_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, HL, stale_after_s=0.4) as rig:
            socket = await _two_coins(rig)
            btc, eth = rig.session.streams
            number = 0

            def is_told() -> bool:
                nonlocal number
                number += 1
                socket.send(_trade("BTC", number))
                return eth.state is StreamState.STALE and socket.received.qsize() >= 2

            await rig.until(is_told)
            told = [(said["method"], said["subscription"]) for said in socket.texts()]
            assert told == [
                (method, {"type": "trades", "coin": "ETH"})
                for method in ("unsubscribe", "subscribe")
            ]
            socket.send({"channel": "error", "data": f"Already subscribed: {_topic('ETH')}"})
            socket.send(_trade("BTC", 10_000))
            await rig.until(lambda: btc.status().frame_count > number)
            assert "the venue said" not in eth.reason, "that it is subscribed is what was asked for"
            socket.send(_trade("ETH", 1))
            await rig.until(lambda: eth.state is StreamState.LIVE)
            assert len(rig.double.rows("gap")) == 0

    uvloop.run(body())


@pytest.mark.fault("N10")
@pytest.mark.parametrize(
    ("words", "shown_by"),
    [
        (f"Invalid subscription {_topic('ETH')}", {"ETH"}),
        ('Invalid subscription {"type":"trades","coin":"ETH","dex":null,"x":[{}]}', {"ETH"}),
        (f'Error parsing: {{"method":"subscribe","subscription":{_topic("ETH")}}}', {"ETH"}),
        (f"Invalid subscription {_topic('SOL')}", set()),
        (f"Invalid subscription {_topic('ETH', 'bbo')}", set()),
        ("Error parsing JSON into valid websocket request: {{{{", {"BTC", "ETH"}),
        ("Too many subscriptions", {"BTC", "ETH"}),
        ("{" * 5000, {"BTC", "ETH"}),
    ],
)
def test_a_refusal_is_shown_by_whom_it_is_about(
    tmp_path: Path, words: str, shown_by: set[str]
) -> None:
    async def body() -> None:
        async with running(tmp_path, HL) as rig:
            socket = await _two_coins(rig)
            socket.send({"channel": "error", "data": words})
            socket.send({"channel": "error", "data": f"Invalid subscription {_topic('BTC', 'x')}"})
            await rig.until(lambda: rig.session.connections[0].talk.refusal_count == 2)
            said = {
                stream.key.symbol
                for stream in rig.session.streams
                if f"; the venue said: {words[:300]}" in stream.reason
            }
            assert said == shown_by

    uvloop.run(body())


@pytest.mark.fault("N10")
@pytest.mark.parametrize(
    ("answer", "shown_by"),
    [
        ({"error": {"code": 2, "msg": "Invalid request"}, "id": 2}, {"ETHUSDT"}),
        ({"code": 2, "msg": "Invalid request", "id": 1}, {"BTCUSDT"}),
        ({"code": 2, "msg": "Invalid request: ethusdt@aggTrade"}, {"ETHUSDT"}),
        ({"error": {"code": 2, "msg": "Invalid request"}, "id": 99}, set()),
        ({"code": 3, "msg": "Invalid JSON"}, {"BTCUSDT", "ETHUSDT"}),
    ],
)
def test_a_refusal_of_a_request_is_about_its_topics(
    tmp_path: Path, answer: dict[str, Any], shown_by: set[str]
) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            names = ("BTCUSDT", "ETHUSDT")
            rig.fake.answer("/fapi/v1/exchangeInfo", exchange_info(*map(binance_symbol, names)))
            rig.session.start([spec_of(0, symbol=names[0])])
            socket = await rig.fake.socket()
            await socket.message()
            rig.session.start([spec_of(1, symbol=names[1])])
            await socket.message()
            socket.send(answer)
            await rig.until(lambda: rig.session.connections[0].talk.refusal_count)
            said = {s.key.symbol for s in rig.session.streams if "the venue said" in s.reason}
            assert said == shown_by

    uvloop.run(body())


@pytest.mark.fault("N09")
@pytest.mark.fault("N10")
@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("unknown stream flowusdt@aggTrade", None),
        ("unknown stream 'wusdt@aggTrade'", {"wusdt@aggTrade"}),
        ("[flowusdt@aggTrade,btcusdt@aggTrade]", {"btcusdt@aggTrade"}),
        ("wusdt@aggTrade", {"wusdt@aggTrade"}),
    ],
)
def test_a_name_that_ends_with_another_is_not_that(said: str, named: set[str] | None) -> None:
    assert topics_in(said, ["wusdt@aggTrade", "btcusdt@aggTrade"]) == named


@pytest.mark.fault("N10")
def test_symbols_that_share_a_topic_do_not_share_a_socket(tmp_path: Path) -> None:
    """One that is subscribed under the name of another never gets a row, and spoils that one's."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            names = ("BTCUSDT", "BtcUSDT")
            rig.fake.answer("/fapi/v1/exchangeInfo", exchange_info(*map(binance_symbol, names)))
            rig.session.start([spec_of(n, symbol=name) for n, name in enumerate(names)])
            socket = await rig.fake.socket()
            socket.send(agg_trade("BTCUSDT", 1))
            first, second = rig.session.streams
            await rig.until(lambda: first.row_count == 1)
            assert second.state is StreamState.FAILED
            assert second.reason == (
                "binance_linear calls it 'btcusdt@aggTrade', as it does 'BTCUSDT'"
            )
            rig.session.stop([first.slot, second.slot])
            rig.session.start([spec_of(2, symbol="BtcUSDT")])

            def goes_on() -> bool:
                socket.send(agg_trade("BtcUSDT", 7))
                return rig.session.streams[0].row_count == 1

            await rig.until(goes_on)

    uvloop.run(body())


@pytest.mark.parametrize("how", ["error", "close"])
def test_a_ban_that_a_socket_is_told_holds_back_all_connections(tmp_path: Path, how: str) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer("/fapi/v1/exchangeInfo", exchange_info(binance_symbol("BTCUSDT")))
            rig.session.start([spec_of()])
            socket = await rig.fake.socket()
            until_ms = wall_ns() // 10**6 + 400_000
            words = f"Way too many requests; IP banned until {until_ms}"
            if how == "error":
                socket.send({"error": {"code": -1003, "msg": words}, "id": 1})
            else:
                socket.raw(frame(CLOSE, b"\x03\xf0" + words.encode()))
            await rig.until(lambda: rig.desk.refusal)
            (told,) = [each for each in rig.told if isinstance(each, LimitFeedback)]
            assert (told.pool, told.status) == ("ws_connects", 418)
            assert told.retry_after_s is not None
            assert 390 < told.retry_after_s <= 400

    uvloop.run(body())


def test_a_flood_of_refusals_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with running(tmp_path, HL) as rig:
            socket = await _two_coins(rig)
            for number in range(500):
                socket.send({"channel": "error", "data": f"no {number} {_topic('ETH')}"})
            await rig.until(lambda: rig.session.connections[0].talk.refusal_count == 500)
            await asyncio.sleep(0)

    uvloop.run(body())
    assert caplog.text.count("refused") == 9, "the 1st, 2nd, 4th, 8th, ..."
