"""The simulated OKX keeps the venue's rules: words, ids of merged trades, chains of books."""

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np

from shards.simulator.core.frames import Trades, render, text_frame
from shards.simulator.core.market import SIZE_COUNT
from shards.simulator.core.symbol import SymbolState
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.okx import Okx

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

SWAP = "BTC-USDT-SWAP"
SETTINGS = SimulatorSettings(venues="okx", symbols=4)


def arg(channel: str, name: str = SWAP) -> dict[str, str]:
    return {"channel": channel, "instId": name}


async def ask(
    client: "Client", *args: object, op: str = "subscribe"
) -> aiohttp.ClientWebSocketResponse:
    socket = await client.socket("/okx/ws/v5/public")
    await socket.send_json({"id": "7", "op": op, "args": args})
    return socket


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return json.loads(await socket.receive_str(timeout=30))


def test_a_block_of_trades_has_the_bytes_of_single_ones() -> None:
    encoder, rng = Okx(), np.random.default_rng(7)
    grid = encoder.grids(1)[0]
    state = SymbolState((0, 0, 0), grid, (1, 2), encoder, 1024)
    for serial, count in ((0, 41), (9_999_950, 300), (3, 257)):
        ids = encoder.trade_ids(0, serial, count)
        trades = Trades(
            ts_ms=1_795_000_000_123, serial=serial, ids=ids,
            ticks=rng.integers(grid.low_ticks, grid.low_ticks + 3000, count),
            size=rng.integers(0, SIZE_COUNT, count), buy=rng.random(count) < 0.5,
            first_raw=ids, last_raw=ids,
        )  # fmt: skip
        rows = [state.trade_rows.row(each).encode() for each in trades.each()]
        assert bytes(render(state.trade_rows, trades, (b"", b""))) == b"".join(
            map(text_frame, rows)
        )
        said = [json.loads(row)["data"][0] for row in rows]
        steps = np.diff([int(each["tradeId"]) for each in said]).tolist()
        assert steps == [int(each["count"]) for each in said[1:]]
        assert set(steps) == {1, 3}


def test_requests_are_answered_argument_by_argument(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        nobody = arg("trades", "NOPE-USDT-SWAP")
        socket = await ask(client, arg("trades"), nobody, arg("open-interest"))
        answers = [await receive(socket) for _ in range(3)]
        assert [answer["event"] for answer in answers] == ["subscribe", "error", "subscribe"]
        assert answers[0]["arg"] == arg("trades")
        assert {answer["id"] for answer in answers} == {"7"}
        words = "Wrong URL or channel:trades,instId:NOPE-USDT-SWAP doesn't exist."
        assert (answers[1]["code"], answers[1]["msg"]) == ("60018", words)
        for nonsense in ("[]", "{", '{"op":"dance","args":[]}', '{"op":"subscribe","args":[1]}'):
            await socket.send_str(nonsense)
            while "event" not in (answer := await receive(socket)):
                pass
            assert answer["code"] == "60012", nonsense
        await socket.send_str("ping")
        while (text := await socket.receive_str(timeout=30)) != "pong":
            assert json.loads(text)["data"]

    simulated(SETTINGS, scenario, [Okx])


def test_a_book_follows_its_snapshot_without_a_hole_also_for_the_second_listener(
    simulated: "Simulated",
) -> None:
    async def scenario(client: "Client") -> None:
        for _ in range(2):
            socket = await ask(client, arg("books"))
            assert (await receive(socket))["event"] == "subscribe"
            whole = await receive(socket)
            assert (whole["action"], whole["data"][0]["prevSeqId"]) == ("snapshot", -1)
            last = whole["data"][0]["seqId"]
            for _ in range(5):
                change = await receive(socket)
                assert (change["action"], change["data"][0]["prevSeqId"]) == ("update", last)
                last = change["data"][0]["seqId"]

    simulated(SETTINGS, scenario, [Okx])


def test_a_rate_and_an_index_are_said_before_the_mark_price_of_their_moment(
    simulated: "Simulated",
) -> None:
    async def scenario(client: "Client") -> None:
        names = [arg("mark-price"), arg("funding-rate"), arg("index-tickers", "BTC-USDT")]
        socket = await ask(client, *names)
        said = [await receive(socket) for _ in range(3 + 6)]
        channels = [each["arg"]["channel"] for each in said[3:]]
        assert channels == ["index-tickers", "funding-rate", "mark-price"] * 2
        times = [each["data"][0]["ts"] for each in said[3:]]
        assert times[0] == times[1] == times[2] < times[3]
        rate = said[4]["data"][0]
        assert int(rate["nextFundingTime"]) - int(rate["fundingTime"]) == 8 * 3_600_000
        assert int(rate["fundingTime"]) > int(rate["ts"])

    simulated(SETTINGS, scenario, [Okx])


def test_each_type_has_its_listing(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        listed = {}
        for kind in ("SPOT", "SWAP", "FUTURES", "OPTION"):
            answer = await client.get(f"/okx/api/v5/public/instruments?instType={kind}")
            assert answer["code"] == "0"
            listed[kind] = [row["instId"] for row in answer["data"]]
        assert listed["SWAP"] == [SWAP, "ETH-USDT-SWAP", "SOL-USDT-SWAP"]
        assert listed["FUTURES"] == ["XRP-USD_UM_XPERP-310404"]
        assert listed["SPOT"] == listed["OPTION"] == []
        refused = await client.get("/okx/api/v5/public/instruments")
        assert (refused["code"], refused["data"]) == ("51000", [])

    simulated(SETTINGS, scenario, [Okx])
