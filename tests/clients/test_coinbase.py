"""Clients nobody here wrote read the simulated Coinbase: what they understand must be what the
simulator's ledger has. They are no part of the locked packages: `pip install ccxt
coinbase-advanced-py`, then name this file.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from shards.simulator.core.ledger import Rows, read_ledger
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings

ccxt = pytest.importorskip("ccxt.pro")

pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("default")]  # theirs are not ours

SYMBOLS: Final = {"BTC/USD": "BTC-USD", "ETH/USD": "ETH-USD"}
PATIENCE_S: Final = 60.0
TRADES: Final = 200
Scenario = Callable[[Any, Simulator], Awaitable[None]]


def run(venue: str, ledger: Path, scenario: Scenario) -> None:
    """Let ccxt read a simulator; time stands still once the scenario is over."""
    # What it signs with is no secret: books of the exchange want something to sign.
    keys = {"apiKey": "a", "secret": "c2VjcmV0", "password": "p"}
    makes = {"coinbase": ccxt.coinbase, "coinbase_exchange": lambda: ccxt.coinbaseexchange(keys)}

    async def body() -> None:
        simulator = Simulator(
            SimulatorSettings(venues=venue, ledger=ledger, trades_per_s=300.0, symbols=3)
        )
        await simulator.start()
        client = makes[venue]()
        base = f"127.0.0.1:{simulator.port}/{venue}"
        client.urls["api"] |= {
            "rest": f"http://{base}", "public": f"http://{base}", "ws": f"ws://{base}/",
        }  # fmt: skip
        client.has["fetchCurrencies"] = False  # of another address, and no market data
        try:
            await client.load_markets()
            async with asyncio.timeout(PATIENCE_S):
                await scenario(client, simulator)
            await simulator.pause()
        finally:
            await client.close()
            await simulator.close()

    asyncio.run(body())


def sent(ledger: Path, venue: str, kind: str, symbol: str) -> Rows:
    """What the ledger has of a kind and an instrument."""
    found = read_ledger(ledger)
    rows = found.of(kind)
    assert rows is not None
    mine: Rows = rows[rows["symbol"] == found.symbols.index((venue, symbol))]
    return mine


def decimal(row: Any, name: str, unit: str) -> Decimal:
    return Decimal(int(row[f"{name}_mantissa"])).scaleb(-int(row[f"{unit}_decimals"]))


def number(value: object) -> Decimal:
    """A client's float as the decimal number it stands for."""
    return Decimal(str(value))


async def gather_trades(client: Any, symbol: str) -> dict[str, Any]:
    """Some trades by id."""
    found: dict[str, Any] = {}
    while len(found) < TRADES:
        found |= {trade["id"]: trade for trade in await client.watch_trades(symbol)}
    return found


def compare_trades(said: dict[str, Any], rows: Rows, *, side_is_maker: bool) -> None:
    """Each trade the client has is one that was sent, and says the same."""
    by_id = {str(row["trade_id"]): row for row in rows}
    taker = {"buy": "sell", "sell": "buy"} if side_is_maker else {"buy": "buy", "sell": "sell"}
    for trade_id, trade in said.items():
        row = by_id[trade_id]
        assert number(trade["price"]) == decimal(row, "price", "price")
        assert number(trade["amount"]) == decimal(row, "qty", "qty")
        assert trade["timestamp"] * 1_000_000 == row["ts_event"]
        assert taker[trade["side"]] == {"B": "buy", "S": "sell"}[chr(row["side"])]


async def watch_books(client: Any, symbol: str, count: int, params: dict[str, Any]) -> Any:
    """The last of some books, none of them crossed."""
    for _ in range(count):
        book = await client.watch_order_book(symbol, params=params)
        assert book["bids"][0][0] < book["asks"][0][0]
    return book


def compare_top(book: Any, simulator: Simulator, venue: str, symbol: str, depth: int) -> None:
    """What the client keeps is the simulated book."""
    state = simulator.venues[venue].state(symbol)
    assert state is not None
    grid = state.grid
    for side, levels in zip(("bids", "asks"), state.top(depth), strict=True):
        ours = [
            (Decimal(tick * grid.tick).scaleb(-grid.price_decimals),
             Decimal(qty).scaleb(-grid.qty_decimals))
            for tick, qty in levels
        ]  # fmt: skip
        assert [(number(price), number(qty)) for price, qty, *_ in book[side][:depth]] == ours


async def settled_book(client: Any, simulator: Simulator, symbol: str, params: Any) -> Any:
    """The client's book once nothing more comes."""
    await watch_books(client, symbol, 50, params)
    await simulator.pause()
    while True:
        try:
            async with asyncio.timeout(2.0):
                await client.watch_order_book(symbol, params=params)
        except TimeoutError:
            return client.orderbooks[symbol]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_ccxt_reads_trades_of_advanced_trade(tmp_path: Path, symbol: str) -> None:
    """It hands on `side` as it is said, which is the maker's."""
    said: dict[str, Any] = {}

    async def scenario(client: Any, _: Simulator) -> None:
        said.update(await gather_trades(client, symbol))

    run("coinbase", tmp_path, scenario)
    rows = sent(tmp_path, "coinbase", "trade", SYMBOLS[symbol])
    compare_trades(said, rows, side_is_maker=True)


def test_ccxt_reads_trades_of_the_exchange(tmp_path: Path) -> None:
    """Here it turns the maker's side round, of the feed and of what it fetches."""
    said: dict[str, Any] = {}
    fetched: dict[str, Any] = {}

    async def scenario(client: Any, _: Simulator) -> None:
        said.update(await gather_trades(client, "BTC/USD"))
        fetched.update({each["id"]: each for each in await client.fetch_trades("BTC/USD")})

    run("coinbase_exchange", tmp_path, scenario)
    rows = sent(tmp_path, "coinbase_exchange", "trade", "BTC-USD")
    compare_trades(said, rows, side_is_maker=False)
    compare_trades(fetched, rows, side_is_maker=False)
    assert fetched


@pytest.mark.parametrize(
    ("venue", "params"), [("coinbase", {}), ("coinbase_exchange", {"channels": ["level2_batch"]})]
)
def test_ccxt_keeps_the_simulated_book(tmp_path: Path, venue: str, params: Any) -> None:
    async def scenario(client: Any, simulator: Simulator) -> None:
        book = await settled_book(client, simulator, "BTC/USD", params)
        compare_top(book, simulator, venue, "BTC-USD", 50)

    run(venue, tmp_path, scenario)


@pytest.mark.parametrize("venue", ["coinbase", "coinbase_exchange"])
def test_ccxt_reads_quotes(tmp_path: Path, venue: str) -> None:
    said: list[Any] = []

    async def scenario(client: Any, _: Simulator) -> None:
        while len(said) < 20:
            said.append(dict(await client.watch_ticker("BTC/USD")))

    run(venue, tmp_path, scenario)
    quotes = {
        (decimal(row, "bid", "price"), decimal(row, "ask", "price"))
        for row in sent(tmp_path, venue, "quote", "BTC-USD")
    }
    assert {(number(each["bid"]), number(each["ask"])) for each in said} <= quotes


def test_ccxt_reads_the_listings(tmp_path: Path) -> None:
    async def compare(client: Any, simulator: Simulator) -> None:
        venue = next(iter(simulator.venues.values()))
        markets = {each["id"]: each for each in client.markets.values()}
        assert markets.keys() == {grid.symbol for grid in venue.grids}
        for grid in venue.grids:
            market = markets[grid.symbol]
            assert number(market["precision"]["price"]) == Decimal(grid.tick_text)
            assert number(market["precision"]["amount"]) == Decimal(grid.step_text)
            assert market["active"]

    async def with_future(client: Any, simulator: Simulator) -> None:
        await compare(client, simulator)
        (future,) = [each for each in client.markets.values() if each["contract"]]
        kind = future["type"], future["contractSize"], future["settle"]
        assert kind == ("future", 0.01, "USD")
        said = await client.v3_public_get_brokerage_market_products_product_id(
            {"product_id": future["id"]}
        )
        details = said["future_product_details"]
        await simulator.pause()
        (funding,) = sent(tmp_path / "coinbase", "coinbase", "funding", future["id"])
        assert Decimal(details["funding_rate"]) == decimal(funding, "rate", "rate")
        (interest,) = sent(tmp_path / "coinbase", "coinbase", "open_interest", future["id"])
        assert Decimal(details["open_interest"]) == decimal(interest, "qty", "qty")

    run("coinbase_exchange", tmp_path / "exchange", compare)
    run("coinbase", tmp_path / "coinbase", with_future)


def test_the_venues_own_client_reads_all_channels(tmp_path: Path) -> None:
    """Its socket runs in a thread of its own."""
    websocket = pytest.importorskip("coinbase.websocket")
    said: list[Any] = []

    async def scenario(_: Any, simulator: Simulator) -> None:
        def talk() -> None:
            address = f"ws://127.0.0.1:{simulator.port}/coinbase/"
            client = websocket.WSClient(
                base_url=address,
                on_message=lambda text: said.append(websocket.WebsocketResponse(json.loads(text))),
                retry=False,
            )
            client.open()
            client.subscribe(["BTC-USD"], ["level2", "market_trades", "ticker"])
            client.heartbeats()
            while sum(each.channel == "heartbeats" for each in said) < 3:
                client.sleep_with_exception_check(0.1)
            client.close()

        await asyncio.to_thread(talk)

    run("coinbase", tmp_path, scenario)
    assert {each.channel for each in said} == {
        "subscriptions", "l2_data", "market_trades", "ticker", "heartbeats",
    }  # fmt: skip
    assert [each.sequence_num for each in said] == list(range(len(said)))
    events = [event for each in said if each.channel == "market_trades" for event in each.events]
    trades = [trade for event in events for trade in event.trades]
    rows = {int(row["trade_id"]): row for row in sent(tmp_path, "coinbase", "trade", "BTC-USD")}
    assert trades
    for trade in trades:
        assert Decimal(trade.price) == decimal(rows[int(trade.trade_id)], "price", "price")
        assert Decimal(trade.size) == decimal(rows[int(trade.trade_id)], "qty", "qty")
