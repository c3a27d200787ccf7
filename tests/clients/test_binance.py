"""Binance's simulated markets, read by a client that nobody here wrote.

It is ccxt, with its own parsers, books and addresses (those are set to the simulator's). It is no
dependency: `pip install ccxt` runs these tests, else they say that they did not run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shards.simulator.core.ledger import SETTLED, LedgerRows, Rows, read_ledger
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings

ccxt = pytest.importorskip("ccxt.pro")
pytestmark = pytest.mark.whole

PATIENCE_S = 60.0
MARKETS = {
    "spot": ("binance_spot", "BTC/USDT", "BTCUSDT"),
    "linear": ("binance_linear", "BTC/USDT:USDT", "BTCUSDT"),
    "inverse": ("binance_inverse", "BTC/USD:BTC", "BTCUSD_PERP"),
}
FUTURES = ("linear", "inverse")
Scenario = Callable[[Any, Simulator], Awaitable[None]]


def client(market: str, port: int) -> Any:
    """The exchange of one market, at the simulator's addresses."""
    exchange = ccxt.binance({"options": {"fetchMarkets": {"types": [market]}}, "newUpdates": True})
    http, ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
    exchange.urls["api"] |= {
        "public": f"{http}/binance_spot/api/v3",
        "fapiPublic": f"{http}/binance_linear/fapi/v1",
        "dapiPublic": f"{http}/binance_inverse/dapi/v1",
        "ws": {
            # It takes an address for spot's by the word in it.
            "spot": f"{ws}/binance_spot/ws/stream",
            "future": f"{ws}/binance_linear/ws",
            "delivery": f"{ws}/binance_inverse/ws",
        },
    }
    return exchange


def play(market: str, scenario: Scenario, ledger: Path) -> LedgerRows:
    """Run a scenario against a simulator; gives what that has sent."""
    settings = SimulatorSettings(
        venues=MARKETS[market][0], trades_per_s=200.0, symbols=12, ledger=ledger,
        liquidations_per_minute=3000.0,
    )  # fmt: skip

    async def body() -> None:
        simulator = Simulator(settings)
        await simulator.start()
        exchange = client(market, simulator.port)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(exchange, simulator)
        finally:
            await exchange.close()
            await simulator.close()

    asyncio.run(body())
    return read_ledger(ledger)


def of(ledger: LedgerRows, rows: Rows, symbol: str) -> Rows:
    names = [name for _, name in ledger.symbols]
    found: Rows = rows[rows["symbol"] == names.index(symbol)]
    return found


def value(row: Rows, name: str, unit: str = "") -> Decimal:
    decimals = int(row[f"{unit or name}_decimals"])
    return Decimal(int(row[f"{name}_mantissa"])).scaleb(-decimals)


def exact(number: float) -> Decimal:
    return Decimal(repr(number))


@pytest.mark.parametrize("market", list(MARKETS))
def test_trades(market: str, tmp_path: Path) -> None:
    _, symbol, name = MARKETS[market]
    seen: list[Any] = []

    async def scenario(exchange: Any, _: Simulator) -> None:
        while len(seen) < 50:
            seen.extend(await exchange.watch_trades(symbol, params={"name": "aggTrade"}))

    ledger = play(market, scenario, tmp_path)
    sent = {
        (str(row["trade_id"]), int(row["ts_event"]) // 1_000_000): (
            value(row, "price"), value(row, "qty"), "buy" if row["side"] == ord("B") else "sell",
        )
        for row in of(ledger, ledger.trade, name)
    }  # fmt: skip
    for trade in seen:
        found = exact(trade["price"]), exact(trade["amount"]), trade["side"]
        assert sent[trade["id"], trade["timestamp"]] == found


@pytest.mark.parametrize("market", list(MARKETS))
def test_books_are_never_crossed_and_end_as_the_markets(market: str, tmp_path: Path) -> None:
    name, symbol, wire = MARKETS[market]

    async def scenario(exchange: Any, simulator: Simulator) -> None:
        for _ in range(40):
            book = await exchange.watch_order_book(symbol)
            assert book["bids"][0][0] < book["asks"][0][0]
        state = simulator.venues[name].state(wire)
        assert state is not None
        simulator._set_paused(paused=True)
        while book["nonce"] < state.last_update:
            try:
                async with asyncio.timeout(1.0):
                    book = await exchange.watch_order_book(symbol)
            except TimeoutError:
                break  # the change after the last event was nobody's yet
        grid, bids, asks = state.grid, *state.top(10)
        for side, levels in (("bids", bids), ("asks", asks)):
            found = [(exact(price), exact(qty)) for price, qty in book[side][:10]]
            assert sum(level in found for level in shown(grid, levels)) >= 8, side

    play(market, scenario, tmp_path)


def shown(grid: Any, levels: Any) -> list[tuple[Decimal, Decimal]]:
    return [
        (
            Decimal(tick * grid.tick).scaleb(-grid.price_decimals),
            Decimal(qty).scaleb(-grid.qty_decimals),
        )
        for tick, qty in levels
    ]


@pytest.mark.parametrize("market", list(MARKETS))
def test_quotes(market: str, tmp_path: Path) -> None:
    _, symbol, name = MARKETS[market]
    seen: list[Any] = []

    async def scenario(exchange: Any, _: Simulator) -> None:
        while len(seen) < 20:
            seen.append((await exchange.watch_bids_asks([symbol]))[symbol])

    ledger = play(market, scenario, tmp_path)
    sent = {
        int(row["seq"]): (
            value(row, "bid", "price"), value(row, "bid_qty", "qty"),
            value(row, "ask", "price"), value(row, "ask_qty", "qty"),
        )
        for row in of(ledger, ledger.quote, name)
    }  # fmt: skip
    for quote in seen:
        names = ("bid", "bidVolume", "ask", "askVolume")
        assert sent[quote["info"]["u"]] == tuple(exact(quote[each]) for each in names)


@pytest.mark.parametrize("market", FUTURES)
def test_marks_funding_open_interest_and_liquidations(market: str, tmp_path: Path) -> None:
    _, symbol, name = MARKETS[market]
    marks: list[Any] = []
    orders: list[Any] = []
    polled: dict[str, Any] = {}

    async def scenario(exchange: Any, _: Simulator) -> None:
        while len(marks) < 3:
            marks.append(await exchange.watch_mark_price(symbol))
        polled["rate"] = await exchange.fetch_funding_rate(symbol)
        polled["open"] = await exchange.fetch_open_interest(symbol)
        polled["paid"] = await exchange.fetch_funding_rate_history(symbol, since=1)
        orders.extend(await exchange.watch_liquidations(symbol))

    ledger = play(market, scenario, tmp_path)
    rows = of(ledger, ledger.funding, name)
    states = {int(row["ts_event"]) // 1_000_000: row for row in rows if row["rest"] < SETTLED}
    for mark in marks:
        row = states[mark["timestamp"]]
        assert exact(mark["markPrice"]) == value(row, "mark", "price")
        assert exact(mark["indexPrice"]) == value(row, "index", "price")
    rate = polled["rate"]
    row = states[rate["timestamp"]]
    assert exact(rate["fundingRate"]) == value(row, "rate")
    assert exact(rate["markPrice"]) == value(row, "mark", "price")
    assert rate["fundingTimestamp"] == int(row["next_ts"]) // 1_000_000
    paid = {
        int(row["ts_event"]) // 1_000_000: value(row, "rate")
        for row in rows
        if row["rest"] == SETTLED
    }
    assert {each["timestamp"]: exact(each["fundingRate"]) for each in polled["paid"]} == paid
    (interest,) = of(ledger, ledger.open_interest, name)
    assert exact(polled["open"]["openInterestAmount"]) == value(interest, "qty")
    forced = {
        (int(row["ts_event"]) // 1_000_000, "sell" if row["side"] == ord("S") else "buy"): row
        for row in of(ledger, ledger.liquidation, name)
    }
    assert orders
    for order in orders:
        row = forced[order["timestamp"], order["side"]]
        assert exact(order["contracts"]) == value(row, "filled_qty", "qty")
        assert exact(order["price"]) == value(row, "avg_price", "price")


@pytest.mark.parametrize("market", list(MARKETS))
def test_instruments(market: str, tmp_path: Path) -> None:
    name, symbol, wire = MARKETS[market]
    listed: dict[str, Any] = {}

    async def scenario(exchange: Any, simulator: Simulator) -> None:
        listed.update(await exchange.load_markets())
        grids = {grid.symbol: grid for grid in simulator.venues[name].grids}
        by_id = {each["id"]: each for each in listed.values()}
        assert by_id.keys() == grids.keys()
        for each, grid in grids.items():
            precision = by_id[each]["precision"]
            assert exact(precision["price"]) == Decimal(grid.tick_text)
            assert exact(precision["amount"]) == Decimal(grid.step_text)

    play(market, scenario, tmp_path)
    assert listed[symbol]["id"] == wire
    if market == "inverse":
        assert listed[symbol]["contractSize"] == 100
        assert listed["ETH/USD:ETH"]["contractSize"] == 10
    if market in FUTURES:
        kinds = {
            each["id"]: (each["future"], each["expiry"])
            for each in listed.values()
            if each["future"]
        }
        assert set(kinds.values()) == {(True, 1_924_588_800_000)}
        assert listed[symbol]["swap"]
