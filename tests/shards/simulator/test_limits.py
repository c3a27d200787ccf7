"""Budgets of the simulated venues: what was used is counted, and what is above is refused."""

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from engine.base.clock import wall_ns
from shards.simulator.core.limits import TOLERATED_VIOLATIONS
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.binance.rest import FUNDING_CALLS

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

REST = "/binance_linear/fapi/v1/"
INFO = "/hyperliquid_perp/info"
WEIGHTS = {
    "ping": 1,
    "exchangeInfo": 1,
    "depth?symbol=BTCUSDT&limit=50": 2,
    "depth?symbol=BTCUSDT&limit=1000": 20,
    "aggTrades?symbol=BTCUSDT": 20,
    "premiumIndex?symbol=BTCUSDT": 1,
    "premiumIndex": 10,
    "openInterest?symbol=BTCUSDT": 1,
    "fundingRate?symbol=BTCUSDT": 0,
    "ticker/bookTicker": 5,
    "ticker/bookTicker?symbol=BTCUSDT": 2,
}


async def clear_of_a_new_minute(least_s: float) -> None:
    """Begin only when the minute lasts long enough: its end would empty the budget."""
    left_s = 60 - wall_ns() / 1e9 % 60
    if left_s < least_s:
        await asyncio.sleep(left_s)


def rest_status(client: "Client", venue: str) -> Any:
    return client.simulator.status()["venues"][venue]["rest"]


def test_used_weight_is_the_sum_of_the_calls_of_the_minute(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        await clear_of_a_new_minute(5)
        used = 0
        for call, weight in WEIGHTS.items():
            _, headers, _ = await client.status_of(REST + call)
            used += weight
            assert int(headers["X-MBX-USED-WEIGHT-1M"]) == used, call
        status = rest_status(client, "binance_linear")
        assert status["weight_used"] == status["weight_peak_per_minute"] == used
        assert (status["calls"], status["refused"]) == (len(WEIGHTS), {})
        for query, weight in (({"type": "meta"}, 20), ({"type": "l2Book", "coin": "BTC"}, 2)):
            before = rest_status(client, "hyperliquid_perp")["weight_used"]
            await client.post(INFO, query)
            assert rest_status(client, "hyperliquid_perp")["weight_used"] == before + weight

    simulated(SimulatorSettings(symbols=1), scenario)


def test_above_the_limit_comes_429_and_then_the_ban(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        await clear_of_a_new_minute(10)
        info = await client.get(REST + "exchangeInfo")
        assert info["rateLimits"][0]["limit"] == 41
        for _ in range(2):
            assert (await client.status_of(REST + "aggTrades?symbol=BTCUSDT"))[0] == 200
        for _ in range(TOLERATED_VIOLATIONS):
            status, headers, body = await client.status_of(REST + "ping")
            assert (status, body["code"]) == (429, -1003)
            assert 1 <= int(headers["Retry-After"]) <= 60
        for _ in range(2):
            status, headers, _ = await client.status_of(REST + "ping")
            assert status == 418
            assert 1 <= int(headers["Retry-After"]) <= 30
        refused = rest_status(client, "binance_linear")["refused"]
        assert refused == {"418": 2, "429": TOLERATED_VIOLATIONS}
        await client.post("/simulator/limits", {"enforced": False})
        assert (await client.status_of(REST + "ping"))[0] == 200

    settings = SimulatorSettings(symbols=1, enforce_limits=True, binance_weight=41, ban_s=30.0)
    simulated(settings, scenario)


def test_hyperliquid_refuses_without_naming_a_time(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        await clear_of_a_new_minute(5)
        await client.post(INFO, {"type": "meta"})
        async with client.http.post(client.url + INFO, json={"type": "meta"}) as reply:
            assert reply.status == 429
            assert "Retry-After" not in reply.headers

    settings = SimulatorSettings(symbols=1, enforce_limits=True, hyperliquid_weight=30)
    simulated(settings, scenario)


def test_a_client_that_talks_too_much_is_cut_off(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.socket("/binance_linear/market/ws")
        for number in range(60):
            try:
                await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
            except ConnectionError:
                break
        while (message := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)

    simulated(SimulatorSettings(symbols=1, enforce_limits=True), scenario)


def test_connections_and_messages_are_counted(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        one = await client.binance("market", "btcusdt@aggTrade")
        await one.ping(b"x")
        await one.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 9})
        while "result" not in await one.receive_json(timeout=10):
            pass
        await client.binance("public", "btcusdt@bookTicker")
        status = client.simulator.status()["venues"]["binance_linear"]
        assert status["connection_attempts"] == status["connections"] == 2
        assert status["messages"] == 4
        assert sorted(socket["messages"] for socket in status["sockets"]) == [1, 3]
        assert 1 <= status["messages_peak_per_second_of_a_socket"] <= 3

    simulated(SimulatorSettings(symbols=1), scenario)


@pytest.mark.parametrize("body", [b"{}", b'{"enforced":1}', b"["])
def test_a_wrong_limits_request_is_explained(simulated: "Simulated", body: bytes) -> None:
    async def scenario(client: "Client") -> None:
        status, answer = await client.post_status("/simulator/limits", body)
        assert (status, answer["kind"]) == (400, "bad_request")

    simulated(SimulatorSettings(symbols=1), scenario)


def test_funding_calls_weigh_nothing_and_have_a_limit_of_their_own(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        await clear_of_a_new_minute(5)
        gate = client.simulator._targets["binance_linear"].gate
        limit, used = gate.limits.limit(FUNDING_CALLS), gate.limits.meter(FUNDING_CALLS)
        assert limit is not None
        assert used is not None
        used.add(limit.most - 2)
        for call in ("fundingInfo", "fundingRate?symbol=BTCUSDT"):
            status, headers, _ = await client.status_of(REST + call)
            assert (status, headers["X-MBX-USED-WEIGHT-1M"]) == (200, "0")
        status, headers, _ = await client.status_of(REST + "fundingInfo")
        assert status == 429
        assert 1 <= int(headers["Retry-After"]) <= 300
        assert (await client.status_of(REST + "ping"))[0] == 200

    simulated(SimulatorSettings(symbols=1, enforce_limits=True), scenario)
