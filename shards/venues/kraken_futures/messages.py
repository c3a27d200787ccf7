"""Kraken futures messages: the wire's own names, and only the fields that are used."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from shards.venues.digits import DECIMALS_MAX, Computed, ComputedRate
from shards.venues.wire import (
    Id,
    Millis,
    Moment,
    Price,
    PriceOrNone,
    Quantity,
    TradeQuantity,
    Word,
    check_moment,
)


class Trade(Struct, tag_field="feed", tag="trade", gc=False):
    """Feed `trade`; `side` is the taker's. Types are fill, liquidation, assignment, termination and
    block.
    """

    product_id: str
    side: Literal["buy", "sell"]
    type: str
    seq: Id
    time: Millis
    qty: TradeQuantity
    price: Price


class TradeSnapshot(Struct, tag_field="feed", tag="trade_snapshot", gc=False):
    """The last hundred trades, newest first, after a subscription."""

    trades: list[Trade]


class Level(Struct, gc=False):
    """A price level of a snapshot."""

    price: Price
    qty: Quantity


class BookSnapshot(Struct, tag_field="feed", tag="book_snapshot", gc=False):
    """A whole book as of the message `seq`. A level of quantity zero is none."""

    product_id: str
    seq: Id
    timestamp: Millis
    bids: list[Level]
    asks: list[Level]


class BookChange(Struct, tag_field="feed", tag="book", gc=False):
    """One level of a book: `buy` is a bid, and quantity zero removes it."""

    product_id: str
    side: Literal["buy", "sell"]
    seq: Id
    timestamp: Millis
    price: Price
    qty: Quantity


class Ticker(Struct, tag_field="feed", tag="ticker", gc=False):
    """Feed `ticker`. The rate is a fraction an hour; dated contracts have none. The venue's
    `funding_rate` is an amount of the quote currency, not a fraction, and is left.
    """

    product_id: str
    time: Millis
    bid: PriceOrNone
    bid_size: Quantity
    ask: PriceOrNone
    ask_size: Quantity
    markPrice: Computed | None
    index: Computed | None
    openInterest: Computed
    relative_funding_rate: ComputedRate | None = None
    next_funding_rate_time: Millis | None = None


class Event(Struct, gc=False):
    """What is no data."""

    event: str = ""
    message: str = ""


class Typed(Struct, gc=False):
    """A member of `instruments`, of which only the type matters."""

    type: str = ""


class Contract(Struct):
    """A member of `instruments`. `contractValueTradePrecision` is the decimals of quantities; below
    zero they are multiples of a power of ten. Only dated ones have a `lastTradingTime`.
    """

    symbol: str
    type: Word
    tradeable: bool
    tickSize: Raw
    contractSize: Raw
    contractValueTradePrecision: Annotated[int, Meta(ge=-DECIMALS_MAX, le=DECIMALS_MAX)] = 0
    postOnly: bool = False
    base: Word = ""
    quote: Word = ""
    openingDate: Moment | None = None
    lastTradingTime: Moment | None = None

    def __post_init__(self) -> None:
        """Refuse a time that no market can have."""
        check_moment(self.openingDate)
        check_moment(self.lastTradingTime)


class Instruments(Struct):
    """`GET /derivatives/api/v3/instruments`. Each is a `Contract`."""

    instruments: list[Raw]
