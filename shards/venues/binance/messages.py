"""Binance messages: the wire's own names, and only the fields that are used. What is of one market
alone says so.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shards.venues.digits import Computed, ComputedOrEmpty, ComputedRate
from shards.venues.wire import Id, Millis, Price, PriceOrNone, Quantity, TradeQuantity

WireLevel = tuple[Price, Quantity]


class AggTrade(Struct, tag_field="e", tag="aggTrade", gc=False):
    """`<symbol>@aggTrade`. `m`: the buyer was the maker, so the taker sold."""

    s: str
    a: Id
    p: Price
    q: TradeQuantity
    T: Millis
    m: bool


class DepthUpdate(Struct, tag_field="e", tag="depthUpdate", gc=False):
    """`<symbol>@depth` of futures: update ids U to u, absolute quantities, zero removes."""

    s: str
    T: Millis
    U: Id
    u: Id
    pu: Id
    b: list[WireLevel]
    a: list[WireLevel]


class SpotDepthUpdate(Struct, tag_field="e", tag="depthUpdate", gc=False):
    """The same of spot, where ids have no hole: U follows on the u before. There is no other time
    than that of sending.
    """

    s: str
    E: Millis
    U: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    u: Id
    b: list[WireLevel]
    a: list[WireLevel]


class BookTicker(Struct, tag_field="e", tag="bookTicker", gc=False):
    """`<symbol>@bookTicker` of futures: `u` is the update id after which this was the best bid and
    offer.
    """

    s: str
    u: Id
    b: PriceOrNone
    B: Quantity
    a: PriceOrNone
    A: Quantity
    T: Millis


class SpotBookTicker(Struct, gc=False):
    """The same of spot, which says neither a type nor a time."""

    s: str
    u: Id
    b: PriceOrNone
    B: Quantity
    a: PriceOrNone
    A: Quantity


class MarkPriceUpdate(Struct, tag_field="e", tag="markPriceUpdate", gc=False):
    """`<symbol>@markPrice@1s`. Here `T` is the next funding time; dated contracts have none of it,
    and an empty rate, or neither. A null is a number that is not there now, and no fault.
    """

    s: str
    E: Millis
    p: Computed | None
    i: Computed | None = None
    r: ComputedRate | None = None
    T: Millis = 0


class ForceOrder(Struct, tag_field="e", tag="forceOrder", gc=False):
    """`<symbol>@forceOrder`."""

    o: "LiquidationOrder"


class LiquidationOrder(Struct, gc=False):
    """`S` is the order's side, `z` what has been filled so far, at `ap` on average."""

    s: str
    S: Literal["BUY", "SELL"]
    q: TradeQuantity
    p: Price
    ap: Computed
    z: Quantity
    T: Millis


class Reply(Struct, gc=False):
    """Anything without data: acknowledgement, refusal (two shapes exist), announcement."""

    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    code: int | None = None
    msg: str = ""
    error: "ReplyError | None" = None
    e: str = ""


class ReplyError(Struct, gc=False):
    """The inner error object."""

    code: int
    msg: str


class Depth(Struct, gc=False):
    """`GET …/depth`. Spot says no time."""

    lastUpdateId: Id
    bids: list[WireLevel]
    asks: list[WireLevel]
    T: Millis = 0


class RateLimit(Struct, gc=False):
    """A member of `exchangeInfo.rateLimits`: `limit` in any `intervalNum` intervals."""

    rateLimitType: str
    interval: str
    intervalNum: Annotated[int, Meta(ge=1, le=10_000)]
    limit: Annotated[int, Meta(ge=1, le=2**53)]


class RateLimits(Struct, gc=False):
    """`GET …/exchangeInfo`, where only the limits matter. Each is a `RateLimit`."""

    rateLimits: list[msgspec.Raw] = []


class ExchangeInfo(Struct, gc=False):
    """`GET …/exchangeInfo`. Each is a symbol of its market (`instruments`)."""

    symbols: list[msgspec.Raw]


class Named(Struct, gc=False):
    """Whose a part of an answer is, whatever else it says."""

    symbol: str


class PremiumIndex(Struct, gc=False):
    """`GET …/premiumIndex`: one, or a list of all. Dated contracts have an empty rate and no next
    time.
    """

    symbol: str
    markPrice: Computed | None
    indexPrice: Computed | None
    lastFundingRate: ComputedRate | None
    nextFundingTime: Millis
    time: Millis


class FundingInfo(Struct, gc=False):
    """A member of `GET …/fundingInfo`: of symbols whose cap, floor or interval differs."""

    symbol: str
    fundingIntervalHours: Annotated[int, Meta(ge=1, le=24 * 7)]


class OpenInterest(Struct, gc=False):
    """`GET …/openInterest`, in base units, of inverse contracts in contracts."""

    symbol: str
    openInterest: Computed
    time: Millis


class SettledRate(Struct, gc=False):
    """A member of `GET …/fundingRate`: funding that was paid. Old ones have no mark price; of what
    has no `rateType` there is one sort alone.
    """

    symbol: str
    fundingTime: Millis
    fundingRate: ComputedRate
    markPrice: ComputedOrEmpty | None = None
    rateType: str = ""

    def __post_init__(self) -> None:
        """What was paid has a rate."""
        if self.fundingRate.rate is None:
            raise ValueError("a payment without a rate")
