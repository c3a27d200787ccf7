"""The simulated Hyperliquid venue keeps the venue's rules, and its ledger is what it sent."""

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from shards.simulator.core.ledger import read_ledger
from shards.simulator.settings import SimulatorSettings

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=10)


def test_the_first_frame_carries_past_trades_and_the_ledger_has_all_once(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        one = await client.hyperliquid(type="trades", coin="BTC")
        past = (await receive(one))["data"]
        assert len(past) == 10
        rows = [*past]
        while len(rows) < 120:
            rows += (await receive(one))["data"]
        two = await client.hyperliquid(type="trades", coin="BTC")
        repeated = (await receive(two))["data"]
        assert len(repeated) == 50
        await client.post("/simulator/pause")
        while len(rows) < client.simulator.status()["sent"]["trade"]:
            rows += (await receive(one))["data"]
        known = {row["tid"]: row for row in rows}
        assert len(known) == len(rows)
        assert all(known[row["tid"]] == row for row in repeated)
        assert all(0 < row["tid"] < 2**50 for row in rows)
        ids = [row["tid"] for row in rows]
        assert ids != sorted(ids)
        ledger = read_ledger(tmp_path)
        written = [
            (
                int(row["ts_event"]) // 1_000_000,
                int(row["trade_id"]),
                "B" if chr(row["side"]) == "B" else "A",
                Decimal(int(row["price_mantissa"])).scaleb(-int(row["price_decimals"])),
                Decimal(int(row["qty_mantissa"])).scaleb(-int(row["qty_decimals"])),
            )
            for row in ledger.trade
        ]
        assert written == [
            (row["time"], row["tid"], row["side"], Decimal(row["px"]), Decimal(row["sz"]))
            for row in rows
        ]

    settings = SimulatorSettings(trades_per_s=20_000.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario)


def test_an_unknown_coin_drops_the_connection_without_a_word(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        for subscription in (
            {"type": "trades", "coin": "btc"},
            {"type": "l2Book", "coin": "BTC", "nSigFigs": 6},
            {"type": "l2Book", "coin": "BTC", "mantissa": 2},
        ):
            socket = await client.socket("/hyperliquid_perp/ws")
            await socket.send_json({"method": "subscribe", "subscription": subscription})
            message = await socket.receive(timeout=5)
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            assert socket.close_code == 1006

    simulated(SimulatorSettings(symbols=1), scenario)


def test_control_messages_answer_as_the_venue_does(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.socket("/hyperliquid_perp/ws")
        book = {"type": "l2Book", "coin": "BTC"}
        await socket.send_json({"method": "ping"})
        assert await receive(socket) == {"channel": "pong"}
        await socket.send_str("{]")
        error = await receive(socket)
        assert error["channel"] == "error"
        assert error["data"].startswith("Error parsing JSON into valid websocket request")
        await socket.send_json({"method": "subscribe", "subscription": book})
        ack = await receive(socket)
        defaults = {"nSigFigs": None, "mantissa": None, "fast": False}
        assert ack["data"] == {"method": "subscribe", "subscription": {**defaults, **book}}
        await client.post("/simulator/pause")
        await socket.send_json({"method": "subscribe", "subscription": book})
        await socket.send_json({"method": "unsubscribe", "subscription": book})
        await socket.send_json({"method": "unsubscribe", "subscription": book})
        answers = [a for a in [await receive(socket) for _ in range(3)] if a["channel"] != "l2Book"]
        while len(answers) < 3:
            answers.append(await receive(socket))
        assert answers[0]["data"] == 'Already subscribed: {"type":"l2Book","coin":"BTC"}'
        assert answers[1]["data"]["method"] == "unsubscribe"
        assert answers[2]["data"].startswith("Already unsubscribed: ")
        request = {"type": "info", "payload": {"type": "l2Book", "coin": "NOPE"}}
        await socket.send_json({"method": "post", "id": 3, "request": request})
        response = {"type": "info", "payload": {"type": "l2Book", "data": None}}
        assert (await receive(socket))["data"] == {"id": 3, "response": response}

    simulated(SimulatorSettings(symbols=1), scenario)


def test_books_are_whole_frames_in_two_variants_with_rising_times(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        for fast, count in ((False, 20), (True, 5)):
            socket = await client.hyperliquid(type="l2Book", coin="ETH", fast=fast)
            frames = [(await receive(socket))["data"] for _ in range(3)]
            times = [frame["time"] for frame in frames]
            assert times == sorted(set(times))
            for frame in frames:
                assert frame.get("fast", False) is fast
                bids, asks = frame["levels"]
                assert len(bids) == len(asks) == count
                prices = [Decimal(level["px"]) for level in bids]
                assert prices == sorted(prices, reverse=True)
                assert prices[0] < Decimal(asks[0]["px"])
                assert list(bids[0]) == ["px", "sz", "n"]
            await socket.close()
        await client.post("/simulator/pause")
        rows = read_ledger(tmp_path).book
        slow = [
            seq for seq in dict.fromkeys(rows["seq"].tolist()) if (rows["seq"] == seq).sum() == 40
        ]
        assert len(slow) >= 3
        first = rows[rows["seq"] == slow[0]]
        assert set(first["prev_seq"].tolist()) == {0}
        assert set(rows["snapshot"].tolist()) == {1}

    settings = SimulatorSettings(symbols=2, slow_book_s=0.2, ledger=tmp_path)
    simulated(settings, scenario)


def test_info_serves_metadata_books_and_recent_trades(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        path = "/hyperliquid_perp/info"
        meta = await client.post(path, {"type": "meta"})
        assert [entry["name"] for entry in meta["universe"]] == ["BTC", "ETH"]
        assert meta["universe"][0]["szDecimals"] == 5
        both = await client.post(path, {"type": "metaAndAssetCtxs"})
        assert both[0] == meta
        assert [Decimal(context["midPx"]) > 0 for context in both[1]] == [True, True]
        book = await client.post(path, {"type": "l2Book", "coin": "BTC"})
        assert [len(side) for side in book["levels"]] == [20, 20]
        assert await client.post(path, {"type": "l2Book", "coin": "NOPE"}) is None
        socket = await client.hyperliquid(type="trades", coin="BTC")
        past = (await receive(socket))["data"]
        await client.post("/simulator/pause")
        recent = await client.post(path, {"type": "recentTrades", "coin": "BTC"})
        assert len(recent) == 10
        assert {row["coin"] for row in [*past, *recent]} == {"BTC"}
        async with client.http.post(client.url + path, data=b"{") as response:
            assert response.status == 422

    simulated(SimulatorSettings(trades_per_s=1000.0, symbols=2), scenario)
