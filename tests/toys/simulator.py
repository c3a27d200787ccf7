"""The simulated toy. Of the venue it knows the names alone: it is the judge of its decoder."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from shards.simulator.core.contracts import Contract, Terms
from shards.simulator.core.encoder import (
    Answer,
    Asked,
    AskedFor,
    BookMessage,
    Encoder,
    OwnRow,
    Query,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import Trade, compact, decimal_text, signed_text
from shards.simulator.core.ledger import row_of
from shards.simulator.core.limits import (
    CONNECTS,
    MESSAGES,
    SOCKETS,
    SUBSCRIPTIONS,
    WEIGHT,
    Per,
    Then,
    VenueLimit,
)
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.usual import RowByRow, book_now, read_object, send_whole
from shards.simulator.core.venue import SimVenue
from tests.toys.kind import SETTLEMENT
from tests.toys.venue import CLOSED, NAME

_PAGE_ROWS: Final = 2
_KINDS: Final = {"ticker": "trade", "book": "book", "settled": SETTLEMENT.name}


class ToyRows(RowByRow):
    """Writes the trades of one symbol on one grid."""

    close, rows_per_frame = b"]}", 10

    @property
    def head(self) -> bytes:
        return f'{{"type":"trades.{self.symbol}","rows":['.encode()

    def row(self, trade: Trade) -> str:
        return (
            f'{{"id":{trade.id},"side":"{"buy" if trade.buy else "sell"}","time":{trade.ts_ms},'
            f'"price":"{self.price_text(trade.tick)}","qty":"{self.sizes[trade.size]}"}}'
        )


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
    limits: Sequence[VenueLimit] = (
        VenueLimit(CONNECTS, 300, 60.0),
        VenueLimit(SOCKETS, 100),
        VenueLimit(MESSAGES, 1000, 1.0, Per.SOCKET, Then.HANG_UP),
        VenueLimit(SUBSCRIPTIONS, 10_000),
        VenueLimit(WEIGHT, 1200, 60.0),
    )
    first_trade_id = 1
    trade_id_stride = 1_000_000_000
    trade_rows = ToyRows
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

    def topic(self, kind: str, symbol: str) -> str | None:
        return f"ticker.{symbol}" if kind in ("trade", "quote") else None

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{stream}.{symbol}"

    def wants(self, name: str, group: str) -> AskedFor | None:
        word, _, symbol = name.partition(".")
        kind = _KINDS.get(word)
        return AskedFor(symbol, kind, "book" if kind == "book" else "") if kind else None

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        request = read_object(text)
        if "login" in request:
            session.group = "known"
            session.send_text(b'{"type":"welcome"}')
            return None
        return Asked(request["topics"], request["op"] == "subscribe", request["id"])

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        topics, number = request.topics, request.number
        refused = [t for t in topics if not _may_hear(venue, session, t)] if request.begins else []
        if refused:
            session.send_text(_refusal(number, refused, f"not permitted: {', '.join(refused)}"))
            return ()
        session.send_text(compact({"type": "done", "id": number}))
        return topics

    def over(self, session: Session, limit: VenueLimit, request: Asked | None) -> bytes:
        if request is None:
            return b""
        return _refusal(request.number, request.topics, f"more than {limit.most} {limit.what}")

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        word, _, symbol = topic.partition(".")
        state = venue.state(symbol)
        assert state is not None
        if word == "book":
            send_whole(venue, session, state, book_now(state, "book"))

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        return _write_book(state, event, form="update", prev=event.previous)

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        return _write_book(state, event, form="snapshot")

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bid, ask = state.side_texts(quote)
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


def _refusal(number: object, topics: Sequence[str], why: str) -> bytes:
    return compact({"type": "refused", "id": number, "topics": topics, "text": why})


def _write_book(state: SymbolState, event: BookMessage, **form: object) -> bytes:
    said = {"type": f"book.{state.grid.symbol}", **form, "seq": event.last, "time": event.ts_ms}
    sides = {"bids": state.level_texts(event.bids), "asks": state.level_texts(event.asks)}
    return compact({**said, **sides})


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
