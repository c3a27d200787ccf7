"""Coinbase's two protocols as the simulator speaks them, compared with its ledger."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from shards.simulator.core.ledger import Rows, read_ledger
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.coinbase.advanced import Coinbase
from shards.simulator.venues.coinbase.exchange import CoinbaseExchange
from tests.shards.simulator.conftest import receive

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

Socket = aiohttp.ClientWebSocketResponse
TAKER = {"sell": ord("B"), "buy": ord("S")}
"""By the maker's side."""
PRODUCTS = "/coinbase/api/v3/brokerage/market/products"


async def advanced(client: "Client", channel: str, *products: str) -> Socket:
    socket = await client.socket("/coinbase/")
    await ask(socket, channel, *products)
    return socket


async def ask(socket: Socket, channel: str, *products: str, word: str = "subscribe") -> None:
    request = {"type": word, "channel": channel}
    await socket.send_json(request | ({"product_ids": products} if products else {}))


async def exchange(client: "Client", channels: Sequence[str], *products: str) -> Socket:
    socket = await client.socket("/coinbase_exchange/")
    await socket.send_json({"type": "subscribe", "product_ids": products, "channels": channels})
    return socket


async def until(socket: Socket, name: str, word: str, count: int) -> list[Any]:
    """Messages up to the `count`th of a type."""
    found: list[Any] = []
    while sum(each[name] == word for each in found) < count:
        found.append(await receive(socket))
    return found


def in_lots(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(decimals, "0"))


def ledger_trades(rows: Rows) -> list[tuple[int, ...]]:
    fields = ["trade_id", "side", "price_mantissa", "qty_mantissa", "ts_event"]
    found: list[tuple[int, ...]] = rows[fields].tolist()
    return found


def test_each_socket_counts_its_own_messages_and_gets_heartbeats(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        one = await advanced(client, "market_trades", "BTC-USD")
        await ask(one, "heartbeats")
        both = await advanced(client, "level2", "BTC-USD", "ETH-USD")
        await ask(both, "market_trades", "BTC-USD")
        for socket, word in ((one, "heartbeats"), (both, "market_trades")):
            heard = await until(socket, "channel", word, 2)
            assert [each["sequence_num"] for each in heard] == list(range(len(heard)))

    simulated(SimulatorSettings(trades_per_s=200.0, symbols=2), scenario, [Coinbase])


def test_what_advanced_trade_says_is_in_the_ledger(simulated: "Simulated", tmp_path: Path) -> None:
    heard: list[Any] = []

    async def scenario(client: "Client") -> None:
        socket = await advanced(client, "market_trades", "BTC-USD")
        await ask(socket, "level2", "BTC-USD")
        await ask(socket, "ticker", "BTC-USD")
        heard.extend(await until(socket, "channel", "ticker", 3))
        sent = (await client.post("/simulator/pause"))["sent"]
        while len(rows_of(heard, "market_trades", "trades")) < sent["trade"]:
            heard.append(await receive(socket))

    settings = SimulatorSettings(trades_per_s=300.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario, [Coinbase])
    ledger = read_ledger(tmp_path)
    said = [
        (int(each["trade_id"]), TAKER[each["side"].lower()], in_lots(each["price"], 2),
         in_lots(each["size"], 8))
        for each in rows_of(heard, "market_trades", "trades")
    ]  # fmt: skip
    assert said == [row[:4] for row in ledger_trades(ledger.trade)]
    books = [event for each in heard if each["channel"] == "l2_data" for event in each["events"]]
    assert [each["type"] for each in books] == ["snapshot"] + ["update"] * (len(books) - 1)
    levels = [level for each in books for level in each["updates"]]
    sides = [ord("b" if each["side"] == "bid" else "a") for each in levels]
    assert sides == ledger.book["side"].tolist()[: len(levels)]
    qtys = [in_lots(each["new_quantity"], 8) for each in levels]
    assert qtys == ledger.book["qty_mantissa"].tolist()[: len(levels)]
    quotes = rows_of(heard, "ticker", "tickers")
    bids = [in_lots(each["best_bid"], 2) for each in quotes]
    assert bids == ledger.quote["bid_mantissa"].tolist()[: len(bids)]


def rows_of(heard: list[Any], channel: str, name: str) -> list[Any]:
    messages = [each for each in heard if each["channel"] == channel]
    return [row for each in messages for event in each["events"] for row in event[name]]


def test_a_request_that_means_nothing_is_refused(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await advanced(client, "level2", "NOPE-USD")
        assert (await receive(socket))["reason"] == "NOPE-USD is not a valid product"
        await ask(socket, "level7", "BTC-USD")
        assert (await receive(socket))["type"] == "error"
        await ask(socket, "level2", "BTC-USD")
        subscribed = (await receive(socket))["events"][0]["subscriptions"]
        assert subscribed == {"level2": ["BTC-USD"]}
        await ask(socket, "level2", "BTC-USD", word="unsubscribe")
        ended = await until(socket, "channel", "subscriptions", 1)
        assert ended[-1]["events"][0]["subscriptions"] == {}

    simulated(SimulatorSettings(symbols=1), scenario, [Coinbase])


def test_futures_are_listed_apart_and_tell_funding_when_they_are_asked(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        spot = await client.get(f"{PRODUCTS}?product_type=SPOT")
        assert [each["product_id"] for each in spot["products"]] == ["BTC-USD", "ETH-USD"]
        futures = await client.get(f"{PRODUCTS}?product_type=FUTURE")
        (future,) = futures["products"]
        assert read_ledger(tmp_path).funding.size == 0, "a listing is no poll"
        path = f"{PRODUCTS}/{future['product_id']}"
        said = (await client.get(path))["future_product_details"]
        await client.get(f"{PRODUCTS}/BTC-USD")
        assert (await client.status_of(f"{PRODUCTS}/NOPE"))[0] == 404
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        assert ledger.funding["rate_mantissa"].tolist() == [
            round(float(said["funding_rate"]) * 1e6)
        ]
        assert ledger.open_interest["qty_mantissa"].tolist() == [int(said["open_interest"])]

    simulated(SimulatorSettings(symbols=3, ledger=tmp_path), scenario, [Coinbase])


def test_what_the_exchange_says_is_in_the_ledger(simulated: "Simulated", tmp_path: Path) -> None:
    heard: list[Any] = []

    async def scenario(client: "Client") -> None:
        channels = ["matches", "level2_batch", "ticker", "heartbeat"]
        socket = await exchange(client, channels, "BTC-USD")
        heard.extend(await until(socket, "type", "heartbeat", 3))
        sent = (await client.post("/simulator/pause"))["sent"]
        while len([each for each in heard if each["type"] == "match"]) < sent["trade"]:
            heard.append(await receive(socket))

    settings = SimulatorSettings(trades_per_s=300.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario, [CoinbaseExchange])
    ledger = read_ledger(tmp_path)
    matches = [each for each in heard if each["type"] == "match"]
    said = [
        (each["trade_id"], TAKER[each["side"]], in_lots(each["price"], 2), in_lots(each["size"], 8))
        for each in matches
    ]
    assert said == [row[:4] for row in ledger_trades(ledger.trade)]
    heartbeat = [each for each in heard if each["type"] == "heartbeat"][-1]
    before = heard[: heard.index(heartbeat)]
    last = [each["trade_id"] for each in before if each["type"] == "match"][-1]
    assert heartbeat["last_trade_id"] == last
    whole, *changes = [each for each in heard if each["type"] in ("snapshot", "l2update")]
    assert "time" not in whole
    snapshot = ledger.book[ledger.book["snapshot"] == 1]
    deltas = ledger.book[ledger.book["snapshot"] == 0]
    assert set(snapshot["seq"].tolist()) == {deltas["seq"][0] - 1}
    assert set(snapshot["ts_event"].tolist()) == {deltas["ts_event"][0]}
    assert len(snapshot) == len(whole["bids"]) + len(whole["asks"])
    sides = [ord("b" if side == "buy" else "a") for each in changes for side, *_ in each["changes"]]
    assert sides == deltas["side"].tolist()[: len(sides)]


def test_trades_of_the_exchange_can_be_fetched_by_id(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await exchange(client, ["matches"], "BTC-USD")
        matches = (await until(socket, "type", "match", 30))[1:]
        ids = [each["trade_id"] for each in matches]
        path = f"/coinbase_exchange/products/BTC-USD/trades?limit=5&after={ids[20]}"
        rows = await client.get(path)
        assert [row["trade_id"] for row in rows] == ids[15:20][::-1]
        again = await exchange(client, ["matches"], "BTC-USD")
        last = (await until(again, "type", "last_match", 1))[-1]
        assert last["trade_id"] >= ids[-1]
        assert rows[0].items() <= matches[19].items()

    simulated(SimulatorSettings(trades_per_s=500.0, symbols=1), scenario, [CoinbaseExchange])
