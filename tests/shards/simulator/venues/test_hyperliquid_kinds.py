"""Best bid and offer and asset contexts of the simulated Hyperliquid venue."""

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, LedgerRows, Rows, read_ledger
from shards.simulator.settings import SimulatorSettings

pytestmark = pytest.mark.whole

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

INFO = "/hyperliquid_perp/info"
Numbers = tuple[Decimal, Decimal, Decimal, Decimal]


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=10)


def value(row: Rows, field: str, decimals: str) -> Decimal:
    return Decimal(int(row[f"{field}_mantissa"])).scaleb(-int(row[f"{decimals}_decimals"]))


def numbers(context: dict[str, Any]) -> Numbers:
    rate, mark, oracle, interest = (
        Decimal(context[key]) for key in ("funding", "markPx", "oraclePx", "openInterest")
    )
    return rate, mark, oracle, interest


def recorded(ledger: LedgerRows, coin: str, *, rest: int) -> list[Numbers]:
    number = ledger.symbols.index(("hyperliquid_perp", coin))
    tables = (ledger.funding, ledger.open_interest)
    funding, interest = (t[(t["symbol"] == number) & (t["rest"] == rest)] for t in tables)
    assert funding["ts_event"].tolist() == interest["ts_event"].tolist()
    return [
        (
            value(row, "rate", "rate"),
            value(row, "mark", "price"),
            value(row, "index", "price"),
            value(other, "qty", "qty"),
        )
        for row, other in zip(funding, interest, strict=True)
    ]


def test_bbo_says_each_change_of_the_touch_and_null_for_an_empty_side(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.hyperliquid(type="bbo", coin="BTC")
        frames = [await receive(socket) for _ in range(8)]
        body = {"fault": "empty_side", "venue": "hyperliquid_perp", "symbol": "BTC", "side": "ask"}
        await client.post("/simulator/faults", {**body, "seconds": 0.5})
        while frames[-1]["data"]["bbo"][1] is not None:
            frames.append(await receive(socket))
        book = await client.post(INFO, {"type": "l2Book", "coin": "BTC"})
        assert [bool(side) for side in book["levels"]] == [True, False]
        context = (await client.post(INFO, {"type": "metaAndAssetCtxs"}))[1][0]
        nulls = ("midPx", "impactPxs", "premium")
        assert [context[key] for key in nulls] == [None, None, None]
        while frames[-1]["data"]["bbo"][1] is None:
            frames.append(await receive(socket))
        await client.post("/simulator/pause")
        sent = client.simulator.status()["sent"]["quote"]
        frames += [await receive(socket) for _ in range(sent - len(frames))]
        assert {frame["channel"] for frame in frames} == {"bbo"}
        quotes = [frame["data"] for frame in frames]
        assert all(earlier["time"] < later["time"] for earlier, later in pairwise(quotes))
        assert all(earlier["bbo"] != later["bbo"] for earlier, later in pairwise(quotes))
        bid, ask = quotes[0]["bbo"]
        assert list(bid) == ["px", "sz", "n"]
        assert Decimal(bid["px"]) < Decimal(ask["px"])
        rows = read_ledger(tmp_path).quote
        assert [
            (
                int(row["ts_event"]) // 1_000_000,
                value(row, "bid", "price") if row["sides"] & BID_PRESENT else None,
                value(row, "bid_qty", "qty") if row["sides"] & BID_PRESENT else None,
                value(row, "ask", "price") if row["sides"] & ASK_PRESENT else None,
                value(row, "ask_qty", "qty") if row["sides"] & ASK_PRESENT else None,
            )
            for row in rows
        ] == [
            (
                quote["time"],
                *(
                    None if side is None else Decimal(side[key])
                    for side in quote["bbo"]
                    for key in ("px", "sz")
                ),
            )
            for quote in quotes
        ]

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=1, ledger=tmp_path), scenario)


def test_contexts_come_every_second_and_by_position(simulated: "Simulated", tmp_path: Path) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.hyperliquid(type="activeAssetCtx", coin="ETH")
        frames = [await receive(socket) for _ in range(3)]
        meta, contexts = await client.post(INFO, {"type": "metaAndAssetCtxs"})
        await client.post(INFO, {"type": "metaAndAssetCtxs"})
        await client.post("/simulator/pause")
        assert [entry["name"] for entry in meta["universe"]] == ["BTC", "ETH"]
        assert {frame["channel"] for frame in frames} == {"activeAssetCtx"}
        assert {frame["data"]["coin"] for frame in frames} == {"ETH"}
        pushed = [frame["data"]["ctx"] for frame in frames]
        assert contexts[1] == pushed[-1]
        assert len(contexts[1]["funding"].partition(".")[2]) == 10
        assert Decimal(contexts[0]["markPx"]) > 10 * Decimal(contexts[1]["markPx"])
        low, high = map(Decimal, contexts[1]["impactPxs"])
        assert low < Decimal(contexts[1]["midPx"]) < high
        ledger = read_ledger(tmp_path)
        assert recorded(ledger, "ETH", rest=0) == [numbers(context) for context in pushed]
        for position, coin in enumerate(("BTC", "ETH")):
            # BTC may have taken new values between the two calls: then both are in the ledger.
            assert recorded(ledger, coin, rest=1)[0] == numbers(contexts[position])
        assert len(recorded(ledger, "BTC", rest=0)) == 0

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=2, ledger=tmp_path), scenario)


def test_funding_history_is_hourly_and_paged_by_time(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        query = {"type": "fundingHistory", "coin": "BTC", "startTime": 0}
        paid = await client.post(INFO, query)
        times = [row["time"] for row in paid]
        assert list(paid[0]) == ["coin", "fundingRate", "premium", "time"]
        assert all(later - earlier == 3_600_000 for earlier, later in pairwise(times))
        later = await client.post(INFO, {**query, "startTime": times[-1], "endTime": times[-1]})
        assert later == paid[-1:]
        assert await client.post(INFO, {**query, "coin": "NOPE"}) is None
        async with client.http.post(client.url + INFO, json={"type": "fundingHistory"}) as reply:
            assert reply.status == 422

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=1), scenario)
