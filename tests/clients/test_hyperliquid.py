"""ccxt and the venue's own SDK read the simulated Hyperliquid: its dex, builders' dexes, and spot.

ccxt takes indexes of tokens and pairs for places in their lists, which is true of few: of pairs it
can read PURR/USDC, where both come first. Open interest of builders' dexes it does not read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.base.clock import wall_ns
from tests.clients.rig import Served, by, gathered, installed, number, serving
from tests.waiting import until

ccxt = installed("ccxt.pro")
info = installed("hyperliquid.info")


class Market(NamedTuple):
    """A venue, one of its coins, what it is margined in, and what the clients call them."""

    venue: str
    coin: str
    margin: str
    type: str
    dexes: list[str] | None
    name: str


PERP = Market("hyperliquid_perp", "BTC", "USDC", "swap", None, "BTC")
BUILDER = Market("hyperliquid_builder", "flx:NVDA", "USDH", "hip3", ["xyz", "flx"], "flx:NVDA")
SPOT = Market("hyperliquid_spot", "PURR/USDC", "USDC", "spot", None, "PURR/USDC")
NUMBERED = SPOT._replace(coin="@107", name="HYPE/USDC")
CONTRACTS = (PERP, BUILDER)
MARKETS = (*CONTRACTS, SPOT)
SDK_MARKETS = (*CONTRACTS, NUMBERED)
TAKERS = {"buy": "B", "sell": "S", "B": "B", "A": "S"}

of_markets = pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.venue)
of_sdk_markets = pytest.mark.parametrize("market", SDK_MARKETS, ids=lambda market: market.venue)
of_contracts = pytest.mark.parametrize("market", CONTRACTS, ids=lambda market: market.venue)


@asynccontextmanager
async def exchange(served: Served, market: Market) -> AsyncIterator[Any]:
    """ccxt, with the simulator's addresses and the markets of this venue."""
    client = ccxt.hyperliquid({"options": {"fetchMarkets": {"types": [market.type]}}})
    client.urls["api"]["public"] = served.rest_url
    client.urls["api"]["ws"]["public"] = f"{served.ws_url}/ws"
    try:
        await client.load_markets()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def sdk(served: Served, market: Market) -> AsyncIterator[Any]:
    """The SDK, whose calls block and whose socket has a thread."""
    client = await asyncio.to_thread(
        info.Info, served.rest_url, perp_dexs=market.dexes, skip_ws=False
    )
    try:
        yield client
    finally:
        await asyncio.to_thread(client.disconnect_websocket)
        await asyncio.to_thread(client.ws_manager.join)


def run(
    market: Market,
    ledger: Path,
    opened: Callable[[Served, Market], Any],
    scenario: Callable[[Any, Served], Awaitable[None]],
) -> None:
    async def body() -> None:
        async with serving(market.venue, ledger) as served, opened(served, market) as client:
            await scenario(client, served)

    asyncio.run(body())


def symbol_in(client: Any, market: Market) -> str:
    """What ccxt calls a coin."""
    known = [each for each in client.markets.values() if each["info"]["name"] == market.coin]
    (found,) = known
    return str(found["symbol"])


async def heard_by(client: Any, kind: str, name: str, count: int) -> list[Any]:
    """What the SDK hands on of a subscription, until there are so many messages."""
    heard: list[Any] = []
    client.subscribe({"type": kind, "coin": name}, heard.append)
    await until(lambda: len(heard) >= count, f"{count} messages of {kind}")
    return [message["data"] for message in heard]


def levels_of(served: Served, coin: str) -> dict[int, list[Any]]:
    """Price and quantity of each level of each book, by its time: bids, then asks."""
    found: dict[int, list[Any]] = {}
    for row in served.sent("book", coin):
        found.setdefault(row["ts_event"], []).append((row["price"], row["qty"]))
    return found


@of_markets
def test_ccxt_lists_the_same_instruments(market: Market, tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        grids = {grid.symbol: grid for grid in served.market.grids}
        found = client.market(symbol_in(client, market))
        grid = grids[market.coin]
        assert number(found["precision"]["amount"]) == number(grid.step_text)
        assert number(found["precision"]["price"]) == number(grid.tick_text)
        assert (found["quote"], found["active"]) == (market.margin, True)
        if market in CONTRACTS:
            names = {each["info"]["name"] for each in client.markets.values()}
            assert names == set(grids)
            assert (found["settle"], found["contractSize"]) == (market.margin, 1)

    run(market, tmp_path, exchange, scenario)


@of_markets
def test_ccxt_reads_the_trades_that_were_sent(market: Market, tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        symbol = symbol_in(client, market)
        heard = await gathered(lambda: client.watch_trades(symbol), lambda rows: len(rows) > 50)
        await served.settled()
        sent = by("trade_id", served.sent("trade", market.coin))
        for trade in heard:
            row = sent[int(trade["id"])]
            assert (number(trade["price"]), number(trade["amount"])) == (row["price"], row["qty"])
            assert (trade["timestamp"], TAKERS[trade["side"]]) == (row["ts_event"], row["side"])

    run(market, tmp_path, exchange, scenario)


@of_markets
def test_ccxt_reads_whole_books_pushed_and_asked_for(market: Market, tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        symbol = symbol_in(client, market)
        books = []
        for _ in range(4):
            book = await client.watch_order_book(symbol)
            books.append((book["timestamp"], [*book["bids"], *book["asks"]]))
            assert book["bids"][0][0] < book["asks"][0][0]
        asked = await client.fetch_order_book(symbol)
        assert (len(asked["bids"]), len(asked["asks"])) == (20, 20)
        await served.settled()
        sent = levels_of(served, market.coin)
        for at_ms, levels in books:
            assert [(number(price), number(qty)) for price, qty in levels] == sent[at_ms]

    run(market, tmp_path, exchange, scenario)


@of_contracts
def test_ccxt_reads_funding(market: Market, tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        symbol = symbol_in(client, market)
        dex, _, _ = market.coin.rpartition(":")
        parameters = {"dex": dex} if dex else {}
        rates = await client.fetch_funding_rates([symbol], parameters)
        history = await client.fetch_funding_rate_history(symbol, since=0)
        await served.settled()
        rows = served.sent("funding", market.coin)
        rate = rates[symbol]
        told = tuple(number(rate[name]) for name in ("fundingRate", "markPrice", "indexPrice"))
        assert told in [(row["rate"], row["mark"], row["index"]) for row in rows]
        assert rate["interval"] == "1h"
        contract = served.market.contract(market.coin)
        assert contract is not None
        assert [(row["timestamp"], number(row["fundingRate"])) for row in history] == [
            (paid.ts_ms, number(paid.rate) / 10**10) for paid in contract.settlements
        ]

    run(market, tmp_path, exchange, scenario)


def test_ccxt_reads_open_interest(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        interest = await client.fetch_open_interest(symbol_in(client, PERP))
        await served.settled()
        held = [row["qty"] for row in served.sent("open_interest", PERP.coin)]
        assert number(interest["openInterestAmount"]) in held

    run(PERP, tmp_path, exchange, scenario)


@of_sdk_markets
def test_the_sdk_starts_and_knows_the_sizes(market: Market, tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        sizes = {grid.symbol: grid.qty_decimals for grid in served.market.grids}
        asset = client.name_to_asset(market.name)
        assert client.asset_to_sz_decimals[asset] == sizes[market.coin]

    run(market, tmp_path, sdk, scenario)


@of_sdk_markets
def test_the_sdk_hands_on_trades_books_and_quotes(market: Market, tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        quotes = await heard_by(client, "bbo", market.name, 5)
        trades = [row for data in await heard_by(client, "trades", market.name, 5) for row in data]
        books = await heard_by(client, "l2Book", market.name, 3)
        await served.settled()
        touches = by("ts_event", served.sent("quote", market.coin))
        for quote in quotes:
            row = touches[quote["time"]]
            touch = [number(side[key]) for side in quote["bbo"] for key in ("px", "sz")]
            assert touch == [row[name] for name in ("bid", "bid_qty", "ask", "ask_qty")]
        sent = by("trade_id", served.sent("trade", market.coin))
        for trade in trades:
            row = sent[trade["tid"]]
            assert (number(trade["px"]), number(trade["sz"])) == (row["price"], row["qty"])
            assert (TAKERS[trade["side"]], trade["time"]) == (row["side"], row["ts_event"])
        whole = levels_of(served, market.coin)
        for book in books:
            levels = [level for side in book["levels"] for level in side]
            told = [(number(level["px"]), number(level["sz"])) for level in levels]
            assert told == whole[book["time"]]

    run(market, tmp_path, sdk, scenario)


@of_contracts
def test_the_sdk_hands_on_contexts(market: Market, tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        contexts = await heard_by(client, "activeAssetCtx", market.name, 2)
        await served.settled()
        funding = served.sent("funding", market.coin)
        interest = served.sent("open_interest", market.coin)
        sent = [
            (row["rate"], row["mark"], row["index"], other["qty"])
            for row, other in zip(funding, interest, strict=True)
        ]
        names = ("funding", "markPx", "oraclePx", "openInterest")
        for context in contexts:
            assert tuple(number(context["ctx"][name]) for name in names) in sent

    run(market, tmp_path, sdk, scenario)


def test_the_sdk_hands_on_what_a_pair_trades_at(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        (context,) = await heard_by(client, "activeAssetCtx", NUMBERED.name, 1)
        meta, contexts = await asyncio.to_thread(client.spot_meta_and_asset_ctxs)
        listed = [pair["name"] for pair in meta["universe"]]
        assert set(listed) == {grid.symbol for grid in served.market.grids}
        assert [each["coin"] for each in contexts] == listed
        assert context["coin"] == context["ctx"]["coin"] == NUMBERED.coin
        assert {"funding", "openInterest"}.isdisjoint(context["ctx"])

    run(NUMBERED, tmp_path, sdk, scenario)


def test_the_sdk_is_told_what_was_paid(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        day_ago_ms = wall_ns() // 1_000_000 - 86_400_000
        history = await asyncio.to_thread(client.funding_history, PERP.name, day_ago_ms)
        contract = served.market.contract(PERP.coin)
        assert contract is not None
        assert [(paid["time"], number(paid["fundingRate"])) for paid in history] == [
            (paid.ts_ms, number(paid.rate) / 10**10) for paid in contract.paid(day_ago_ms, None)
        ]

    run(PERP, tmp_path, sdk, scenario)
