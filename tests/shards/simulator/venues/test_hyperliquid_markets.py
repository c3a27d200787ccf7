"""Builders' dexes and pairs of tokens of the simulated Hyperliquid."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shards.simulator.core.ledger import read_ledger
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.hyperliquid import HyperliquidBuilder, HyperliquidSpot

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

BUILDER, SPOT = "hyperliquid_builder", "hyperliquid_spot"
SETTINGS = SimulatorSettings(symbols=4, trades_per_s=400.0)


async def info(client: "Client", venue: str, **query: object) -> Any:
    return await client.post(f"/{venue}/info", query)


async def subscribed(client: "Client", venue: str, **wanted: object) -> Any:
    """A socket whose subscription was taken."""
    socket = await client.socket(f"/{venue}/ws")
    await socket.send_json({"method": "subscribe", "subscription": wanted})
    assert (await socket.receive_json(timeout=30))["channel"] == "subscriptionResponse"
    return socket


def test_every_dex_has_its_coins_its_margin_and_its_contexts(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        first, *dexes = await info(client, BUILDER, type="perpDexs")
        assert first is None
        names = ["", *(dex["name"] for dex in dexes)]
        metas = await info(client, BUILDER, type="allPerpMetas")
        assert [meta["collateralToken"] for meta in metas] == [0, 0, 360, 235]
        for dex, meta in zip(names, metas, strict=True):
            assert await info(client, BUILDER, type="meta", dex=dex) == meta
            assert all(coin["name"].startswith(f"{dex}:") for coin in meta["universe"])
            _, contexts = await info(client, BUILDER, type="metaAndAssetCtxs", dex=dex)
            assert len(contexts) == len(meta["universe"])
        assert [coin["name"] for meta in metas for coin in meta["universe"]] == [
            "xyz:TSLA", "xyz:NVDA", "flx:NVDA", "hyna:BTC",
        ]  # fmt: skip
        assert await info(client, BUILDER, type="meta", dex="nobody") is None
        assert (await info(client, BUILDER, type="spotMeta"))["universe"] == []

    simulated(SETTINGS, scenario, [HyperliquidBuilder])


def test_pairs_are_joined_to_their_tokens_by_index_and_have_holes(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        meta, contexts = await info(client, SPOT, type="spotMetaAndAssetCtxs")
        tokens = {token["index"]: token["name"] for token in meta["tokens"]}
        pairs = {pair["name"]: [tokens[index] for index in pair["tokens"]]
                 for pair in meta["universe"]}  # fmt: skip
        assert pairs == {
            "PURR/USDC": ["PURR", "USDC"], "@107": ["HYPE", "USDC"], "@142": ["UBTC", "USDC"],
            "@151": ["UETH", "USDC"],
        }  # fmt: skip
        assert list(tokens) != list(range(len(tokens)))
        assert [context["coin"] for context in contexts] == list(pairs)
        assert (await info(client, SPOT, type="meta"))["universe"] == []
        change = {"venue": SPOT, "action": "delist", "symbol": "@107"}
        await client.post("/simulator/instruments", change)
        left = (await info(client, SPOT, type="spotMeta"))["universe"]
        assert [pair["name"] for pair in left] == ["PURR/USDC", "@142", "@151"]

    simulated(SETTINGS, scenario, [HyperliquidSpot])


def test_the_context_of_a_pair_is_said_once_and_is_no_row(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        socket = await subscribed(client, SPOT, type="activeAssetCtx", coin="@107")
        said = await socket.receive_json(timeout=30)
        assert said["channel"] == "activeSpotAssetCtx"
        assert (said["data"]["coin"], said["data"]["ctx"]["coin"]) == ("@107", "@107")
        quotes = await subscribed(client, SPOT, type="bbo", coin="@107")
        for _ in range(5):
            await quotes.receive_json(timeout=30)
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        assert len(ledger.quote) >= 5
        assert (len(ledger.funding), len(ledger.open_interest), len(ledger.interval)) == (0, 0, 0)

    simulated(SimulatorSettings(symbols=2, ledger=tmp_path), scenario, [HyperliquidSpot])


@pytest.mark.parametrize(
    ("venue", "encoder", "coin", "wrong"),
    [
        (BUILDER, HyperliquidBuilder, "flx:NEW", "nobody:NEW"),
        (SPOT, HyperliquidSpot, "@2000", "NEW/USDC"),
    ],
)
def test_what_is_listed_trades_under_a_name_of_its_market(
    simulated: "Simulated", venue: str, encoder: Any, coin: str, wrong: str
) -> None:
    async def scenario(client: "Client") -> None:
        change = {"venue": venue, "action": "list", "price": 3.5}
        await client.post("/simulator/instruments", {**change, "symbol": coin})
        trades = await subscribed(client, venue, type="trades", coin=coin)
        books = await subscribed(client, venue, type="l2Book", coin=coin)
        for socket in (trades, books):
            data = (await socket.receive_json(timeout=30))["data"]
            assert (data[0] if isinstance(data, list) else data)["coin"] == coin
        refused = await client.http.post(
            f"{client.url}/simulator/instruments", json={**change, "symbol": wrong}
        )
        assert refused.status == 400

    simulated(SETTINGS, scenario, [encoder])
