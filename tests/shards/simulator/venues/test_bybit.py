"""The simulated Bybit keeps the venue's rules, and its ledger is what it sent."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import aiohttp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.simulator.core.frames import Trades, render
from shards.simulator.core.ledger import read_ledger
from shards.simulator.core.market import SIZE_COUNT
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.bybit import BybitInverse, BybitLinear, BybitSpot
from shards.simulator.venues.bybit.trades import uuid_text
from tests.shards.simulator.conftest import receive

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

BYBIT = (BybitLinear, BybitInverse, BybitSpot)
MARKET = "/v5/market"


def asked(op: str, number: str, *topics: str) -> dict[str, object]:
    return {"req_id": number, "op": op, "args": topics}


async def socket_of(client: "Client", category: str) -> aiohttp.ClientWebSocketResponse:
    return await client.socket(f"/bybit_{category}/v5/public/{category}")


async def say(socket: aiohttp.ClientWebSocketResponse, request: object) -> Any:
    """The reply to a request."""
    await socket.send_json(request)
    while "success" not in (said := await receive(socket)):
        pass
    return said


async def subscribed(
    client: "Client", category: str, *topics: str
) -> aiohttp.ClientWebSocketResponse:
    socket = await socket_of(client, category)
    assert (await say(socket, asked("subscribe", "1", *topics)))["success"]
    return socket


async def messages(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[Any]:
    return [await receive(socket) for _ in range(count)]


def quiet(simulated: "Simulated", scenario: Any, ledger: Path | None = None) -> None:
    """A scenario without trades."""
    chosen = SimulatorSettings(trades_per_s=0.0, symbols=3, ledger=ledger)
    simulated(chosen, scenario, BYBIT)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(BYBIT), st.integers(0, 2**32), st.sampled_from([41, 99, 100, 101, 257]),
    st.integers(0, 10**9),
)  # fmt: skip
def test_a_block_of_trades_is_what_its_trades_are_one_by_one(
    make: type[BybitLinear], seed: int, count: int, serial: int
) -> None:
    encoder, rng = make(), np.random.default_rng(seed)
    grid = encoder.grids(5)[seed % 5]
    sizes = rng.integers(1, 10 ** rng.integers(1, 8), SIZE_COUNT)
    state: Any = SimpleNamespace(grid=grid, market=SimpleNamespace(sizes=sizes))
    ids = encoder.trade_ids(seed % 5, serial, count)
    trades = Trades(
        1_795_000_000_000, serial, ids, rng.integers(grid.low_ticks, grid.low_ticks + 3000, count),
        rng.integers(0, SIZE_COUNT, count), rng.random(count) < 0.5, ids, ids,
    )  # fmt: skip
    rows = encoder.trade_rows(state, lambda tick: encoder.price_text(grid, tick))
    frames = bytes(render(rows, trades, (b"", b"")))
    texts = [rows.row(trade) for trade in trades.each()]
    assert [each for each in texts if each.encode() not in frames] == []
    assert sum(map(len, texts)) < len(frames)
    assert len({json.loads(each)["i"] for each in texts}) == count


@given(st.integers(-(2**63), -(2**62) - 1))
def test_an_id_is_a_uuid_with_the_half_that_the_ledger_has(lower: int) -> None:
    found = UUID(uuid_text(lower))
    assert (found.version, found.variant) == (5, "specified in RFC 4122")
    assert found.int & (2**64 - 1) == lower % 2**64


def test_one_bad_topic_has_its_whole_request_refused(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await socket_of(client, "linear")
        good = "publicTrade.BTCUSDT"
        for bad in ("publicTrade.NOPE", "kline.1.BTCUSDT", "orderbook.7.BTCUSDT", "x"):
            said = await say(socket, asked("subscribe", "s1", good, bad))
            text = f"error:handler not found,topic:{bad}"
            assert (said["success"], said["ret_msg"]) == (False, text)
            assert (said["req_id"], said["op"]) == ("s1", "subscribe")
        assert (await say(socket, asked("subscribe", "s2", good)))["success"]
        said = await say(socket, asked("subscribe", "s3", good))
        assert said["ret_msg"] == f"error:already subscribed,topic:{good}"
        assert (await say(socket, asked("unsubscribe", "s4", good)))["success"]
        assert (await say(socket, asked("subscribe", "s5", good)))["success"]
        for nonsense in ({"op": "subscribe", "args": 7}, {"op": "dance", "args": []}, [1]):
            assert not (await say(socket, nonsense))["success"]

    quiet(simulated, scenario)


def test_a_ping_is_answered_as_the_venue_does(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        said = await say(await socket_of(client, "inverse"), {"req_id": "p1", "op": "ping"})
        assert (said["success"], said["ret_msg"], said["op"]) == (True, "pong", "ping")
        assert said["req_id"] == "p1"

    quiet(simulated, scenario)


def test_spot_takes_ten_topics_a_request_and_has_no_contracts(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await socket_of(client, "spot")
        for topic in ("tickers.BTCUSDT", "allLiquidation.BTCUSDT"):
            assert not (await say(socket, asked("subscribe", "1", topic)))["success"]
        words = ("publicTrade", "orderbook.1", "orderbook.1000")
        topics = [
            f"{word}.{symbol}" for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT") for word in words
        ]
        said = await say(socket, asked("subscribe", "2", *topics, "publicTrade.X", "publicTrade.Y"))
        assert said["ret_msg"] == "error:args size >10"
        assert (await say(socket, asked("subscribe", "3", *topics)))["success"]

    quiet(simulated, scenario)


def test_a_book_begins_whole_and_its_messages_are_counted(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        topic = "orderbook.1000.BTCUSDT"
        socket = await subscribed(client, "linear", topic)
        first, *deltas = await messages(socket, 6)
        assert (first["topic"], first["type"]) == (topic, "snapshot")
        assert {each["type"] for each in deltas} == {"delta"}
        numbers = [each["data"]["u"] for each in (first, *deltas)]
        assert [after - before for before, after in pairwise(numbers)] == [1] * 5
        other = await subscribed(client, "linear", topic)
        begun = await receive(other)
        assert begun["type"] == "snapshot"
        book = {side: dict(first["data"][side]) for side in "ba"}
        while numbers[-1] < begun["data"]["u"]:
            deltas.append(await receive(socket))
            numbers.append(deltas[-1]["data"]["u"])
        for each in deltas:
            for side in "ba":
                for price, qty in each["data"][side]:
                    assert book[side].get(price) != qty, "it says nothing that is known"
                    assert float(qty) or price in book[side], "nor removes what is not there"
                    book[side][price] = qty
                    if not float(qty):
                        del book[side][price]
            if each["data"]["u"] == begun["data"]["u"]:
                assert {side: dict(begun["data"][side]) for side in "ba"} == book
        await client.post("/simulator/pause")
        whole = read_ledger(tmp_path).book
        seqs = set(whole["seq"][whole["snapshot"] == 1].tolist())
        assert seqs == {numbers[0], begun["data"]["u"]}

    quiet(simulated, scenario, tmp_path)


def test_a_ticker_begins_with_everything_and_goes_on_with_changes(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        socket = await subscribed(client, "inverse", "tickers.BTCUSD")
        first, second, third = await messages(socket, 3)
        assert [each["type"] for each in (first, second, third)] == ["snapshot", "delta", "delta"]
        assert first["data"]["fundingIntervalHour"] == "8"
        assert "fundingIntervalHour" not in second["data"]
        assert "nextFundingTime" not in third["data"]
        single = int(first["data"]["singleOpenInterest"])
        assert int(first["data"]["openInterest"]) == 2 * single
        await subscribed(client, "inverse", "tickers.BTCUSD")
        await client.post("/simulator/pause")
        times = read_ledger(tmp_path).funding["ts_event"]
        assert len(set(times.tolist())) == len(times), "each moment once, however many were told"
        assert first["ts"] * 1_000_000 in times

    quiet(simulated, scenario, tmp_path)


def test_a_liquidation_names_the_side_of_the_position(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        socket = await subscribed(client, "linear", "allLiquidation.BTCUSDT")
        said = await messages(socket, 3)
        await client.post("/simulator/pause")
        rows = read_ledger(tmp_path).liquidation
        for message, row in zip(said, rows, strict=False):
            (each,) = message["data"]
            assert (each["S"] == "Buy") == (row["side"] == ord("S")), "a long is sold"
            assert int(each["p"].replace(".", "")) == row["price_mantissa"]
            assert row["avg_price_mantissa"] == 0
            assert row["filled_qty_mantissa"] == row["qty_mantissa"]

    chosen = SimulatorSettings(
        trades_per_s=0.0, symbols=1, ledger=tmp_path, liquidations_per_minute=1200.0
    )
    simulated(chosen, scenario, BYBIT)


@pytest.mark.parametrize("category", ["linear", "inverse", "spot"])
def test_instruments_come_in_pages_where_the_venue_has_them(
    simulated: "Simulated", category: str
) -> None:
    async def scenario(client: "Client") -> None:
        path = f"/bybit_{category}{MARKET}/instruments-info?category={category}&limit=2"
        found = (await client.get(path))["result"]
        if category == "spot":
            assert len(found["list"]) == 3
            assert "nextPageCursor" not in found
            return
        assert len(found["list"]) == 2
        rest = (await client.get(f"{path}&cursor={found['nextPageCursor']}"))["result"]
        assert (len(rest["list"]), rest["nextPageCursor"]) == (1, "")

    quiet(simulated, scenario)


def test_what_cannot_be_answered_is_an_error_in_an_answer(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        for path in (
            "tickers?category=spot", "tickers?category=linear&symbol=NOPE",
            "orderbook?category=linear&symbol=NOPE", "recent-trade?category=linear",
            "orderbook?category=linear&symbol=BTCUSDT&limit=x", "instruments-info",
            "funding/history?category=linear&symbol=NOPE",
        ):  # fmt: skip
            assert (await client.get(f"/bybit_linear{MARKET}/{path}"))["retCode"] == 10001, path
        book = await client.get(f"/bybit_linear{MARKET}/orderbook?category=linear&symbol=BTCUSDT")
        assert (book["retCode"], len(book["result"]["b"])) == (0, 25)

    quiet(simulated, scenario)
