"""ccxt, which nobody here wrote, reads the simulated Deribit: what it understands must be what the
simulator's ledger has. It is no part of the locked packages: `pip install ccxt`, then name this
file.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from shards.simulator.core.ledger import Rows, read_ledger
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.symbol import Levels
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from tests.waiting import until

ccxt = pytest.importorskip("ccxt.pro")

pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("default")]  # theirs are not ours

NAMES: Final = {
    "BTC-PERPETUAL": "BTC/USD:BTC",
    "ETH-PERPETUAL": "ETH/USD:ETH",
    "BTC_USDC-PERPETUAL": "BTC/USDC:USDC",
}
"""By the venue's name of an instrument, ccxt's."""
BTC: Final = "BTC-PERPETUAL"
PATIENCE_S: Final = 60.0
Scenario = Callable[[Any, Simulator], Awaitable[None]]


def number(value: object) -> Decimal:
    """A client's float as the decimal number it stands for."""
    return Decimal(str(value))


def run(ledger: Path, scenario: Scenario) -> None:
    """Let ccxt read a simulator; time stands still once the scenario is over."""

    async def body() -> None:
        simulator = Simulator(
            SimulatorSettings(
                venues="deribit", ledger=ledger, trades_per_s=300.0, symbols=3,
                liquidations_per_minute=600.0,
            )
        )  # fmt: skip
        await simulator.start()
        client = ccxt.deribit()
        base = f"127.0.0.1:{simulator.port}/deribit"
        client.urls["api"] |= {"rest": f"http://{base}", "ws": f"ws://{base}/ws/api/v2"}
        try:
            await client.load_markets()
            async with asyncio.timeout(PATIENCE_S):
                await scenario(client, simulator)
        finally:
            await client.close()
            await simulator.close()

    asyncio.run(body())


def sent(ledger: Path, kind: str, symbol: str) -> Rows:
    """What the ledger has of a kind and an instrument."""
    found = read_ledger(ledger)
    rows = found.of(kind)
    assert rows is not None
    mine: Rows = rows[rows["symbol"] == found.symbols.index(("deribit", symbol))]
    return mine


def decimal(row: Any, name: str, unit: str) -> Decimal:
    return Decimal(int(row[f"{name}_mantissa"])).scaleb(-int(row[f"{unit}_decimals"]))


async def gather(
    watch: Callable[[], Awaitable[Any]], is_enough: Callable[[Sequence[Any]], bool]
) -> list[Any]:
    """What a client gives call by call, until there is enough."""
    found: list[Any] = []
    while not is_enough(found):
        got = await watch()
        found += got if isinstance(got, list) else [got]
    return found


def test_it_knows_the_instruments(tmp_path: Path) -> None:
    async def scenario(client: Any, simulator: Simulator) -> None:
        markets = {market["id"]: market for market in client.markets.values()}
        grids = {grid.symbol: grid for grid in simulator.venues["deribit"].grids}
        assert {name: market["symbol"] for name, market in markets.items()} == NAMES
        for name, market in markets.items():
            grid = grids[name]
            assert (market["swap"], market["active"]) == (True, True)
            assert market["inverse"] == ("_" not in name)
            assert number(market["precision"]["price"]) == number(grid.tick_text)
            assert number(market["precision"]["amount"]) == number(grid.step_text)

    run(tmp_path, scenario)


@pytest.mark.parametrize("symbol", [BTC, "BTC_USDC-PERPETUAL"])
def test_it_reads_every_trade_and_which_were_forced(tmp_path: Path, symbol: str) -> None:
    heard: dict[int, Any] = {}

    async def scenario(client: Any, _: Simulator) -> None:
        def is_enough(found: Sequence[Any]) -> bool:
            return len(found) > 200 and any("liquidation" in each["info"] for each in found)

        trades = await gather(lambda: client.watch_trades(NAMES[symbol]), is_enough)
        heard.update((int(each["info"]["trade_seq"]), each) for each in trades)

    run(tmp_path, scenario)
    assert sorted(heard) == list(range(min(heard), max(heard) + 1)), "none is missing"
    forced = [each for each in heard.values() if "liquidation" in each["info"]]
    rows = {int(row["trade_id"]): row for row in sent(tmp_path, "trade", symbol)}
    for seq, trade in heard.items():
        row = rows[seq]
        assert number(trade["price"]) == decimal(row, "price", "price")
        assert number(trade["amount"]) == decimal(row, "qty", "qty")
        assert trade["timestamp"] * 1_000_000 == row["ts_event"]
        assert trade["side"][0].upper() == chr(row["side"])
    orders = {
        (int(row["ts_event"]), chr(row["side"]), decimal(row, "qty", "qty"))
        for row in sent(tmp_path, "liquidation", symbol)
    }
    for trade in forced:
        at, side = trade["timestamp"] * 1_000_000, trade["side"][0].upper()
        assert (at, side, number(trade["amount"])) in orders


def test_its_book_is_the_market(tmp_path: Path) -> None:
    async def scenario(client: Any, simulator: Simulator) -> None:
        async def look() -> int:
            book = await client.watch_order_book(NAMES[BTC])
            assert book["bids"][0][0] < book["asks"][0][0], "crossed"
            return int(book["nonce"])

        await gather(look, lambda times: len(set(times)) > 30)
        assert await simulator.pause()
        market = simulator.venues["deribit"]
        state = market.state_at(0)
        market.say_changes(state, "100ms", now_ms())
        ours = [shown(state.grid, levels) for levels in state.top(1000)]
        book = client.orderbooks[NAMES[BTC]]

        def theirs() -> list[list[tuple[Decimal, Decimal]]]:
            return [
                [(number(price), number(qty)) for price, qty, *_ in book[side]]
                for side in ("bids", "asks")
            ]

        await until(lambda: theirs() == ours, "the book of the market")

    run(tmp_path, scenario)


def shown(grid: Grid, levels: Levels) -> list[tuple[Decimal, Decimal]]:
    """Levels of the market as numbers."""
    return [
        (Decimal(tick * grid.tick).scaleb(-grid.price_decimals),
         Decimal(qty).scaleb(-grid.qty_decimals))
        for tick, qty in levels
    ]  # fmt: skip


def test_it_reads_quotes(tmp_path: Path) -> None:
    heard: list[Any] = []

    async def scenario(client: Any, _: Simulator) -> None:
        async def look() -> Any:
            return (await client.watch_bids_asks([NAMES[BTC]]))[NAMES[BTC]]

        heard.extend(await gather(look, lambda found: len(found) > 20))

    run(tmp_path, scenario)
    names = (("bid", "price"), ("bid_qty", "qty"), ("ask", "price"), ("ask_qty", "qty"))
    quotes = {
        (int(row["ts_event"]), *(decimal(row, name, unit) for name, unit in names))
        for row in sent(tmp_path, "quote", BTC)
    }
    for quote in heard:
        values = (quote[name] for name in ("bid", "bidVolume", "ask", "askVolume"))
        assert (quote["timestamp"] * 1_000_000, *map(number, values)) in quotes


def test_it_reads_mark_index_funding_and_open_interest(tmp_path: Path) -> None:
    """Pushed and asked for."""
    heard: list[Any] = []

    async def scenario(client: Any, _: Simulator) -> None:
        heard.extend(
            await gather(lambda: client.watch_ticker(NAMES[BTC]), lambda found: len(found) > 3)
        )
        heard.append(await client.fetch_ticker(NAMES[BTC]))

    run(tmp_path, scenario)
    funding = {int(row["ts_event"]): row for row in sent(tmp_path, "funding", BTC)}
    interest = {int(row["ts_event"]): row for row in sent(tmp_path, "open_interest", BTC)}
    for ticker in heard:
        at = ticker["timestamp"] * 1_000_000
        assert number(ticker["markPrice"]) == decimal(funding[at], "mark", "price")
        assert number(ticker["indexPrice"]) == decimal(funding[at], "index", "price")
        info = ticker["info"]
        assert number(info["current_funding"]) == decimal(funding[at], "rate", "rate")
        assert number(info["open_interest"]) == decimal(interest[at], "qty", "qty")
