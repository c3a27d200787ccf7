"""A venue that the product does not have: what it is, and its decoder. Its simulator is beside it.

Its book is pushed, snapshot first; trades and quotes come on one topic; the type of a message of
trades or of a book names the symbol, which nothing else in it does; its listing comes in pages;
nothing is subscribed before a login; one symbol that it lists is not for everybody. Funding and
open interest are polled, without prices and without how often funding is paid. It has a kind of
record of its own, settlements (`tests.toys.kind`), on streams of kind `Funding`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from engine.data.flags import Side
from engine.data.instrument import Instrument
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.book_rows import BookEvent
from shards.feeds.contracts import FundingOpenInterest
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import BookRule, by_previous
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.digits import Computed, ComputedRate, decimals_of, decoder
from shards.venues.elements import funding_row, take_one
from shards.venues.kit import (
    CONNECTS,
    REST_WEIGHT,
    Channel,
    Feeds,
    FrameDecoder,
    Limit,
    ListingCalls,
    OnBadFrame,
    PollChannel,
    RestCall,
    Shape,
    SocketGroup,
    Talk,
    Venue,
)
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import NS_PER_MS, Id, Millis, Price, PriceOrNone, Quantity, TradeQuantity
from tests.toys.kind import Settlements

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
    """A trade."""

    id: Id
    side: Literal["buy", "sell"]
    time: Millis
    price: Price
    qty: TradeQuantity


class TradeList(Struct, gc=False):
    """Trades of the symbol in the type, `trades.<symbol>`."""

    rows: list[TradeItem]


class BestQuote(Struct, tag_field="type", tag="quote", gc=False):
    """Best bid and offer as (price, quantity), as of an update id of the book."""

    symbol: str
    seq: Id
    time: Millis
    bid: tuple[PriceOrNone, Quantity]
    ask: tuple[PriceOrNone, Quantity]


class BookChange(Struct, gc=False):
    """A book, whole or what has changed of it since the update `prev`; its type is
    `book.<symbol>`.
    """

    form: Literal["snapshot", "update"]
    seq: Id
    time: Millis
    bids: list[tuple[Price, Quantity]]
    asks: list[tuple[Price, Quantity]]
    prev: Id | None = None

    def __post_init__(self) -> None:
        if self.form == "update" and self.prev is None:
            raise ValueError("an update says which one it follows")


class Settled(Struct, tag_field="type", tag="settlement", gc=False):
    """A settlement."""

    symbol: str
    time: Millis
    price: Price
    volume: Quantity
    contract: Id


class Contract(Struct, gc=False):
    """The answer to a poll."""

    symbol: str
    rate: ComputedRate
    open: Computed
    time: Millis
    next: Millis


class Head(Struct, gc=False):
    """How every frame begins."""

    type: str


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

_Frame = BestQuote | Settled | Welcome | Done | Refused
_SIDE: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}


def _levels(said: Mapping[str, bytes]) -> list[bytes]:
    return [said.get(side, b"") for side in ("bids", "asks")]


SHAPES: Final = (
    Shape(
        ContiguousTrades, TradeItem, "trades.{symbol}", ("rows",), is_list=True,
        seq="id", time="time",
    ),
    Shape(Quotes, BestQuote, "quote", symbol="symbol", seq="seq", time="time"),
    Shape(
        PushedBook, BookChange, "book.{symbol}",
        seq="seq", prev_seq="prev", time="time", levels=_levels,
    ),
    Shape(Settlements, Settled, "settlement", symbol="symbol", time="time"),
)  # fmt: skip
CONTRACT: Final = Shape(FundingOpenInterest, Contract, symbol="symbol", time="time", row_count=2)

_decode_head = msgspec.json.Decoder(Head).decode
_decode_trades = msgspec.json.Decoder(TradeList, strict=False).decode
_decode_book = msgspec.json.Decoder(BookChange, strict=False).decode
_decode_other = msgspec.json.Decoder(_Frame, strict=False).decode
_decode_contract = decoder(Contract)


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    trades, quotes = feeds.of(ContiguousTrades), feeds.of(Quotes)
    books, settlements = feeds.of(PushedBook), feeds.of(Settlements)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        word, _, symbol = _decode_head(payload).type.partition(".")
        if symbol and word == "trades":
            _on_trades(_decode_trades(payload).rows, symbol, trades, quotes, ts_recv)
            return
        if symbol and word == "book":
            _on_book(_decode_book(payload), symbol, books.get(symbol), ts_recv)
            return
        said = _decode_other(payload)
        if type(said) is BestQuote:
            _on_quote(said, quotes, trades, ts_recv)
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
    symbol: str,
    trades: Mapping[str, ContiguousTrades],
    quotes: Mapping[str, Quotes],
    ts_recv: int,
) -> None:
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


def _on_book(said: BookChange, symbol: str, feed: PushedBook | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(symbol, PushedBook)
    at, is_whole = said.time * NS_PER_MS, said.form == "snapshot"
    event = BookEvent(said.seq, said.prev or 0, at, ts_recv, said.bids, said.asks, is_whole)
    feed.on_event(event)


def _on_settled(said: Settled, feed: Settlements | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(said.symbol, Settlements)
    at = said.time * NS_PER_MS
    feed.on_settlement(at, ts_recv, said.price, said.volume, said.contract)


def decode_contract(body: bytes, feeds: Feeds, ts_recv: int, _: OnBadFrame) -> None:
    """The answer to a poll of one symbol."""

    def take(_: str | None, part: bytes) -> None:
        said = _decode_contract(part)
        feed = feeds.of(FundingOpenInterest).get(said.symbol)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        row = funding_row(said.rate, None, None, said.next * NS_PER_MS)
        at, interest = said.time * NS_PER_MS, said.open
        feed.on_both(at, ts_recv, row, interest.value, interest.is_exact)

    take_one(body, CONTRACT, feeds, ts_recv, take)


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
        (StreamKind.FUNDING_OPEN_INTEREST, Transport.HTTP_POLL): PollChannel(
            CONTRACT,
            decode_contract,
            interval_s=5.0,
            stale_after_s=30.0,
            call=RestCall("GET", "/contract?symbol={symbol}", weight=1),
        ),
    },
    limits=(Limit(REST_WEIGHT, 600, 60.0), Limit(CONNECTS, 60, 60.0)),
    too_often=(b"slower, please",),
    subscribe=lambda topics, number: _say("subscribe", topics, number),
    unsubscribe=lambda topics, number: _say("unsubscribe", topics, number),
    open_decoder=open_decoder,
    tag="type",
    shapes=SHAPES,
    listing=ListingCalls(_page_call(0), parse_page, next_page),
    examples=("T0-USD", "T1-USD"),
)
