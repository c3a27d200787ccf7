"""Clients that nobody here has written read the simulated OKX: what they understand of it must be
what its ledger has. They are no part of the locked packages: `pip install ccxt python-okx`.
"""

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from control.proof.simulator import SimulatorProcess
from engine.messages.settings import VenueSettings
from shards.simulator.core.ledger import LedgerRows, Rows, read_ledger
from tests.waiting import until

ccxt = pytest.importorskip("ccxt.pro")
public_api = pytest.importorskip("okx.PublicData")
sockets = pytest.importorskip("okx.websocket.WsPublicAsync")
websockets = pytest.importorskip("websockets")

pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("default")]  # theirs are not ours

SYMBOLS: Final = {
    "BTC-USDT-SWAP": "BTC/USDT:USDT",
    "XRP-USD_UM_XPERP-310404": "XRP/USD:USD-310404",
}
"""By the venue's name, ccxt's."""
BTC: Final = "BTC-USDT-SWAP"
COMPARED_LEVELS: Final = 50


@pytest.fixture(name="simulator")
def simulator_with_a_ledger(tmp_path: Path) -> Iterator[SimulatorProcess]:
    simulator = SimulatorProcess(
        ["--port", "0", "--venues", "okx", "--symbols", "4", "--rate", "200",
         "--liquidations-per-minute", "600", "--ledger", str(tmp_path / "ledger")]
    )  # fmt: skip
    yield simulator
    simulator.stop()


def venue_of(simulator: SimulatorProcess) -> VenueSettings:
    return simulator.venues()["okx"]


def client_of(venue: VenueSettings) -> Any:
    types = {"fetchMarkets": {"types": ["spot", "swap", "future"]}}
    client = ccxt.okx({"options": types})
    client.urls["api"] |= {"rest": venue.rest_url, "ws": f"{venue.ws_url}/ws/v5"}
    return client


class Heard:
    """What ccxt made of what it was sent, by the venue's name of the symbol."""

    def __init__(self, venue: VenueSettings) -> None:
        self.client = client_of(venue)
        # One client has one book a symbol, which `bbo-tbt` cuts down to its best levels.
        self.quoting = client_of(venue)
        self.trades: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.books: dict[str, list[Any]] = defaultdict(list)
        self.quotes: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        self.marks: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.rates: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.liquidations: list[dict[str, Any]] = []

    async def _watch(
        self, ask: Callable[[], Coroutine[Any, Any, Any]], take: Callable[[Any], None]
    ) -> None:
        while True:
            take(await ask())

    def _take_book(self, symbol: str, book: Any) -> None:
        assert book["bids"][0][0] < book["asks"][0][0], "crossed"
        top = [[level[:2] for level in book[side][:COMPARED_LEVELS]] for side in ("bids", "asks")]
        self.books[symbol].append((book["nonce"], *top))

    def _take_quote(self, symbol: str, book: Any) -> None:
        (bid, bid_qty, *_), (ask, ask_qty, *_) = book["bids"][0], book["asks"][0]
        self.quotes[symbol].append((book["timestamp"], bid, bid_qty, ask, ask_qty))

    def watches(self) -> Iterator[Coroutine[Any, Any, None]]:
        """One for each kind and symbol."""
        client = self.client
        quotes = partial(self.quoting.watch_order_book, limit=1)  # channel `bbo-tbt`
        for symbol, name in SYMBOLS.items():
            kinds = (
                (client.watch_trades, name, self.trades[symbol].extend),
                (client.watch_order_book, name, partial(self._take_book, symbol)),
                (client.watch_mark_price, name, self.marks[symbol].append),
                (client.watch_funding_rate, name, self.rates[symbol].append),
                (quotes, name, partial(self._take_quote, symbol)),
            )
            for ask, of, take in kinds:
                yield self._watch(partial(ask, of), take)
        ask = partial(client.watch_liquidations_for_symbols, [SYMBOLS[BTC]])
        yield self._watch(ask, self.liquidations.extend)

    def has_enough(self) -> bool:
        """Of every kind."""
        wanted = ((self.trades, 100), (self.books, 30), (self.quotes, 30), (self.marks, 4),
                  (self.rates, 4))  # fmt: skip
        return len(self.liquidations) > 2 and all(
            len(found[symbol]) > count for found, count in wanted for symbol in SYMBOLS
        )


async def listen(simulator: SimulatorProcess) -> Heard:
    heard = Heard(venue_of(simulator))
    await asyncio.gather(heard.client.load_markets(), heard.quoting.load_markets())
    tasks = [asyncio.create_task(each) for each in heard.watches()]

    def look() -> None:
        for task in tasks:
            if task.done():
                task.result()

    try:
        await until(heard.has_enough, "something of every kind", doing=look)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(heard.client.close(), heard.quoting.close())
    return heard


def ledger_of(simulator: SimulatorProcess, tmp_path: Path) -> LedgerRows:
    simulator.pause(30.0)
    return read_ledger(tmp_path / "ledger")


def part(ledger: LedgerRows, kind: str, symbol: str) -> Rows:
    rows = ledger.of(kind)
    assert rows is not None
    found: Rows = rows[rows["symbol"] == ledger.symbols.index(("okx", symbol))]
    return found


def number(row: Any, name: str, decimals: str) -> float:
    return float(Decimal(int(row[f"{name}_mantissa"])).scaleb(-int(row[f"{decimals}_decimals"])))


def test_ccxt_understands_what_the_ledger_has(simulator: SimulatorProcess, tmp_path: Path) -> None:
    heard = asyncio.run(listen(simulator))
    ledger = ledger_of(simulator, tmp_path)
    for symbol in SYMBOLS:
        compare_trades(heard.trades[symbol], part(ledger, "trade", symbol))
        compare_books(heard.books[symbol], part(ledger, "book", symbol))
        compare_quotes(heard.quotes[symbol], part(ledger, "quote", symbol))
        compare_funding(heard.marks[symbol], heard.rates[symbol], part(ledger, "funding", symbol))
    compare_liquidations(heard.liquidations, part(ledger, "liquidation", BTC))


def compare_trades(heard: Sequence[dict[str, Any]], rows: Rows) -> None:
    """All from the first to the last, and no other."""
    said = {
        row["trade_id"].item(): (
            "buy" if row["side"] == ord("B") else "sell",
            number(row, "price", "price"), number(row, "qty", "qty"),
            row["ts_event"].item() // 1_000_000,
        )
        for row in rows
    }  # fmt: skip
    have = {
        int(each["id"]): (each["side"], each["price"], each["amount"], each["timestamp"])
        for each in heard
    }
    first, last = min(have), max(have)
    assert have == {key: value for key, value in said.items() if first <= key <= last}
    counts = [int(each["info"]["count"]) for each in sorted(heard, key=_id)]
    assert max(counts) > 1
    assert [after - before for before, after in itertools.pairwise(sorted(have))] == counts[1:]


def _id(trade: dict[str, Any]) -> int:
    return int(trade["id"])


def compare_books(heard: Sequence[Any], rows: Rows) -> None:
    """Each as of its id, made anew of what was sent up to it."""
    books: dict[int, list[list[list[float]]]] = {}
    sides: dict[int, dict[float, float]] = {ord("b"): {}, ord("a"): {}}
    # A snapshot has the id of the change before it, and everything that is in the book.
    order = np.argsort(rows["seq"], kind="stable")
    for row in rows[order]:
        if row["side"] in sides:
            price, qty = number(row, "price", "price"), number(row, "qty", "qty")
            sides[row["side"]][price] = qty
        bids, asks = (
            sorted(([p, q] for p, q in sides[ord(side)].items() if q), reverse=side == "b")
            for side in "ba"
        )
        books[row["seq"].item()] = [bids[:COMPARED_LEVELS], asks[:COMPARED_LEVELS]]
    for nonce, *tops in heard:
        assert tops == books[nonce]


def compare_quotes(heard: Sequence[tuple[float, ...]], rows: Rows) -> None:
    said = {
        (row["ts_event"].item() // 1_000_000, number(row, "bid", "price"),
         number(row, "bid_qty", "qty"), number(row, "ask", "price"), number(row, "ask_qty", "qty"))
        for row in rows
    }  # fmt: skip
    assert set(heard) <= said


def compare_funding(
    marks: Sequence[dict[str, Any]], rates: Sequence[dict[str, Any]], rows: Rows
) -> None:
    prices = {row["ts_event"].item() // 1_000_000: number(row, "mark", "price") for row in rows}
    assert {each["timestamp"]: each["markPrice"] for each in marks}.items() <= prices.items()
    paid = {(number(row, "rate", "rate"), row["next_ts"].item() // 1_000_000) for row in rows}
    told = {(each["fundingRate"], each["fundingTimestamp"]) for each in rates[:-1]}
    assert told <= paid
    assert {each["interval"] for each in rates} == {"8h"}


def compare_liquidations(heard: Sequence[dict[str, Any]], rows: Rows) -> None:
    said = {
        (row["ts_event"].item() // 1_000_000, "sell" if row["side"] == ord("S") else "buy",
         number(row, "price", "price"), number(row, "qty", "qty"))
        for row in rows
    }  # fmt: skip
    assert {
        (each["timestamp"], each["side"], each["price"], each["contracts"]) for each in heard
    } <= said


def test_ccxt_reads_the_listing(simulator: SimulatorProcess) -> None:
    async def load() -> dict[str, Any]:
        heard = Heard(venue_of(simulator))
        try:
            markets: dict[str, Any] = await heard.client.load_markets()
            interest = await heard.client.fetch_open_interest(SYMBOLS[BTC])
            rate = await heard.client.fetch_funding_rate(SYMBOLS[BTC])
        finally:
            await heard.client.close()
        assert interest["openInterestAmount"] > 0
        assert rate["interval"] == "8h"
        return markets

    markets = asyncio.run(load())
    swap, dated = (markets[name] for name in SYMBOLS.values())
    assert (swap["id"], swap["swap"], swap["linear"], swap["contractSize"]) == (
        BTC, True, True, 0.01,
    )  # fmt: skip
    assert (swap["precision"]["price"], swap["active"]) == (0.1, True)
    assert (dated["future"], dated["settle"], dated["expiry"]) == (True, "USD", 1_933_056_000_000)


def test_the_venues_own_client_hears_open_interest_and_the_index(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    messages = asyncio.run(overhear(venue_of(simulator)))
    said: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in messages:
        if "data" in message:
            said[message["arg"]["channel"]] += message["data"]
    acks = [message["arg"] for message in messages if message.get("event") == "subscribe"]
    assert {arg["channel"] for arg in acks} == {"open-interest", "index-tickers"}
    ledger = ledger_of(simulator, tmp_path)
    interest = {
        row["ts_event"].item() // 1_000_000: number(row, "qty", "qty")
        for row in part(ledger, "open_interest", BTC)
    }
    assert {int(each["ts"]): float(each["oi"]) for each in said["open-interest"]}.items() <= (
        interest.items()
    )
    assert {each["instId"] for each in said["index-tickers"]} == {"BTC-USDT"}


async def overhear(venue: VenueSettings) -> list[dict[str, Any]]:
    """What comes on two channels, and that a ping is answered."""
    client = sockets.WsPublicAsync(f"{venue.ws_url}/ws/v5/public")
    client.websocket = await websockets.connect(client.url)  # its own way there is TLS alone
    texts: list[str] = []
    args = [
        {"channel": "open-interest", "instId": BTC},
        {"channel": "index-tickers", "instId": "BTC-USDT"},
    ]
    await client.subscribe(args, callback=texts.append)
    consuming = asyncio.create_task(client.consume())
    await client.websocket.send("ping")
    await until(lambda: len(texts) > 12 and "pong" in texts, "some values and a pong")
    await client.websocket.close()
    with suppress(Exception):
        await consuming
    return [json.loads(text) for text in texts if text != "pong"]


def test_the_venues_own_client_reads_the_listing(simulator: SimulatorProcess) -> None:
    venue = venue_of(simulator)
    with public_api.PublicAPI(flag="0", domain=venue.rest_url) as api:
        answer = api.get_instruments("SWAP")
        (interest,) = api.get_open_interest("SWAP", instId=BTC)["data"]
    assert answer["code"] == "0"
    assert BTC in {row["instId"] for row in answer["data"]}
    assert float(interest["oi"]) > 0
