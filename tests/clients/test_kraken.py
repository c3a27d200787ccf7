"""Clients that nobody here wrote read the simulated Kraken as they read the real one: ccxt, and of
spot's books python-kraken-sdk, which checks their checksums.

What their parsers make of the simulator's messages is compared with the simulator's own market and
ledger, so that a misreading of the protocol is not shared by both sides of this repository. They
are not among the packages of this project: without them these tests do not run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from shards.simulator.core.ledger import LedgerRows, Rows, read_ledger
from shards.simulator.core.market import Grid
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.kraken_futures import KrakenFutures
from shards.simulator.venues.kraken_spot import KrakenSpot
from tests.waiting import until

ccxt = pytest.importorskip("ccxt.pro", reason="ccxt is not installed")
pytestmark = [pytest.mark.whole, pytest.mark.timeout(120)]

TRADES: Final = 40
LOOKS: Final = 30
"""At a book, each after a change of it."""
SIDES: Final = {"B": "buy", "S": "sell"}
INVERSE, LINEAR = "BTC/USD:BTC", "BTC/USD:USD"


class Rig:
    """A client at a simulator."""

    def __init__(self, simulator: Simulator, client: Any) -> None:
        self.simulator, self.client = simulator, client
        (self.venue,) = simulator.venues.values()

    async def trades(self, symbol: str) -> list[Any]:
        """Some trades, each once."""
        seen: dict[str, Any] = {}
        while len(seen) < TRADES:
            for trade in await self.client.watch_trades(symbol):
                seen[trade["id"]] = trade
        return list(seen.values())

    async def books(self, symbol: str, limit: int | None = None) -> None:
        """Look at a book as it changes: its best bid and ask never cross."""
        for _ in range(LOOKS):
            book = await self.client.watch_order_book(symbol, limit)
            assert book["bids"][0][0] < book["asks"][0][0]

    async def until_the_book_is_the_markets(self, symbol: str, name: str) -> None:
        """Once the market stands still."""
        assert await self.simulator.pause()
        state = self.venue.state(name)
        assert state is not None
        wanted = [
            [(scaled(tick * state.grid.tick, state.grid.price_decimals),
              scaled(qty, state.grid.qty_decimals)) for tick, qty in side]
            for side in state.top(100)
        ]  # fmt: skip
        book = self.client.orderbooks[symbol]
        await until(lambda: [levels(book[side]) for side in ("bids", "asks")] == wanted, "the book")


def scaled(mantissa: int, decimals: int) -> Decimal:
    return Decimal(mantissa).scaleb(-decimals)


def exact(value: float) -> Decimal:
    """A number of the client's as it was written."""
    return Decimal(repr(value))


def levels(side: Any) -> list[tuple[Decimal, Decimal]]:
    return [(exact(level[0]), exact(level[1])) for level in side[:100]]


Scenario = Callable[[Rig], Awaitable[Any]]


def run(
    encoder: Callable[[], Any], make_client: Callable[[str], Any], ledger: Path, scenario: Scenario
) -> tuple[Any, LedgerRows]:
    """What the scenario returns, and the ledger after it."""

    async def main() -> Any:
        settings = SimulatorSettings(
            trades_per_s=200.0, symbols=4, ledger=ledger, liquidations_per_minute=600.0
        )
        simulator = Simulator(settings, [encoder])
        await simulator.start()
        (name,) = simulator.venues
        client = make_client(f"127.0.0.1:{simulator.port}/{name}")
        try:
            return await scenario(Rig(simulator, client))
        finally:
            await client.close()
            await simulator.close()

    return asyncio.run(main()), read_ledger(ledger)


def spot_client(at: str) -> Any:
    client = ccxt.kraken({"enableRateLimit": False, "newUpdates": True})
    client.urls["api"] |= {"public": f"http://{at}", "ws": {"publicV2": f"ws://{at}/v2"}}
    return client


def futures_client(at: str) -> Any:
    client = ccxt.krakenfutures({"enableRateLimit": False, "newUpdates": True})
    urls = {"public": f"http://{at}/derivatives/api/", "ws": f"ws://{at}/ws/v1"}
    client.urls["api"] |= urls
    return client


def rows_of(ledger: LedgerRows, kind: str, name: str) -> Rows:
    """Those of an instrument."""
    rows = ledger.of(kind)
    assert rows is not None
    return rows[[ledger.symbols[number][1] == name for number in rows["symbol"].tolist()]]


def assert_traded(trades: list[Any], ledger: LedgerRows, name: str) -> None:
    """Each was sent, with just these numbers."""
    sent = {
        (int(row["ts_event"]) // 1_000_000, SIDES[chr(row["side"])],
         scaled(int(row["price_mantissa"]), int(row["price_decimals"])),
         scaled(int(row["qty_mantissa"]), int(row["qty_decimals"])))
        for row in rows_of(ledger, "trade", name)
    }  # fmt: skip
    seen = {
        (each["timestamp"], each["side"], exact(each["price"]), exact(each["amount"]))
        for each in trades
    }
    assert seen
    assert seen <= sent


def quotes_sent(ledger: LedgerRows, name: str) -> set[tuple[Decimal, ...]]:
    return {
        tuple(
            scaled(int(row[f"{field}_mantissa"]), int(row[f"{unit}_decimals"]))
            for field, unit in (
                ("bid", "price"), ("bid_qty", "qty"), ("ask", "price"), ("ask_qty", "qty")
            )
        )
        for row in rows_of(ledger, "quote", name)
    }  # fmt: skip


def quote(ticker: Any) -> tuple[Decimal, ...]:
    return tuple(exact(ticker[name]) for name in ("bid", "bidVolume", "ask", "askVolume"))


def assert_listed(markets: Any, grids: dict[str, Grid]) -> None:
    """Steps of prices and quantities are those of the market."""
    for symbol, grid in grids.items():
        assert exact(markets[symbol]["precision"]["price"]) == Decimal(grid.tick_text)
        assert exact(markets[symbol]["precision"]["amount"]) == Decimal(grid.step_text)


def test_spot_trades_and_books(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> list[Any]:
        trades = await rig.trades("BTC/USD")
        await rig.books("BTC/USD", 1000)
        await rig.until_the_book_is_the_markets("BTC/USD", "BTC/USD")
        return trades

    trades, ledger = run(KrakenSpot, spot_client, tmp_path, scenario)
    assert_traded(trades, ledger, "BTC/USD")


def test_spot_quotes_and_instruments(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> list[Any]:
        markets = await rig.client.load_markets()
        assert_listed(markets, {grid.symbol: grid for grid in rig.venue.grids})
        params = {"event_trigger": "bbo"}
        return [await rig.client.watch_ticker("ETH/USD", params) for _ in range(5)]

    tickers, ledger = run(KrakenSpot, spot_client, tmp_path, scenario)
    assert {quote(ticker) for ticker in tickers} <= quotes_sent(ledger, "ETH/USD")


def test_futures_trades_liquidations_and_books(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> list[Any]:
        trades: list[Any] = []
        while not any(trade["type"] == "liquidation" for trade in trades):
            trades += await rig.trades(INVERSE)
        await rig.books(INVERSE)
        await rig.until_the_book_is_the_markets(INVERSE, "PI_XBTUSD")
        return trades

    trades, ledger = run(KrakenFutures, futures_client, tmp_path, scenario)
    assert_traded(trades, ledger, "PI_XBTUSD")
    forced = {
        (each["timestamp"], each["side"], exact(each["price"]), exact(each["amount"]))
        for each in trades if each["type"] == "liquidation"
    }  # fmt: skip
    sent = {
        (int(row["ts_event"]) // 1_000_000, SIDES[chr(row["side"])],
         scaled(int(row["price_mantissa"]), int(row["price_decimals"])),
         scaled(int(row["qty_mantissa"]), int(row["qty_decimals"])))
        for row in rows_of(ledger, "liquidation", "PI_XBTUSD")
    }  # fmt: skip
    assert forced <= sent


def test_futures_tickers_and_instruments(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> list[Any]:
        markets = await rig.client.load_markets()
        by_id = {grid.symbol: grid for grid in rig.venue.grids}
        assert_listed(markets, {each["symbol"]: by_id[each["id"]] for each in markets.values()})
        assert (markets[INVERSE]["inverse"], markets[INVERSE]["settle"]) == (True, "BTC")
        assert (markets[LINEAR]["linear"], markets[LINEAR]["settle"]) == (True, "USD")
        symbols = (LINEAR, LINEAR, INVERSE, INVERSE)
        return [await rig.client.watch_ticker(symbol) for symbol in symbols]

    tickers, ledger = run(KrakenFutures, futures_client, tmp_path, scenario)
    for ticker, name in zip(tickers, 2 * ["PF_XBTUSD"] + 2 * ["PI_XBTUSD"], strict=True):
        assert quote(ticker) in quotes_sent(ledger, name)
        assert_funding(ticker, ledger, name)


def assert_funding(ticker: Any, ledger: LedgerRows, name: str) -> None:
    """Prices, rate and open interest of a ticker are those of one moment; the amount that it says
    as well is the rate times the price: ccxt divides by that of a linear contract.
    """
    said, at_ns = ticker["info"], ticker["info"]["time"] * 1_000_000
    rows = rows_of(ledger, "funding", name)
    (row,) = rows[rows["ts_event"] == at_ns]
    decimals = int(row["price_decimals"])
    assert exact(ticker["markPrice"]) == scaled(int(row["mark_mantissa"]), decimals)
    assert exact(ticker["indexPrice"]) == scaled(int(row["index_mantissa"]), decimals)
    rate = scaled(int(row["rate_mantissa"]), int(row["rate_decimals"]))
    assert exact(said["relative_funding_rate"]) == rate
    price = exact(ticker["indexPrice"])
    amount = rate / price if name.startswith("PI_") else rate * price
    assert float(amount) == pytest.approx(said["funding_rate"], rel=1e-9)
    rows = rows_of(ledger, "open_interest", name)
    (row,) = rows[rows["ts_event"] == at_ns]
    interest = scaled(int(row["qty_mantissa"]), int(row["qty_decimals"]))
    assert exact(said["openInterest"]) == interest


def test_a_client_that_checks_checksums_finds_them_right(tmp_path: Path) -> None:
    """It recomputes the sum after each change, from texts with the decimals of the listing."""
    sdk = pytest.importorskip("kraken.spot", reason="python-kraken-sdk is not installed")

    async def main() -> list[bool]:
        settings = SimulatorSettings(trades_per_s=50.0, symbols=2, ledger=tmp_path)
        simulator = Simulator(settings, [KrakenSpot])
        await simulator.start()
        at = f"127.0.0.1:{simulator.port}/kraken_spot"
        decimals = {grid.symbol: grid for grid in simulator.venues["kraken_spot"].grids}
        seen: list[bool] = []

        class Books(sdk.SpotOrderBookClient):  # type: ignore[misc, name-defined]
            WS_URL = f"ws://{at}"

            async def on_book_update(self, pair: str, message: Any) -> None:
                if message.get("type") == "update":
                    seen.append(self.get(pair)["valid"])

        client = Books(depth=1000)
        client._SpotOrderBookClient__market = Listing(decimals)
        await client.start()
        try:
            await client.add_book(pairs=[*decimals])
            await until(lambda: len(seen) > 100, "changes of the books")
        finally:
            await client.close()
            await simulator.close()
        return seen

    assert all(asyncio.run(main()))


class Listing:
    """In place of its own calls, which go to the real venue."""

    def __init__(self, grids: dict[str, Grid]) -> None:
        self._grids = grids

    def get_asset_pairs(self, pair: str) -> dict[str, Any]:
        grid = self._grids[pair]
        facts = {"pair_decimals": grid.price_decimals, "lot_decimals": grid.qty_decimals}
        return {pair: facts}
