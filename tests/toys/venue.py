"""A venue that the product does not have, in one file: what it is, its decoder, its simulator.

Its book is pushed, snapshot first; trades and quotes come on one topic; its listing comes in pages;
nothing is subscribed before a login; one symbol that it lists is not for everybody. It has a kind
of record of its own, settlements (`tests.toys.kind`), on streams of kind `Funding`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec import Raw, Struct

from engine.data.flags import Side
from engine.data.instrument import Instrument
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.book_rows import BookEvent
from shards.feeds.book_rules import BookRule, by_previous
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed_books import PushedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
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
from shards.simulator.core.frames import Integers, Part, Trade, Trades, compact, decimal_text
from shards.simulator.core.ledger import row_of
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Levels, Quote, SymbolState
from shards.simulator.core.venue import SimVenue, now_ms
from shards.venues.kit import (
    CONNECTS,
    REST_WEIGHT,
    Channel,
    Feeds,
    FrameDecoder,
    Limit,
    ListingCalls,
    RestCall,
    Shape,
    SocketGroup,
    Talk,
    Venue,
    decimals_of,
)
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import NS_PER_MS, Id, Millis, Price, PriceOrNone, Quantity, TradeQuantity
from tests.toys.kind import SETTLEMENT, Settlements

NAME: Final = "toy"
CLOSED: Final = "T3-USD"
"""Listed, and not for everybody."""

# 1. The listing


class Row(Struct):
    """An instrument."""

    symbol: str
    price_step: str
    qty_step: str


class Page(Struct):
    """Some of the instruments, and which page has more."""

    rows: list[Raw]
    next: int | None


_rows = RowReader(Row, "symbol")
_decode_page = msgspec.json.Decoder(Page).decode


def _page_call(number: int) -> RestCall:
    return RestCall("GET", f"/instruments?page={number}", weight=5)


def parse_page(body: bytes) -> Listing:
    """What one page lists."""
    return _rows.read(_decode_page(body).rows, _instrument)


def _instrument(row: Row) -> Instrument:
    price, qty = step_size("price_step", row.price_step), step_size("qty_step", row.qty_step)
    base, _, quote = row.symbol.partition("-")
    return Instrument(
        NAME, row.symbol, decimals_of(price), decimals_of(qty), base, quote,
        tick_size=price, lot_size=qty, status="TRADING",
    )  # fmt: skip


def next_page(body: bytes) -> RestCall | None:
    """The call for the page after this one."""
    number = _decode_page(body).next
    return None if number is None else _page_call(number)


# 2. Messages


class TradeItem(Struct, gc=False):
    """A trade; each says whose it is."""

    symbol: str
    id: Id
    side: Literal["buy", "sell"]
    time: Millis
    price: Price
    qty: TradeQuantity


class TradeList(Struct, tag_field="type", tag="trades", gc=False):
    """Trades of one symbol."""

    rows: list[TradeItem]


class BestQuote(Struct, tag_field="type", tag="quote", gc=False):
    """Best bid and offer as (price, quantity), as of an update id of the book."""

    symbol: str
    seq: Id
    time: Millis
    bid: tuple[PriceOrNone, Quantity]
    ask: tuple[PriceOrNone, Quantity]


class BookChange(Struct, tag_field="type", tag="book", gc=False):
    """A book, whole or what has changed of it since the update `prev`."""

    symbol: str
    seq: Id
    prev: Id
    time: Millis
    whole: bool
    bids: list[tuple[Price, Quantity]]
    asks: list[tuple[Price, Quantity]]


class Settled(Struct, tag_field="type", tag="settlement", gc=False):
    """A settlement."""

    symbol: str
    time: Millis
    price: Price
    volume: Quantity
    contract: Id


class Welcome(Struct, tag_field="type", tag="welcome", gc=False):
    """The login was taken."""


class Done(Struct, tag_field="type", tag="done", gc=False):
    """A request was taken."""

    id: int


class Refused(Struct, tag_field="type", tag="refused", gc=False):
    """A request was refused as a whole, because of these topics."""

    id: int
    topics: list[str]
    text: str


# 3. The decoder

_Frame = TradeList | BookChange | BestQuote | Settled | Welcome | Done | Refused
_SIDE: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}


def _levels(said: Mapping[str, bytes]) -> list[bytes]:
    return [said.get(side, b"") for side in ("bids", "asks")]


SHAPES: Final = (
    Shape(
        ContiguousTrades, TradeItem, "trades", ("rows",), is_list=True,
        symbol="symbol", seq="id", time="time",
    ),
    Shape(Quotes, BestQuote, "quote", symbol="symbol", seq="seq", time="time"),
    Shape(
        PushedBook, BookChange, "book",
        symbol="symbol", seq="seq", prev_seq="prev", time="time", levels=_levels,
    ),
    Shape(Settlements, Settled, "settlement", symbol="symbol", time="time"),
)  # fmt: skip


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    decode = msgspec.json.Decoder(_Frame, strict=False).decode
    trades, quotes = feeds.of(ContiguousTrades), feeds.of(Quotes)
    books, settlements = feeds.of(PushedBook), feeds.of(Settlements)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        said = decode(payload)
        if type(said) is TradeList:
            _on_trades(said.rows, trades, quotes, ts_recv)
        elif type(said) is BestQuote:
            _on_quote(said, quotes, trades, ts_recv)
        elif type(said) is BookChange:
            _on_book(said, books.get(said.symbol), ts_recv)
        elif type(said) is Settled:
            _on_settled(said, settlements.get(said.symbol), ts_recv)
        elif type(said) is Welcome:
            talk.ready()
        elif type(said) is Done:
            talk.acknowledged(said.id)
        elif type(said) is Refused:
            talk.refused(said.text, said.id, said.topics)

    return on_frame


def _on_trades(
    rows: Sequence[TradeItem],
    trades: Mapping[str, ContiguousTrades],
    quotes: Mapping[str, Quotes],
    ts_recv: int,
) -> None:
    symbols = {row.symbol for row in rows}
    if len(symbols) > 1:
        raise MalformedFrameError("mixed_coins")
    for symbol in symbols:
        if (feed := trades.get(symbol)) is not None:
            for row in rows:
                at = row.time * NS_PER_MS
                feed.on_trade(row.id, _SIDE[row.side], at, ts_recv, row.price, row.qty)
        elif symbol not in quotes:  # the topic brings both, whichever is wanted
            raise UntakenError(symbol, ContiguousTrades, Quotes)


def _on_quote(
    said: BestQuote,
    quotes: Mapping[str, Quotes],
    trades: Mapping[str, ContiguousTrades],
    ts_recv: int,
) -> None:
    if (feed := quotes.get(said.symbol)) is not None:
        feed.on_quote(said.seq, said.time * NS_PER_MS, ts_recv, (*said.bid, *said.ask))
    elif said.symbol not in trades:
        raise UntakenError(said.symbol, Quotes, ContiguousTrades)


def _on_book(said: BookChange, feed: PushedBook | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(said.symbol, PushedBook)
    at = said.time * NS_PER_MS
    event = BookEvent(said.seq, said.prev, at, ts_recv, said.bids, said.asks, said.whole)
    feed.on_event(event)


def _on_settled(said: Settled, feed: Settlements | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(said.symbol, Settlements)
    at = said.time * NS_PER_MS
    feed.on_settlement(at, ts_recv, said.price, said.volume, said.contract)


# 4. to 7. Sockets, channels, limits, examples


def _greet(_: VenueSettings) -> Sequence[bytes]:
    return [b'{"login":"toy"}']


def _topic(word: str) -> Callable[[str, VenueSettings], str]:
    return lambda symbol, _: f"{word}.{symbol}"


def _say(word: str, topics: Sequence[str], number: int) -> list[bytes]:
    return [msgspec.json.encode({"op": word, "id": number, "topics": topics})]


VENUE: Final = Venue(
    name=NAME,
    rest_url="https://toy.example",
    ws_url="wss://toy.example",
    groups={
        "ws": SocketGroup(
            path="/ws",
            streams_per_connection=100,
            topics_per_message=20,
            message_interval_s=0.05,
            idle_timeout_s=60.0,
            lifetime_s=24 * 3600.0,
            refuses_repeats=True,
            greet=_greet,
        )
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel("ws", ContiguousTrades, _topic("ticker"), 300.0),
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            "ws", PushedBook, _topic("book"), 60.0, book=BookRule(by_previous)
        ),
        (StreamKind.TICKER, Transport.WS): Channel("ws", Quotes, _topic("ticker"), 300.0),
        (StreamKind.FUNDING, Transport.WS): Channel("ws", Settlements, _topic("settled"), 300.0),
    },
    limits=(Limit(REST_WEIGHT, 600, 60.0), Limit(CONNECTS, 60, 60.0)),
    subscribe=lambda topics, number: _say("subscribe", topics, number),
    unsubscribe=lambda topics, number: _say("unsubscribe", topics, number),
    open_decoder=open_decoder,
    tag="type",
    shapes=SHAPES,
    listing=ListingCalls(_page_call(0), parse_page, next_page),
    examples=("T0-USD", "T1-USD"),
)


# The simulator: nothing below uses what is above, but names

_PAGE_ROWS: Final = 2
_ALL_LEVELS: Final = 1 << 20
_KINDS: Final = {"ticker": "trade", "book": "book", "settled": SETTLEMENT.name}


class ToyRows:
    """Writes the trades of one symbol on one grid."""

    head, close, rows_per_frame = b'{"type":"trades","rows":[', b"]}", 10

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        self._grid, self._sizes, self._price_text = state.grid, state.market.sizes, price_text

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        qty = decimal_text(int(self._sizes[trade.size]), self._grid.qty_decimals)
        return (
            f'{{"symbol":"{self._grid.symbol}","id":{trade.id},'
            f'"side":"{"buy" if trade.buy else "sell"}","time":{trade.ts_ms},'
            f'"price":"{self._price_text(trade.tick)}","qty":"{qty}"}}'
        )

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        """One by one is fast enough."""
        return None


class Toy(Encoder):
    """The venue's protocol."""

    name = NAME
    terms = Terms(8, 10_000, 375_000, 3_600_000, None)
    numbered_books = True
    sockets: Sequence[SocketPath] = (SocketPath("ws", "stranger"),)
    own_kinds: Mapping[str, "np.dtype[np.void]"] = {
        SETTLEMENT.name: row_of(
            price_mantissa="<i8", price_decimals="u1", volume_mantissa="<i8", qty_decimals="u1",
            contract="<i8",
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self.rest = {"instruments": ServedCall(_list_page, lambda _: 5)}

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
    said = {"type": "book", "symbol": state.grid.symbol, "seq": event.last, "prev": event.previous}
    sides = {"bids": _level_texts(state, event.bids), "asks": _level_texts(state, event.asks)}
    return compact({**said, "time": event.ts_ms, "whole": whole, **sides})


def _level_texts(state: SymbolState, levels: Levels) -> list[list[str]]:
    decimals = state.grid.qty_decimals
    return [[state.price_text(tick), decimal_text(qty, decimals)] for tick, qty in levels]


def _list_page(venue: SimVenue, query: Query) -> Answer:
    number = int(query.get("page", "0"))
    end = _PAGE_ROWS * (number + 1)
    rows = [
        {"symbol": grid.symbol, "price_step": grid.tick_text, "qty_step": grid.step_text}
        for grid in venue.grids[end - _PAGE_ROWS : end]
    ]
    return Answer(compact({"rows": rows, "next": number + 1 if end < len(venue.grids) else None}))
