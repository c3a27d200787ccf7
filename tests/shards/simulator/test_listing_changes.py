"""Instruments come, change and go while the simulator runs."""

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shards.simulator.core.ledger import Ledger, read_ledger
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues import ENCODERS

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

REST = "/binance_linear/fapi/v1/"
INFO = "/hyperliquid_perp/info"
ADMIN = "/simulator/instruments"


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=10)


async def symbols(client: "Client") -> dict[str, Any]:
    info = await client.get(REST + "exchangeInfo")
    return {entry["symbol"]: entry for entry in info["symbols"]}


def tick_of(entry: dict[str, Any]) -> Any:
    return next(f["tickSize"] for f in entry["filters"] if f["filterType"] == "PRICE_FILTER")


def test_a_listed_symbol_trades_and_has_a_number_of_its_own(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        assert (await client.status_of(REST + "depth?symbol=NEWUSDT"))[0] == 400
        request = {"venue": "binance_linear", "action": "list", "symbol": "NEWUSDT", "price": 42.0}
        answer = await client.post(ADMIN, {**request, "tick_size": "0.010", "step_size": "0.01"})
        assert (answer["status"], answer["tick_size"]) == ("TRADING", "0.010")
        coin = {"venue": "hyperliquid_perp", "action": "list", "symbol": "NEW", "sz_decimals": 1}
        await client.post(ADMIN, {**coin, "price": 3.5})
        assert tick_of((await symbols(client))["NEWUSDT"]) == "0.010"
        names = ["newusdt@aggTrade", "newusdt@markPrice@1s", "newusdt@forceOrder"]
        market = await client.binance("market", *names)
        kinds: dict[str, Any] = {}
        while len(kinds) < 3:
            event = await receive(market)
            kinds.setdefault(event["e"], event)
        assert 41 < Decimal(kinds["aggTrade"]["p"]) < 43
        trades = await client.hyperliquid(type="trades", coin="NEW")
        assert (await receive(trades))["data"][0]["coin"] == "NEW"
        meta = await client.post(INFO, {"type": "meta"})
        assert meta["universe"][-1]["name"] == "NEW"
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        traded = {ledger.symbols[number][1] for number in set(ledger.trade["symbol"].tolist())}
        assert traded == {"NEWUSDT", "NEW"}
        by_symbol = client.simulator.status()["venues"]["binance_linear"]["sent"]["by_symbol"]
        assert by_symbol["NEWUSDT"]["trade"] > 0

    settings = SimulatorSettings(trades_per_s=500.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario, ENCODERS[:2])
    # The next start of the same simulator takes the numbers over.
    names = [("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "BTC")]
    ledger = Ledger(tmp_path, ("binance_linear", "hyperliquid_perp"), names)
    assert ledger.number("hyperliquid_perp", "NEW") == 3
    ledger.close()


def test_a_delisted_symbol_falls_silent_until_it_is_listed_again(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        both = await client.binance("market", "btcusdt@aggTrade", "ethusdt@aggTrade")
        request = {"venue": "binance_linear", "symbol": "BTCUSDT"}
        answer = await client.post(ADMIN, {**request, "action": "delist"})
        assert answer["status"] == "SETTLING"
        assert (await symbols(client))["BTCUSDT"]["status"] == "SETTLING"
        count = client.simulator.status()["venues"]["binance_linear"]["sent"]["by_symbol"]
        before = count.get("BTCUSDT", {"trade": 0})["trade"]
        seen = [await receive(both) for _ in range(before + 200)]
        assert [event["s"] for event in seen].count("BTCUSDT") == before
        polled = await client.get(REST + "premiumIndex")
        assert [row["symbol"] for row in polled] == ["ETHUSDT"]
        await client.post(ADMIN, {**request, "action": "list"})
        while (event := await receive(both))["s"] != "BTCUSDT":
            pass
        assert event["e"] == "aggTrade"

    simulated(SimulatorSettings(trades_per_s=2000.0, symbols=2), scenario)


def test_a_delisted_coin_keeps_its_place_and_shows_an_empty_book(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        books = await client.hyperliquid(type="l2Book", coin="BTC")
        quotes = await client.hyperliquid(type="bbo", coin="BTC")
        await receive(quotes)
        request = {"venue": "hyperliquid_perp", "symbol": "BTC"}
        assert (await client.post(ADMIN, {**request, "action": "delist"}))["delisted"] is True
        meta, contexts = await client.post(INFO, {"type": "metaAndAssetCtxs"})
        assert [entry.get("isDelisted", False) for entry in meta["universe"]] == [True, False]
        assert [context["midPx"] is None for context in contexts] == [True, False]
        while (await receive(books))["data"]["levels"] != [[], []]:
            pass
        while (await receive(quotes))["data"]["bbo"] != [None, None]:
            pass
        await client.post(ADMIN, {**request, "action": "list"})
        while None in (await receive(quotes))["data"]["bbo"]:
            pass

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=2, slow_book_s=0.1), scenario)


def test_a_new_tick_clears_the_book_and_keeps_chain_ids_and_price(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        depth = await client.binance("public", "btcusdt@depth@100ms")
        trades = await client.binance("market", "btcusdt@aggTrade")
        events = [await receive(depth)]
        snapshot = await client.get(REST + "depth?symbol=BTCUSDT&limit=1000")
        old = await receive(trades)
        request = {"venue": "binance_linear", "action": "change", "symbol": "BTCUSDT"}
        await client.post(ADMIN, {**request, "tick_size": "0.500", "step_size": "0.0001"})
        assert tick_of((await symbols(client))["BTCUSDT"]) == "0.500"
        while not [p for p, _ in events[-1]["b"] if p.endswith(".500")]:
            events.append(await receive(depth))
        events += [await receive(depth) for _ in range(3)]
        assert all(later["pu"] == earlier["u"] for earlier, later in pairwise(events))
        book = dict(snapshot["bids"])
        for event in events:
            if event["u"] > snapshot["lastUpdateId"]:
                book.update(event["b"])
                book = {price: qty for price, qty in book.items() if Decimal(qty) > 0}
        assert all(Decimal(price) % Decimal("0.5") == 0 for price in book)
        new = old
        while not new["p"].endswith(("0.000", "5.000", ".500")):
            following = await receive(trades)
            assert following["a"] == new["a"] + 1
            new = following
        assert abs(Decimal(new["p"]) / Decimal(old["p"]) - 1) < Decimal("0.01")
        assert len(new["q"].partition(".")[2]) == 4
        await client.post("/simulator/pause")
        assert set(read_ledger(tmp_path).trade["price_decimals"].tolist()) == {2, 3}

    settings = SimulatorSettings(trades_per_s=200.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"venue": "nowhere"}, "venue must be"),
        ({"action": "explode"}, "action must be"),
        ({"action": "delist", "symbol": "NOPE"}, "unknown symbol"),
        ({"tick_size": "zero"}, "tick_size"),
        ({"tick_size": "1", "price": 3.0}, "at least"),
        ({"step_size": "0.02"}, "power of ten"),
        ({"price": -1}, "price"),
        ({"action": "delist", "symbol": "BTCUSDT", "status": "GONE"}, "status"),
        ({"symbol": ""}, "symbol"),
    ],
)
def test_wrong_requests_are_explained(
    simulated: "Simulated", change: dict[str, Any], reason: str
) -> None:
    async def scenario(client: "Client") -> None:
        request = {"venue": "binance_linear", "action": "list", "symbol": "NEWUSDT", **change}
        async with client.http.post(client.url + ADMIN, json=request) as reply:
            assert reply.status == 400
            assert reason in (await reply.json())["error"]
        assert list(await symbols(client)) == ["BTCUSDT"]

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=1), scenario)


def test_a_funding_interval_changes_on_request_and_is_on_record_as_it_was_said(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        first = {row["symbol"]: row for row in await client.get(REST + "fundingInfo")}
        assert {name: row["fundingIntervalHours"] for name, row in first.items()} == {
            "ETHUSDT": 4, "SOLUSDT": 1,
        }  # fmt: skip
        change = {"venue": "binance_linear", "action": "change"}
        answer = await client.post(ADMIN, {**change, "symbol": "BTCUSDT",
                                           "funding_interval_hours": 1})  # fmt: skip
        assert answer["funding_interval_hours"] == 1
        await client.post(ADMIN, {**change, "symbol": "ETHUSDT", "funding_interval_hours": 8})
        rows = await client.get(REST + "fundingInfo")
        assert [row["symbol"] for row in rows] == ["BTCUSDT", "SOLUSDT"]
        state = await client.get(REST + "premiumIndex?symbol=BTCUSDT")
        assert 0 < state["nextFundingTime"] - state["time"] <= 3_600_000
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        said = [(int(row["symbol"]), int(row["interval_s"]) // 3600) for row in ledger.interval]
        assert said == [(0, 8), (1, 4), (2, 1), (0, 1), (1, 8)]
        for hours in (0, 25, "4", True):
            request = {**change, "symbol": "BTCUSDT", "funding_interval_hours": hours}
            status, _ = await client.post_status(ADMIN, json.dumps(request).encode())
            assert status == 400

    simulated(SimulatorSettings(symbols=3, ledger=tmp_path), scenario)
