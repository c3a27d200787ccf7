"""Bybit messages: the wire's own names, and only the fields that are used.

The topic names the symbol of a message, so it is not read again from its elements. What a `Shape`
reads alone has no topic; the frame around it has.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from shards.venues.digits import Computed, ComputedOrEmpty, ComputedRate
from shards.venues.wire import Id, Millis, Price, Quantity, TradeQuantity, Word

WireLevel = tuple[Price, Quantity]
Hours = Annotated[int, Meta(ge=1, le=24 * 366)]
DateText = Annotated[str, Meta(pattern=r"^[0-8]?[0-9]{0,12}$")]
"""A date in ms as text, of which the nanoseconds fit 64 bits; `0`, or nothing, where there is none.
"""
Form = Literal["snapshot", "delta"]


class Head(Struct, gc=False):
    """What a frame is: data of a topic, or a reply."""

    topic: str = ""
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    req_id: str = ""


class Trade(Struct, gc=False):
    """A member of `publicTrade.<symbol>`; `S` is the taker's side."""

    T: Millis
    S: Literal["Buy", "Sell"]
    v: TradeQuantity
    p: Price
    i: Annotated[str, Meta(max_length=64)]


class Trades(Struct, gc=False):
    """`publicTrade.<symbol>`, without any past."""

    topic: str
    data: list[Trade]


class BookLevels(Struct, gc=False):
    """Absolute quantities as of the update id `u`; zero removes."""

    b: list[WireLevel]
    a: list[WireLevel]
    u: Id


class Book(Struct, gc=False):
    """A book, whole or what has changed. `cts` is the matching engine's time, `ts` that of sending;
    old forms of the message have no `cts`.
    """

    type: Form
    ts: Millis
    data: BookLevels
    cts: Millis = 0


class BookFrame(Book, gc=False, kw_only=True):
    """`orderbook.<depth>.<symbol>`."""

    topic: str


class TickerFields(Struct, gc=False):
    """What of a contract's ticker is used. A field that is not there has not changed; an empty text
    says that there is no value: dated contracts have no funding.
    """

    symbol: str
    markPrice: ComputedOrEmpty | None = None
    indexPrice: ComputedOrEmpty | None = None
    fundingRate: ComputedRate | None = None
    nextFundingTime: Millis | Literal[""] | None = None
    fundingIntervalHour: Hours | Literal[""] | None = None
    openInterest: Computed | None = None
    singleOpenInterest: Computed | None = None


class Ticker(Struct, gc=False):
    """A contract's state, whole or what has changed; a reader keeps the rest."""

    type: Form
    ts: Millis
    data: TickerFields


class TickerFrame(Ticker, gc=False, kw_only=True):
    """`tickers.<symbol>`."""

    topic: str


class Liquidation(Struct, gc=False):
    """A member of `allLiquidation.<symbol>`; `S` is the side of the position, `v` what was executed
    and `p` the price of bankruptcy.
    """

    T: Millis
    S: Literal["Buy", "Sell"]
    v: TradeQuantity
    p: Price


class Liquidations(Struct, gc=False):
    """`allLiquidation.<symbol>`, twice a second."""

    topic: str
    data: list[Liquidation]


class Answer(Struct, gc=False):
    """Around every REST answer; a code other than 0 is an error, whatever the HTTP status."""

    result: msgspec.Raw
    retCode: int = 0
    retMsg: str = ""


class Rows(Struct, gc=False):
    """`result` of an answer that lists something; a cursor leads to the rest."""

    rows: list[msgspec.Raw] = field(name="list")
    nextPageCursor: str | None = None


class Named(Struct, gc=False):
    """Whose a row of an answer is, whatever else it says."""

    symbol: str


class ContractTicker(Struct, gc=False):
    """A row of `GET /v5/market/tickers`, which is always whole."""

    symbol: str
    markPrice: ComputedOrEmpty
    indexPrice: ComputedOrEmpty
    fundingRate: ComputedRate
    nextFundingTime: Millis | Literal[""]
    openInterest: Computed
    fundingIntervalHour: Hours | Literal[""] | None = None
    singleOpenInterest: Computed | None = None


class PriceFilter(Struct, gc=False):
    """Of an instrument."""

    tickSize: str


class LotSizeFilter(Struct, gc=False):
    """Of an instrument; the step is called `basePrecision` on spot."""

    qtyStep: str = ""
    basePrecision: str = ""


class InstrumentInfo(Struct, gc=False):
    """A row of `GET /v5/market/instruments-info`."""

    symbol: str
    status: Word
    baseCoin: Word
    quoteCoin: Word
    priceFilter: PriceFilter
    lotSizeFilter: LotSizeFilter
    contractType: Word = ""
    settleCoin: Word = ""
    launchTime: DateText = ""
    deliveryTime: DateText = ""
