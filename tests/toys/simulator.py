"""The simulated toy. Of the venue it knows the names alone: it is the judge of its decoder."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from shards.simulator.core.contracts import Contract, Terms
from shards.simulator.core.encoder import (
    Answer,
    AskedFor,
    BookMessage,
    Encoder,
    OwnRow,
    Query,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import (
    Integers,
    Part,
    Trade,
    Trades,
    compact,
    decimal_text,
    signed_text,
)
from shards.simulator.core.ledger import row_of
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Levels, Quote, SymbolState
from shards.simulator.core.venue import SimVenue, now_ms
from tests.toys.kind import SETTLEMENT
from tests.toys.venue import CLOSED, NAME

_PAGE_ROWS: Final = 2
_ALL_LEVELS: Final = 1 << 20
_KINDS: Final = {"ticker": "trade", "book": "book", "settled": SETTLEMENT.name}


class ToyRows:
    """Writes the trades of one symbol on one grid."""

    close, rows_per_frame = b"]}", 10

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        self.head = f'{{"type":"trades.{state.grid.symbol}","rows":['.encode()
        self._grid, self._sizes, self._price_text = state.grid, state.market.sizes, price_text

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        qty = decimal_text(int(self._sizes[trade.size]), self._grid.qty_decimals)
        return (
            f'{{"id":{trade.id},"side":"{"buy" if trade.buy else "sell"}","time":{trade.ts_ms},'
            f'"price":"{self._price_text(trade.tick)}","qty":"{qty}"}}'
        )

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        """One by one is fast enough."""
        return None


class Toy(Encoder):
    """The venue's protocol."""

    name = NAME
    terms = Terms(
        8, 10_000, 375_000, 3_600_000, None,
        says_next=True, says_interval=False, with_prices=False, with_interest=True,
    )  # fmt: skip
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("price",), "book": ("bids",), "quote": ("bid",), "funding": ("rate", "open"),
    }  # fmt: skip
    numbered_books = True
    sockets: Sequence[SocketPath] = (SocketPath("ws", "stranger"),)
    own_kinds: Mapping[str, "np.dtype[np.void]"] = {
        SETTLEMENT.name: row_of(
            price_mantissa="<i8", price_decimals="u1", volume_mantissa="<i8", qty_decimals="u1",
            contract="<i8",
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self.rest = {
            "instruments": ServedCall(_list_page, lambda _: 5),
            "contract": ServedCall(_serve_contract, lambda _: 1),
        }

    def grids(self, count: int) -> Sequence[Grid]:
        return [Grid.around(f"T{n}-USD", 100.0 + n, (2, 1, 3), n) for n in range(count)]

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        first = 1 + index * 1_000_000_000 + serial
        return np.arange(first, first + count)

    def price_text(self, grid: Grid, tick: int) -> str:
        return decimal_text(tick * grid.tick, grid.price_decimals)

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> ToyRows:
        return ToyRows(state, price_text)

    def topic(self, kind: str, symbol: str) -> str | None:
        return f"ticker.{symbol}" if kind in ("trade", "quote") else None

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{stream}.{symbol}"

    def wants(self, name: str, group: str) -> AskedFor | None:
        word, _, symbol = name.partition(".")
        kind = _KINDS.get(word)
        return AskedFor(symbol, kind, "book" if kind == "book" else "") if kind else None

    def hear(self, venue: SimVenue, session: Session, text: str | bytes) -> None:
        request = json.loads(text)
        if "login" in request:
            session.group = "known"
            session.send_text(b'{"type":"welcome"}')
            return
        topics, number = request["topics"], request["id"]
        is_ending = request["op"] == "unsubscribe"
        refused = [] if is_ending else [t for t in topics if not _may_hear(venue, session, t)]
        if refused:
            text = f"not permitted: {', '.join(refused)}"
            said = {"type": "refused", "id": number, "topics": refused, "text": text}
            session.send_text(compact(said))
            return
        session.send_text(compact({"type": "done", "id": number}))
        if is_ending:
            venue.unsubscribe(session, topics)
        else:
            self._subscribe(venue, session, topics)

    def _subscribe(self, venue: SimVenue, session: Session, topics: Sequence[str]) -> None:
        for topic in topics:
            word, _, symbol = topic.partition(".")
            state = venue.state(symbol)
            assert state is not None
            if word == "book":
                sides = state.top(_ALL_LEVELS)
                event = BookMessage("book", now_ms(), 0, state.last_update, 0, *sides)
                if session.send_text(_write_book(state, event, whole=True)):
                    venue.record_book(state, event, whole=True)
        venue.subscribe(session, topics)

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        return _write_book(state, event, whole=False)

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bid, ask = (_level_texts(state, [side] if side else [(0, 0)])[0] for side in quote)
        said = {"type": "quote", "symbol": state.grid.symbol, "seq": state.last_update}
        return compact({**said, "time": now_ms, "bid": bid, "ask": ask})

    def own_rows(self, contract: Contract) -> Iterable[OwnRow]:
        """A settlement every second: a toy's day is short."""
        grid, number = contract.instrument, contract.ticks
        payload = compact(
            {
                "type": "settlement", "symbol": grid.symbol, "time": contract.ts_ms,
                "price": decimal_text(contract.settle, contract.mark_decimals),
                "volume": decimal_text(contract.open_interest, grid.qty_decimals),
                "contract": number,
            }
        )  # fmt: skip
        row = (
            contract.venue, contract.number, contract.ts_ms * 1_000_000, contract.settle,
            contract.mark_decimals, contract.open_interest, grid.qty_decimals, number,
        )  # fmt: skip
        yield OwnRow(SETTLEMENT.name, f"settled.{grid.symbol}", payload, row)


def _may_hear(venue: SimVenue, session: Session, topic: str) -> bool:
    symbol = topic.partition(".")[2]
    is_known = session.group == "known" and venue.index_of(symbol) is not None
    return is_known and symbol != CLOSED


def _write_book(state: SymbolState, event: BookMessage, *, whole: bool) -> bytes:
    form = {"form": "snapshot"} if whole else {"form": "update", "prev": event.previous}
    said = {"type": f"book.{state.grid.symbol}", **form, "seq": event.last, "time": event.ts_ms}
    sides = {"bids": _level_texts(state, event.bids), "asks": _level_texts(state, event.asks)}
    return compact({**said, **sides})


def _level_texts(state: SymbolState, levels: Levels) -> list[list[str]]:
    decimals = state.grid.qty_decimals
    return [[state.price_text(tick), decimal_text(qty, decimals)] for tick, qty in levels]


def _serve_contract(venue: SimVenue, query: Query) -> Answer:
    contract = venue.contract(query.get("symbol"))
    if contract is None:
        return Answer(compact({"text": "unknown symbol"}), 400)
    said: dict[str, object] = {
        "symbol": contract.instrument.symbol,
        "rate": signed_text(contract.rate, contract.terms.rate_decimals),
        "open": decimal_text(contract.open_interest, contract.instrument.qty_decimals),
        "time": contract.ts_ms,
        "next": contract.next_funding_ms,
    }
    return Answer(compact(venue.serve_contract("funding", contract, said, contract.ts_ms)))


def _list_page(venue: SimVenue, query: Query) -> Answer:
    number = int(query.get("page", "0"))
    end = _PAGE_ROWS * (number + 1)
    rows = [
        {"symbol": grid.symbol, "price_step": grid.tick_text, "qty_step": grid.step_text}
        for grid in venue.grids[end - _PAGE_ROWS : end]
    ]
    return Answer(compact({"rows": rows, "next": number + 1 if end < len(venue.grids) else None}))
