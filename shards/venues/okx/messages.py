"""OKX messages: the wire's own names, and only the fields that are used. Numbers come as texts."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from shards.venues.digits import Computed, ComputedRate
from shards.venues.wire import Id, Millis, Price, Quantity, TradeQuantity, Word

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
PrevId = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
INTERVAL_S_MAX: Final = 7 * 86_400


def index_of(symbol: str) -> str:
    """The index of an instrument: `BTC-USD` of `BTC-USD_UM-261225`."""
    base, _, rest = symbol.partition("-")
    quote = rest.partition("-")[0].partition("_")[0]
    return f"{base}-{quote}"


def pays_funding(symbol: str) -> bool:
    """Whether a contract pays funding. Of dated ones, those called X-Perp do."""
    return symbol.endswith("-SWAP") or "_XPERP-" in symbol


class Arg(Struct, gc=False):
    """What was subscribed; one of the two names says of what."""

    channel: str
    instId: str = ""
    instType: str = ""


class Frame(Struct, gc=False):
    """What every message with data has."""

    arg: Arg


class Head(Struct, gc=False):
    """What tells a message with data from an event."""

    arg: Arg | None = None
    event: str = ""


class Event(Struct, gc=False):
    """An answer to a request, or a notice."""

    event: str
    id: str = ""
    code: str = ""
    msg: str = ""


class Trade(Struct, gc=False):
    """Fills of one order at one price: `count` of them, the last of which is `tradeId`. `side` is
    the taker's.
    """

    tradeId: Id
    px: Price
    sz: TradeQuantity
    side: Literal["buy", "sell"]
    ts: Millis
    count: Count = 1


class Trades(Frame, gc=False):
    """Channel `trades`."""

    data: list[Trade]


class Level(Struct, array_like=True, gc=False):
    """A price level; behind these are a number without meaning and that of orders."""

    px: Price
    sz: Quantity


class BookChange(Struct, gc=False):
    """Absolute sizes, zero removes; `prevSeqId` is the `seqId` of the message before."""

    seqId: Id
    prevSeqId: PrevId
    ts: Millis
    bids: list[Level]
    asks: list[Level]


class Books(Frame, gc=False):
    """Channel `books`."""

    data: list[BookChange]
    action: Literal["snapshot", "update"] = "update"


class BestQuote(Struct, gc=False):
    """At most a level a side."""

    seqId: Id
    ts: Millis
    bids: list[Level]
    asks: list[Level]


class Quotes(Frame, gc=False):
    """Channel `bbo-tbt`."""

    data: list[BestQuote]


class FundingRate(Struct, gc=False):
    """The rate that is paid at `fundingTime`; the interval is what lies behind that."""

    fundingRate: ComputedRate
    fundingTime: Millis
    nextFundingTime: Millis | Literal[""] = ""

    @property
    def interval_s(self) -> int:
        """Between two payments; 0 where the venue does not say the next one, or nonsense."""
        between_s = (int(self.nextFundingTime or 0) - self.fundingTime) // 1000
        return between_s if 0 < between_s <= INTERVAL_S_MAX else 0


class FundingRates(Frame, gc=False):
    """Channel `funding-rate`."""

    data: list[FundingRate]


class MarkPrice(Struct, gc=False):
    """A mark price."""

    markPx: Computed
    ts: Millis


class MarkPrices(Frame, gc=False):
    """Channel `mark-price`."""

    data: list[MarkPrice]


class IndexTicker(Struct, gc=False):
    """The price of an index."""

    idxPx: Computed


class IndexTickers(Frame, gc=False):
    """Channel `index-tickers`, whose `instId` is an index."""

    data: list[IndexTicker]


class OpenInterest(Struct, gc=False):
    """In contracts."""

    oi: Computed
    ts: Millis


class OpenInterests(Frame, gc=False):
    """Channel `open-interest`."""

    data: list[OpenInterest]


class LiquidationDetail(Struct, gc=False):
    """An order that closes a position, which the venue takes over at the bankruptcy price. `side`
    is the order's.
    """

    side: Literal["buy", "sell"]
    bkPx: Price
    sz: TradeQuantity
    ts: Millis


class Liquidation(Struct, gc=False):
    """Those of one instrument."""

    instId: str
    details: list[LiquidationDetail]


class LiquidationOrders(Frame, gc=False):
    """Channel `liquidation-orders`, of all instruments of a type."""

    data: list[Liquidation]


class Instrument(Struct, gc=False):
    """A member of `GET /api/v5/public/instruments`. What a type does not have is an empty text."""

    instId: Word
    instType: Word
    state: Word
    tickSz: str
    lotSz: str
    baseCcy: Word = ""
    quoteCcy: Word = ""
    settleCcy: Word = ""
    uly: Word = ""
    ctVal: str = ""
    ctMult: str = ""
    ctValCcy: Word = ""
    listTime: str = ""
    expTime: str = ""


class Instruments(Struct, gc=False):
    """`GET /api/v5/public/instruments`. Each is an `Instrument`."""

    code: str
    data: list[msgspec.Raw]
    msg: str = ""
