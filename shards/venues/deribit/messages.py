"""Deribit messages: the wire's own names, and only the fields that are used."""

from typing import Annotated, Generic, Literal, TypeVar

from msgspec import Meta, Raw, Struct

from shards.venues.digits import Computed, ComputedRate
from shards.venues.wire import Date, Id, Millis, Price, PriceOrNone, Quantity, TradeQuantity, Word

WireLevel = tuple[Literal["new", "change", "delete"], Price, Quantity]

Data = TypeVar("Data")


class Params(Struct, Generic[Data], gc=False):
    """What a notification carries, and on which channel."""

    channel: str
    data: Data


class Notification(Struct, Generic[Data], gc=False):
    """A message of a subscription."""

    params: Params[Data]


class Trade(Struct, gc=False):
    """A member of `trades.<instrument>.<pace>`. `direction` is the taker's. `liquidation` says
    whose order was forced: the maker's, the taker's or both.
    """

    trade_seq: Id
    timestamp: Millis
    price: Price
    amount: TradeQuantity
    direction: Literal["buy", "sell"]
    liquidation: Literal["M", "T", "MT"] | None = None


class Book(Struct, gc=False):
    """`book.<instrument>.<pace>`: all levels, or what has changed since `prev_change_id`. Without a
    `type`, as years ago, a book that follows nothing is whole. So is a change that follows nothing
    (0): it is the first one of a book that was empty. A change says which one it follows.
    """

    timestamp: Millis
    change_id: Id
    bids: list[WireLevel]
    asks: list[WireLevel]
    type: Literal["snapshot", "change"] | None = None
    prev_change_id: Id | None = None


class Quote(Struct, gc=False):
    """`quote.<instrument>`. A side without an order is 0, or null by the documentation."""

    timestamp: Millis
    best_bid_price: PriceOrNone | None
    best_bid_amount: Quantity | None
    best_ask_price: PriceOrNone | None
    best_ask_amount: Quantity | None


class Ticker(Struct, gc=False):
    """`ticker.<instrument>.<pace>`, and the answer of `public/ticker`. What is no perpetual has no
    `current_funding`.
    """

    instrument_name: str
    timestamp: Millis
    open_interest: Computed
    mark_price: Computed | None
    index_price: Computed | None
    current_funding: ComputedRate | None = None


class Channel(Struct, gc=False):
    """The channel of a notification, whatever it carries."""

    channel: str = ""


class Head(Struct, gc=False):
    """How a frame begins."""

    params: Channel | None = None


class Beat(Struct, gc=False):
    """A heartbeat: `heartbeat`, or `test_request`, which wants an answer."""

    type: str = ""


class Refusal(Struct, gc=False):
    """Why a request was refused; `data` may say more."""

    code: int
    message: str
    data: Raw = Raw(b"null")


class Said(Struct, gc=False):
    """Anything without data: an answer, a refusal, a heartbeat."""

    id: int | None = None
    result: Raw = Raw(b"")
    error: Refusal | None = None
    method: str = ""
    params: Beat | None = None


class Listed(Struct, gc=False):
    """`public/get_instruments`. Each is an `Instrument`; `usOut` is when it was said, in µs."""

    result: list[Raw]
    usOut: Annotated[int, Meta(ge=0, le=10**16)] = 0


class Kind(Struct, gc=False):
    """Of an instrument, what it is."""

    kind: str


class TickStep(Struct, gc=False):
    """A tick size that holds above a price."""

    tick_size: Price


class Instrument(Struct, gc=False):
    """A member of `get_instruments`. What has no end expires in the year 3000. Years ago there was
    no `state`, and neither a `settlement_currency` nor an `instrument_type`.
    """

    instrument_name: str
    kind: Word
    base_currency: Word
    quote_currency: Word
    tick_size: Price
    contract_size: Price
    min_trade_amount: Price
    is_active: bool
    tick_size_steps: list[TickStep] = []
    block_trade_tick_size: Price | None = None
    settlement_currency: Word = ""
    settlement_period: Word = ""
    instrument_type: Word = ""
    state: Word = ""
    creation_timestamp: Date = 0
    expiration_timestamp: Annotated[int, Meta(ge=0, le=10**14)] = 0
