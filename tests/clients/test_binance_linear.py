"""ccxt reads the simulated Binance USD-M."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.clients.rig import Served, by, gathered, installed, number, serving

ccxt = installed("ccxt.pro")

VENUE, MARKET, SYMBOL = "binance_linear", "BTC/USDT:USDT", "BTCUSDT"
TAKERS = {"buy": "B", "sell": "S"}


@asynccontextmanager
async def exchange(served: Served) -> AsyncIterator[Any]:
    """A client whose addresses are the simulator's; it adds the categories of sockets itself."""
    trades = {"name": "aggTrade"}
    client = ccxt.binanceusdm({"options": {"watchTrades": trades, "watchTradesForSymbols": trades}})
    client.urls["api"]["fapiPublic"] = f"{served.rest_url}/fapi/v1"
    client.urls["api"]["ws"]["future"] = f"{served.ws_url}/ws"
    try:
        yield client
    finally:
        await client.close()


def run(ledger: Path, scenario: Callable[[Any, Served], Awaitable[None]]) -> None:
    async def body() -> None:
        async with serving(VENUE, ledger) as served, exchange(served) as client:
            await scenario(client, served)

    asyncio.run(body())


def test_instruments(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        markets = await client.load_markets()
        grids = {grid.symbol: grid for grid in served.market.grids}
        assert {market["id"] for market in markets.values()} == set(grids)
        for market in markets.values():
            grid = grids[market["id"]]
            assert (market["swap"], market["linear"], market["active"]) == (True, True, True)
            assert number(market["precision"]["price"]) == number(grid.tick_text)
            assert number(market["precision"]["amount"]) == number(grid.step_text)
            assert (market["quote"], market["settle"]) == ("USDT", "USDT")

    run(tmp_path, scenario)


def test_trades(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        heard = await gathered(lambda: client.watch_trades(MARKET), lambda rows: len(rows) > 100)
        await served.settled()
        sent = by("trade_id", served.sent("trade", SYMBOL))
        ids = [int(trade["id"]) for trade in heard]
        assert ids == list(range(ids[0], ids[0] + len(ids))), "none is missing"
        for trade in heard:
            row = sent[int(trade["id"])]
            assert number(trade["price"]) == row["price"]
            assert number(trade["amount"]) == row["qty"]
            assert (trade["timestamp"], TAKERS[trade["side"]]) == (row["ts_event"], row["side"])

    run(tmp_path, scenario)


def test_quotes(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        heard = await gathered(
            lambda: _only(client.watch_bids_asks([MARKET])), lambda rows: len(rows) > 20
        )
        await served.settled()
        sent = {
            tuple(row[name] for name in ("bid", "bid_qty", "ask", "ask_qty"))
            for row in served.sent("quote", SYMBOL)
        }
        for quote in heard:
            names = ("bid", "bidVolume", "ask", "askVolume")
            assert tuple(number(quote[name]) for name in names) in sent

    run(tmp_path, scenario)


def test_books(tmp_path: Path) -> None:
    """Its book of snapshot and changes is ours at every id it stops at."""

    async def scenario(client: Any, served: Served) -> None:
        seen: list[tuple[int, list[Any], list[Any]]] = []

        async def look() -> int:
            book = await client.watch_order_book(MARKET)
            seen.append((book["nonce"], book["bids"][:], book["asks"][:]))
            assert book["bids"][0][0] < book["asks"][0][0]
            return int(book["nonce"])

        await gathered(look, lambda ids: len(set(ids)) > 15)
        await served.settled()
        bids, asks = served.market.state_at(0).market.top(100)
        grid = served.market.grids[0]
        final = await _last(client, seen)
        for ours, theirs in ((bids, final[1]), (asks, final[2])):
            scaled = [
                (Decimal(tick * grid.tick).scaleb(-grid.price_decimals),
                 Decimal(qty).scaleb(-grid.qty_decimals))
                for tick, qty in ours
            ]  # fmt: skip
            assert [(number(price), number(qty)) for price, qty in theirs[:100]] == scaled

    run(tmp_path, scenario)


async def _last(client: Any, seen: Sequence[Any]) -> Any:
    """The book once nothing more comes."""
    book = client.orderbooks[MARKET]
    while seen[-1][0] != book["nonce"]:
        await client.watch_order_book(MARKET)
    return book["nonce"], book["bids"][:], book["asks"][:]


def test_mark_price_funding_and_open_interest(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        marks = await gathered(lambda: client.watch_mark_price(MARKET), lambda rows: len(rows) > 2)
        rate = await client.fetch_funding_rate(MARKET)
        open_interest = await client.fetch_open_interest(MARKET)
        await served.settled()
        sent = by("ts_event", served.sent("funding", SYMBOL))
        for mark in marks:
            row = sent[mark["timestamp"]]
            assert number(mark["markPrice"]) == row["mark"]
            assert number(mark["indexPrice"]) == row["index"]
        row = sent[rate["timestamp"]]
        assert number(rate["fundingRate"]) == row["rate"]
        assert number(rate["markPrice"]) == row["mark"]
        assert rate["fundingTimestamp"] == row["next_ts"]
        interest = by("ts_event", served.sent("open_interest", SYMBOL))
        held = interest[open_interest["timestamp"]]
        assert number(open_interest["openInterestAmount"]) == held["qty"]

    run(tmp_path, scenario)


def test_liquidations(tmp_path: Path) -> None:
    async def scenario(client: Any, served: Served) -> None:
        heard = await gathered(
            lambda: client.watch_liquidations(MARKET), lambda rows: len(rows) > 1
        )
        await served.settled()
        sent = by("ts_event", served.sent("liquidation", SYMBOL))
        for order in heard:
            row = sent[order["timestamp"]]
            assert number(order["price"]) == row["avg_price"], "what it filled at"
            assert number(order["contracts"]) == row["filled_qty"]
            assert TAKERS[order["side"]] == row["side"]

    run(tmp_path, scenario)


async def _only(pending: Awaitable[Any]) -> Any:
    """The one quote of an answer by symbol."""
    (quote,) = (await pending).values()
    return quote
