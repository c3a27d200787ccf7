"""A venue from outside plugs in as one encoder: pages, a login, a refusal, two kinds on a topic."""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shards.simulator.core.contracts import Terms
from shards.simulator.core.encoder import (
    Answer,
    AskedFor,
    BookMessage,
    Encoder,
    Query,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import Integers, Part, Trade, Trades, compact, decimal_text
from shards.simulator.core.ledger import read_ledger
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.venue import SimVenue
from shards.simulator.settings import SimulatorSettings
from tests.shards.simulator.conftest import receive

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated


class ToyRows:
    """Trades as lists of id, price in ticks and lots."""

    close, rows_per_frame = b"]}", 10

    def __init__(self, state: SymbolState) -> None:
        self.head = f'{{"topic":"ticker.{state.grid.symbol}","trades":['.encode()
        self._sizes = state.market.sizes

    def row(self, trade: Trade) -> str:
        return f"[{trade.id},{trade.tick},{self._sizes[trade.size]}]"

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        return None


class Toy(Encoder):
    """A venue that wants a login, serves its list in pages and pushes snapshots."""

    name = "toy"
    terms = Terms(8, 10_000, 375_000, 3_600_000, None)
    book_clocks: Mapping[str, float] = {"book": 0.05}
    sockets: Sequence[SocketPath] = (SocketPath("ws", "all"),)

    def __init__(self) -> None:
        self.rest = {"instruments": ServedCall(self._listing, lambda _: 5)}

    def grids(self, count: int) -> Sequence[Grid]:
        return [Grid.around(f"T{n}-USD", 100.0 + n, (2, 1, 3), n) for n in range(count)]

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        return np.arange(serial, serial + count)

    def price_text(self, grid: Grid, tick: int) -> str:
        return decimal_text(tick, grid.price_decimals)

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> ToyRows:
        return ToyRows(state)

    def topic(self, kind: str, symbol: str) -> str | None:
        return f"ticker.{symbol}" if kind in ("trade", "quote") else None

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{stream}.{symbol}"

    def top(self, stream: str) -> int:
        return 3

    def wants(self, name: str, group: str) -> AskedFor | None:
        kind, _, symbol = name.partition(".")
        return AskedFor(symbol, "book" if kind == "book" else "trade", kind)

    def hear(self, venue: SimVenue, session: Session, text: str | bytes) -> None:
        topics = json.loads(text).get("topics")
        refused = [each for each in topics or () if venue.index_of(each.partition(".")[2]) is None]
        if topics is None:
            session.group = "known"
        refused = topics if topics and session.group != "known" else refused
        session.send_text(compact({"refused": refused} if refused else {"ok": True}))
        venue.subscribe(session, [] if refused else topics or [])

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        return compact(
            {"topic": f"book.{state.grid.symbol}", "bids": event.bids, "asks": event.asks}
        )

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        return compact({"topic": f"ticker.{state.grid.symbol}", "ms": now_ms, "quote": quote})

    def _listing(self, venue: SimVenue, query: Query) -> Answer:
        page = int(query.get("page", "0"))
        symbols = [grid.symbol for grid in venue.grids[2 * page : 2 * page + 2]]
        return Answer(compact({"symbols": symbols, "more": 2 * page + 2 < len(venue.grids)}))


def test_a_toy_venue_is_served_and_recorded(simulated: "Simulated", tmp_path: Path) -> None:
    messages: list[Any] = []

    async def scenario(client: "Client") -> None:
        pages = [await client.get(f"/toy/instruments?page={page}") for page in (0, 1)]
        assert [page["symbols"] for page in pages] == [["T0-USD", "T1-USD"], ["T2-USD"]]
        assert [page["more"] for page in pages] == [True, False]
        status = client.simulator.status()["venues"]["toy"]
        assert status["rest"]["weight_used"] == 10
        socket = await client.socket("/toy/ws")
        for request, answer in (
            ({"topics": ["ticker.T0-USD"]}, {"refused": ["ticker.T0-USD"]}),
            ({"login": "me"}, {"ok": True}),
            ({"topics": ["ticker.T9-USD", "book.T0-USD"]}, {"refused": ["ticker.T9-USD"]}),
            ({"topics": ["ticker.T0-USD", "book.T0-USD"]}, {"ok": True}),
        ):
            await socket.send_json(request)
            assert await receive(socket) == answer
        while len(messages) < 200:
            messages.append(await receive(socket))
        sent = (await client.post("/simulator/pause"))["sent"]
        while sent["trade"] > len(trades_of(messages)) or sent["quote"] > len(quotes_of(messages)):
            messages.append(await receive(socket))

    settings = SimulatorSettings(trades_per_s=1000.0, symbols=3, ledger=tmp_path)
    simulated(settings, scenario, [Toy])
    ledger = read_ledger(tmp_path)
    assert ledger.venues == ("toy",)
    fields = ["trade_id", "price_mantissa", "qty_mantissa"]
    assert [list(row) for row in ledger.trade[fields].tolist()] == trades_of(messages)
    sides = ["bid_mantissa", "bid_qty_mantissa", "ask_mantissa", "ask_qty_mantissa"]
    assert [list(row) for row in ledger.quote[sides].tolist()] == quotes_of(messages)
    books = [each for each in messages if each.get("topic") == "book.T0-USD"]
    assert len(books) > 1
    levels = [level for book in books for side in ("bids", "asks") for level in book[side]]
    recorded = ledger.book[["price_mantissa", "qty_mantissa"]].tolist()
    assert [list(row) for row in recorded][: len(levels)] == levels
    price = Decimal(int(ledger.book["price_mantissa"][0])).scaleb(-2)
    assert 90 < price < 110


def trades_of(messages: list[Any]) -> list[list[int]]:
    return [row for each in messages for row in each.get("trades", ())]


def quotes_of(messages: list[Any]) -> list[list[int]]:
    return [[*each["quote"][0], *each["quote"][1]] for each in messages if "quote" in each]
