"""Every fault does what it says, and the ledger keeps the truth through it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shards.simulator.core.ledger import read_ledger
from shards.simulator.faults import malformed
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues import ENCODERS

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

BINANCE = "binance_linear"
MALFORMED = {each.name: malformed(each) for each in (make() for make in ENCODERS)}
SOCKETS = {each.name: each.sockets for each in (make() for make in ENCODERS)}
DEPTH = "/binance_linear/fapi/v1/depth?symbol=BTCUSDT&limit=5"


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=10)


async def fault(client: "Client", name: str, venue: str = BINANCE, **options: object) -> Any:
    body = {"fault": name, "venue": venue, **options}
    return await client.post("/simulator/faults", body)


def test_a_gap_withholds_trades_that_rest_still_has(simulated: "Simulated", tmp_path: Path) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "btcusdt@aggTrade")
        last = (await receive(socket))["a"]
        await fault(client, "gap", symbol="BTCUSDT", count=5)
        while (event := await receive(socket))["a"] == last + 1:
            last = event["a"]
        assert event["a"] == last + 6
        path = f"/binance_linear/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={last + 1}&limit=5"
        rows = await client.get(path)
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        missing = list(range(last + 1, last + 6))
        assert [row["a"] for row in rows] == missing
        assert ledger.withheld["trade_id"].tolist() == missing
        assert not set(missing) & set(ledger.trade["trade_id"].tolist())
        assert client.simulator.status()["venues"][BINANCE]["withheld"] == 5

    settings = SimulatorSettings(trades_per_s=500.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario)


@pytest.mark.fault("N03")
def test_unreadable_trades_take_their_place_in_the_ids_and_a_file_of_their_own(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "btcusdt@aggTrade")
        await fault(client, "unreadable", symbol="BTCUSDT", count=2, variant="nan")
        ids: list[int] = []
        spoiled: list[int] = []
        while len(spoiled) < 2 or ids[-1] == spoiled[-1]:
            event = await receive(socket)
            ids.append(event["a"])
            if event["p"] == "NaN":
                spoiled.append(event["a"])
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        assert ledger.unreadable["seq"].tolist() == spoiled
        assert ledger.unreadable["rows"].tolist() == [1, 1]
        assert not set(spoiled) & set(ledger.trade["trade_id"].tolist())
        assert client.simulator.status()["venues"][BINANCE]["unreadable"] == 2

    settings = SimulatorSettings(trades_per_s=500.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario)


@pytest.mark.fault("N03")
def test_an_unreadable_answer_is_not_what_the_venue_has_said(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        path = "/binance_linear/fapi/v1/openInterest?symbol=BTCUSDT"
        await fault(
            client, "unreadable", symbol="BTCUSDT", kind="open_interest", rest=True, variant="list"
        )
        assert (await client.get(path))["openInterest"] == []
        good = await client.get(path)
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        assert len(ledger.unreadable) == len(ledger.open_interest) == 1
        assert ledger.open_interest["ts_event"].tolist() == [good["time"] * 1_000_000]

    simulated(SimulatorSettings(trades_per_s=100.0, symbols=1, ledger=tmp_path), scenario)


def test_a_book_gap_breaks_the_chain(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("public", "btcusdt@depth@100ms")
        before = await receive(socket)
        await fault(client, "gap", symbol="BTCUSDT", kind="book")
        chain = [before["u"]]
        while (event := await receive(socket))["pu"] == chain[-1]:
            chain.append(event["u"])
        assert event["pu"] > chain[-1]

    simulated(SimulatorSettings(symbols=1), scenario)


@pytest.mark.parametrize("venue", list(MALFORMED))
def test_every_malformed_variant_reaches_the_socket_and_not_the_ledger(
    simulated: "Simulated", tmp_path: Path, venue: str
) -> None:
    async def scenario(client: "Client") -> None:
        await client.post("/simulator/pause")
        path = next(each.path for each in SOCKETS[venue] if "{" not in each.path)
        socket = await client.socket(f"/{venue}/{path}")
        for variant, payload in MALFORMED[venue].items():
            done = await fault(client, "malformed", venue, variant=variant)
            assert done["frames"] == 1
            if variant == "bad_utf8":
                break
            assert (await socket.receive_str(timeout=5)).encode() == payload
        # This client gives up on text that is not UTF-8, as the protocol allows.
        assert (await socket.receive(timeout=5)).type != aiohttp.WSMsgType.TEXT
        assert read_ledger(tmp_path).trade.size == 0

    simulated(SimulatorSettings(symbols=1, ledger=tmp_path), scenario)


def test_disconnect_close_and_silence(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        public = await client.binance("public", "btcusdt@depth@100ms")
        market = await client.binance("market", "btcusdt@aggTrade")
        assert (await fault(client, "disconnect", group="public"))["sockets"] == 1
        while (message := await public.receive(timeout=5)).type == aiohttp.WSMsgType.TEXT:
            pass
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        await receive(market)
        await fault(client, "silence", seconds=1.0)
        before = client.simulator.status()["sent"]
        await fault(client, "close", code=1013)
        while (message := await market.receive(timeout=5)).type == aiohttp.WSMsgType.TEXT:
            pass
        assert market.close_code == 1013
        assert client.simulator.status()["sent"] == before

    simulated(SimulatorSettings(trades_per_s=200.0, symbols=1), scenario)


def test_a_shutdown_is_announced_before_the_sockets_are_cut(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        market = await client.binance("market", "btcusdt@aggTrade")
        assert (await fault(client, "shutdown", seconds=0.2))["sockets"] == 1
        received = []
        while (message := await market.receive(timeout=5)).type == aiohttp.WSMsgType.TEXT:
            received.append(message.json()["e"])
        at = received.index("serverShutdown")
        assert "aggTrade" in received[at:], "it delivers until then"
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)

    simulated(SimulatorSettings(trades_per_s=200.0, symbols=1), scenario)


async def until_repeated(socket: Any, ids_of: Callable[[Any], list[int]]) -> set[int]:
    """The ids up to one that came twice: how many wait before it is the machine's affair."""
    seen: set[int] = set()
    for _ in range(20_000):
        for number in ids_of(await receive(socket)):
            if number in seen:
                return seen
            seen.add(number)
    raise AssertionError("no id came twice")


def test_duplicates_are_sent_again_and_recorded_once(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        binance = await client.binance("market", "btcusdt@aggTrade")
        coins = await client.hyperliquid(type="trades", coin="BTC")
        await client.post("/simulator/pause")
        assert (await fault(client, "duplicate", symbol="BTCUSDT", count=2))["sent"] in (0, 2)
        await client.post("/simulator/resume")
        await receive(binance)
        await client.post("/simulator/pause")
        done = await fault(client, "duplicate", symbol="BTCUSDT", count=2)
        assert done["sent"] == 2
        await fault(client, "duplicate", "hyperliquid_perp", symbol="BTC")
        await client.post("/simulator/resume")
        await until_repeated(binance, lambda message: [message["a"]])
        tids = await until_repeated(coins, lambda message: [row["tid"] for row in message["data"]])
        later = [row["tid"] for _ in range(50) for row in (await receive(coins))["data"]]
        assert not tids.intersection(later)
        await client.post("/simulator/pause")
        trades = read_ledger(tmp_path).trade
        keys = list(zip(trades["venue"].tolist(), trades["trade_id"].tolist(), strict=True))
        assert len(set(keys)) == len(keys)

    settings = SimulatorSettings(trades_per_s=2000.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario)


def test_stale_snapshots_lie_behind_the_stream_and_then_end(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("public", "btcusdt@depth@100ms")
        first = await receive(socket)
        await fault(client, "stale_snapshot", count=2)
        ids = [(await client.get(DEPTH))["lastUpdateId"] for _ in range(3)]
        assert max(ids[:2]) < first["U"] - 1_000_000
        assert ids[2] >= first["u"]

    simulated(SimulatorSettings(symbols=1), scenario)


def test_http_refusals_carry_retry_after_and_then_end(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        await fault(client, "http_status", status=418, count=2, retry_after_s=7)
        for _ in range(2):
            status, headers, body = await client.status_of(DEPTH)
            assert (status, headers["Retry-After"], body["code"]) == (418, "7", -1003)
        assert (await client.status_of(DEPTH))[0] == 200
        await fault(client, "http_status", "hyperliquid_perp", status=500)
        async with client.http.post(f"{client.url}/hyperliquid_perp/info", data=b"{}") as response:
            assert response.status == 500

    simulated(SimulatorSettings(symbols=1), scenario)


def test_bad_admin_requests_are_refused_with_a_reason(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        for path, body, word in (
            ("rate", {"trades_per_s": "fast"}, "rate"),
            ("rate", {"trades_per_s": -1}, "negative"),
            ("rate", {"rate": 1}, "trades_per_s"),
            ("faults", {"fault": "flood", "venue": BINANCE}, "unknown fault"),
            ("faults", {"fault": "gap", "venue": "nyse"}, "unknown venue"),
            ("faults", {"fault": "gap", "venue": BINANCE, "symbol": "X"}, "unknown symbol"),
            ("faults", {"fault": "silence", "venue": BINANCE, "seconds": "x"}, "seconds"),
            ("faults", {"fault": "malformed", "venue": BINANCE, "variant": "x"}, "variant"),
            ("faults", {"fault": "close", "venue": BINANCE, "code": 12}, "close code"),
            ("faults", [], "object"),
            ("replay", {}, "without a session"),
        ):
            content = json.dumps(body).encode()
            status, answer = await client.post_status(f"/simulator/{path}", content)
            assert status == 400
            assert word in answer["error"]
        status, _ = await client.post_status("/simulator/faults", b"{")
        assert status == 400
        assert (await client.post("/simulator/rate", {"trades_per_s": "max"}))[
            "trades_per_s"
        ] == "max"

    simulated(SimulatorSettings(symbols=1), scenario)
