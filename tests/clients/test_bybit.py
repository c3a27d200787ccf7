"""Clients that others wrote read the simulated Bybit: what they make of it is what the ledger has.

They are no part of this project: `pip install ccxt pybit`. Without one its tests are skipped.
"""

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop

from shards.simulator.core.frames import decimal_text
from shards.simulator.core.ledger import LedgerRows, Rows, read_ledger
from shards.simulator.core.market import Grid
from shards.simulator.core.venue import SimVenue
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.bybit import BybitInverse, BybitLinear, BybitSpot
from shards.simulator.venues.bybit.trades import uuid_text
from tests.waiting import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ccxt = pytest.importorskip("ccxt.pro")

pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("default")]

DEPTH = 1000
ENOUGH = 300
"""Trades, before anything is compared."""


class Market(NamedTuple):
    """A category, and what the first symbol that it lists is called."""

    category: str
    symbol: str
    unified: str
    """As ccxt says it."""
    facts: Mapping[str, object]
    """What ccxt should say of it."""


MARKETS = [
    Market(
        "linear", "BTCUSDT", "BTC/USDT:USDT",
        {"base": "BTC", "quote": "USDT", "settle": "USDT", "type": "swap", "linear": True,
         "contractSize": 1.0},
    ),
    Market(
        "inverse", "BTCUSD", "BTC/USD:BTC",
        {"base": "BTC", "quote": "USD", "settle": "BTC", "type": "swap", "inverse": True,
         "contractSize": 1.0},
    ),
    Market("spot", "BTCUSDT", "BTC/USDT", {"base": "BTC", "quote": "USDT", "type": "spot"}),
]  # fmt: skip
CONTRACTS = [each for each in MARKETS if each.category != "spot"]


class Stage:
    """A simulator with its ledger."""

    def __init__(self, simulator: Simulator, ledger: Path, market: Market) -> None:
        self.simulator, self.market = simulator, market
        self._ledger = ledger
        self.address = f"127.0.0.1:{simulator.port}/bybit_{market.category}"

    @property
    def venue(self) -> SimVenue:
        return self.simulator.venues[f"bybit_{self.market.category}"]

    @property
    def grid(self) -> Grid:
        return self.venue.grids[0]

    def sent(self, kind: str) -> int:
        """Rows of the first symbol that were pushed."""
        return int(self.venue.hub.counts[kind][0])

    async def paused(self) -> LedgerRows:
        """The ledger, when nothing happens any more."""
        assert await self.simulator.pause()
        return read_ledger(self._ledger)

    def book(self) -> dict[str, list[list[float]]]:
        """The first symbol's as of its last event."""
        grid, sides = self.grid, self.venue.state_at(0).chain("orderbook.1000").whole()
        return {
            name: [
                [number(tick * grid.tick, grid.price_decimals), number(qty, grid.qty_decimals)]
                for tick, qty in side
            ]
            for name, side in zip(("bids", "asks"), sides, strict=True)
        }

    def rows(self, ledger: LedgerRows, kind: str) -> Rows:
        """Rows of the first symbol."""
        rows = ledger.of(kind)
        assert rows is not None
        number = ledger.symbols.index((self.venue.hub.name, self.market.symbol))
        found: Rows = rows[rows["symbol"] == number]
        return found


@asynccontextmanager
async def staged(ledger: Path, market: Market) -> AsyncIterator[Stage]:
    settings = SimulatorSettings(
        trades_per_s=200.0, symbols=2, ledger=ledger, liquidations_per_minute=1200.0
    )
    simulator = Simulator(settings, [BybitLinear, BybitInverse, BybitSpot])
    await simulator.start()
    try:
        yield Stage(simulator, ledger, market)
    finally:
        await simulator.close()


@asynccontextmanager
async def exchange_of(stage: Stage) -> AsyncIterator[Any]:
    """ccxt's client, with the simulator's addresses."""
    category = stage.market.category
    exchange = ccxt.bybit(
        {
            "enableRateLimit": False,
            "newUpdates": True,
            "options": {"fetchMarkets": {"types": [category]}, "tradesLimit": 100_000},
        }
    )
    exchange.urls["api"]["public"] = f"http://{stage.address}"
    sockets = exchange.urls["api"]["ws"]["public"]
    sockets[category] = f"ws://{stage.address}/v5/public/{category}"
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


@asynccontextmanager
async def watching(watch: Callable[[], Awaitable[Any]], take: Callable[[Any], None]) -> Any:
    """Give all that `watch` brings to `take`, until the block is over; its errors are raised."""

    async def watch_on() -> None:
        while True:
            take(await watch())

    task = asyncio.create_task(watch_on())
    try:
        yield task
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


def run(tmp_path: Path, market: Market, scenario: Callable[[Stage, Any], Awaitable[None]]) -> None:
    """A scenario with ccxt."""

    async def main() -> None:
        async with staged(tmp_path, market) as stage, exchange_of(stage) as exchange:
            await scenario(stage, exchange)

    uvloop.run(main())


def number(mantissa: object, decimals: object) -> float:
    return float(Decimal(int(str(mantissa))).scaleb(-int(str(decimals))))


def in_markets(markets: list[Market]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("market", markets, ids=lambda each: each.category)


@in_markets(MARKETS)
def test_ccxt_reads_the_instruments(tmp_path: Path, market: Market) -> None:
    async def scenario(stage: Stage, exchange: Any) -> None:
        grid, found = stage.grid, exchange.market(market.unified)
        assert found["id"] == grid.symbol
        assert market.facts.items() <= found.items()
        assert found["precision"] == {
            "amount": float(grid.step_text), "price": float(grid.tick_text),
        }  # fmt: skip
        assert found["active"]
        assert len(exchange.markets) == len(stage.venue.grids)

    run(tmp_path, market, scenario)


@in_markets(MARKETS)
def test_ccxt_reads_every_trade(tmp_path: Path, market: Market) -> None:
    async def scenario(stage: Stage, exchange: Any) -> None:
        trades: list[Any] = []
        async with watching(lambda: exchange.watch_trades(market.unified), trades.extend):
            await until(lambda: stage.sent("trade") >= ENOUGH, "trades")
            rows = stage.rows(await stage.paused(), "trade")
            await until(lambda: len(trades) >= len(rows), "the last trade")
        want = [
            (
                uuid_text(row["trade_id"].item()) if row["trade_id"] < 0 else str(row["trade_id"]),
                row["ts_event"] // 1_000_000,
                "buy" if row["side"] == ord("B") else "sell",
                number(row["price_mantissa"], row["price_decimals"]),
                number(row["qty_mantissa"], row["qty_decimals"]),
            )
            for row in rows
        ]
        names = ("id", "timestamp", "side", "price", "amount")
        assert [tuple(each[name] for name in names) for each in trades] == want
        asked = await exchange.fetch_trades(market.unified, limit=50)
        # It puts those of one millisecond in an order of its own.
        assert {tuple(each[name] for name in names) for each in asked} == set(want[-50:])

    run(tmp_path, market, scenario)


@in_markets(MARKETS)
def test_ccxt_keeps_the_book(tmp_path: Path, market: Market) -> None:
    async def scenario(stage: Stage, exchange: Any) -> None:
        books: list[dict[str, Any]] = []

        def take(found: Any) -> None:
            books.append({side: [[*level] for level in found[side]] for side in ("bids", "asks")})

        async with watching(lambda: exchange.watch_order_book(market.unified, DEPTH), take):
            await until(lambda: len(books) >= 30, "books")
            await stage.paused()
            want = stage.book()
            await until(lambda: books[-1] == want, "the last event")
        assert all(each["bids"][0][0] < each["asks"][0][0] for each in books), "never crossed"
        assert min(len(side) for side in want.values()) > 200
        asked = await exchange.fetch_order_book(market.unified, limit=DEPTH)
        assert {side: asked[side] for side in want} == want

    run(tmp_path, market, scenario)


@in_markets(MARKETS)
def test_ccxt_reads_quotes(tmp_path: Path, market: Market) -> None:
    async def scenario(stage: Stage, exchange: Any) -> None:
        quotes: list[Any] = []

        def take(found: Any) -> None:
            quotes.append(found[market.unified])

        async with watching(lambda: exchange.watch_bids_asks([market.unified]), take):
            await until(lambda: len(quotes) >= 30, "quotes")
        rows = stage.rows(await stage.paused(), "quote")
        sent = {
            (
                number(row["bid_mantissa"], row["price_decimals"]),
                number(row["bid_qty_mantissa"], row["qty_decimals"]),
                number(row["ask_mantissa"], row["price_decimals"]),
                number(row["ask_qty_mantissa"], row["qty_decimals"]),
            )
            for row in rows
        }
        names = ("bid", "bidVolume", "ask", "askVolume")
        assert {tuple(each[name] for name in names) for each in quotes} <= sent
        assert all(each["bid"] < each["ask"] for each in quotes)

    run(tmp_path, market, scenario)


@in_markets(CONTRACTS)
def test_ccxt_reads_mark_funding_and_open_interest(tmp_path: Path, market: Market) -> None:
    async def scenario(stage: Stage, exchange: Any) -> None:
        tickers: list[Any] = []
        async with watching(lambda: exchange.watch_ticker(market.unified), tickers.append):
            await until(lambda: len(tickers) >= 4, "tickers")
        asked = await exchange.fetch_funding_rate(market.unified)
        history = await exchange.fetch_funding_rate_history(market.unified, limit=5)
        ledger = await stage.paused()
        funding = {
            row["ts_event"] // 1_000_000: (
                number(row["rate_mantissa"], row["rate_decimals"]),
                number(row["mark_mantissa"], row["price_decimals"]),
                number(row["index_mantissa"], row["price_decimals"]),
                row["next_ts"] // 1_000_000,
            )
            for row in stage.rows(ledger, "funding")
        }
        interest = {
            row["ts_event"] // 1_000_000: number(row["qty_mantissa"], row["qty_decimals"])
            for row in stage.rows(ledger, "open_interest")
        }
        for ticker in tickers:
            said, at = ticker["info"], ticker["timestamp"]
            assert funding[at] == (
                float(said["fundingRate"]), ticker["markPrice"], ticker["indexPrice"],
                int(said["nextFundingTime"]),
            )  # fmt: skip
            assert float(said["singleOpenInterest"]) == interest[at]
            assert float(said["openInterest"]) == 2 * interest[at]
        names = ("fundingRate", "markPrice", "indexPrice", "fundingTimestamp")
        assert tuple(asked[name] for name in names) in funding.values()
        assert asked["interval"] == "8h"
        contract = stage.venue.contract_at(0)
        paid = [(each.ts_ms, each.rate / 1e8) for each in contract.settlements][-5:]
        assert [(each["timestamp"], each["fundingRate"]) for each in history] == paid

    run(tmp_path, market, scenario)


@in_markets(CONTRACTS)
def test_ccxt_reads_liquidations(tmp_path: Path, market: Market) -> None:
    """It hands on the venue's word for the side, which is that of the position."""

    async def scenario(stage: Stage, exchange: Any) -> None:
        orders: list[Any] = []
        async with watching(lambda: exchange.watch_liquidations(market.unified), orders.extend):
            await until(lambda: len(orders) >= 3, "liquidations")
        rows = stage.rows(await stage.paused(), "liquidation")
        sent = {
            (
                row["ts_event"] // 1_000_000,
                "sell" if row["side"] == ord("B") else "buy",
                number(row["price_mantissa"], row["price_decimals"]),
                number(row["qty_mantissa"], row["qty_decimals"]),
            )
            for row in rows
        }
        heard = {
            # Its own word for the side is the name of the member, cut short.
            (each["timestamp"], each["info"]["S"].lower(), each["price"], each["contracts"])
            for each in orders
        }
        assert heard <= sent

    run(tmp_path, market, scenario)


@contextmanager
def sdk_of(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """The venue's own client: its socket and its calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trading = pytest.importorskip("pybit.unified_trading")
    address = f"ws://{stage.address}/v5/public/{{CHANNEL_TYPE}}"
    monkeypatch.setattr(trading, "PUBLIC_WSS", address)
    socket = trading.WebSocket(testnet=False, channel_type=stage.market.category)
    calls = trading.HTTP(testnet=False)
    calls.endpoint = f"http://{stage.address}"
    try:
        yield socket, calls
    finally:
        socket.exit()


class Collected(NamedTuple):
    """What the venue's own client has handed on."""

    trades: list[dict[str, str]]
    quotes: list[dict[str, Any]]
    books: list[dict[str, Any]]
    """It keeps one, which is the same every time."""
    tickers: list[dict[str, str]]


def collect(
    stage: Stage, patch: pytest.MonkeyPatch, found: Collected, ended: threading.Event
) -> list[str]:
    """Subscribe to all, and give the symbols of the listing, when it is over."""
    symbol, category = stage.market.symbol, stage.market.category
    with sdk_of(stage, patch) as (socket, calls):
        socket.trade_stream(symbol, lambda said: found.trades.extend(said["data"]))
        socket.orderbook_stream(1, symbol, lambda said: found.quotes.append(said["data"]))
        socket.orderbook_stream(DEPTH, symbol, lambda said: found.books.append(said["data"]))
        if category != "spot":
            socket.ticker_stream(symbol, lambda said: found.tickers.append({**said["data"]}))
        listed = calls.get_instruments_info(category=category)
        ended.wait(240)
    return [row["symbol"] for row in listed["result"]["list"]]


@in_markets(MARKETS)
def test_the_venues_own_client_reads_all(
    tmp_path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads speak to a simulator in this one's loop."""

    async def main() -> None:
        found, ended = Collected([], [], [], []), threading.Event()
        async with staged(tmp_path, market) as stage:
            work = asyncio.create_task(asyncio.to_thread(collect, stage, monkeypatch, found, ended))
            try:
                await until(lambda: len(found.trades) >= ENOUGH, "trades")
                await until(lambda: min(len(found.quotes), len(found.books)) >= 20, "books")
                if market in CONTRACTS:
                    await until(lambda: len(found.tickers) >= 3, "tickers")
                rows = stage.rows(await stage.paused(), "trade")
                await until(lambda: len(found.trades) >= len(rows), "the last trade")
                await until(lambda: _sorted_book(found.books[-1]) == stage.book(), "the book")
                if market in CONTRACTS:
                    await until(lambda: says_all(stage, found.tickers), "the last ticker")
            finally:
                ended.set()
            assert await work == [grid.symbol for grid in stage.venue.grids]
            compare_trades(stage.grid, found.trades, rows)

    uvloop.run(main())


def _sorted_book(said: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    bids, asks = ([[float(text) for text in level] for level in said[side]] for side in "ba")
    return {"bids": sorted(bids, reverse=True), "asks": sorted(asks)}


def compare_trades(grid: Grid, found: list[dict[str, str]], rows: Rows) -> None:
    said = [
        (
            Decimal(each["p"]).scaleb(grid.price_decimals),
            Decimal(each["v"]).scaleb(grid.qty_decimals),
            each["S"][0],
        )
        for each in found
    ]
    fields = rows[["price_mantissa", "qty_mantissa", "side"]].tolist()
    assert said == [(price, qty, chr(side)) for price, qty, side in fields]


def says_all(stage: Stage, found: list[dict[str, str]]) -> bool:
    """Whether the last ticker says everything of the contract: deltas leave out what has not
    changed, which the client keeps.
    """
    contract, grid = stage.venue.contract_at(0), stage.grid
    said = found[-1]
    return (
        said["nextFundingTime"] == str(contract.next_funding_ms)
        and said["fundingIntervalHour"] == "8"
        and float(said["markPrice"]) == number(contract.mark, contract.mark_decimals)
        and float(said["fundingRate"]) == number(contract.rate, contract.terms.rate_decimals)
        and said["singleOpenInterest"] == decimal_text(contract.open_interest, grid.qty_decimals)
    )
