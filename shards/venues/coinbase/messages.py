"""Messages of Advanced Trade: the wire's own names, and only the fields that are used."""

from typing import Final, Literal

from msgspec import Raw, Struct
from msgspec.json import Decoder

from shards.venues.digits import Computed, ComputedRate
from shards.venues.wire import (
    Id,
    Moment,
    Price,
    PriceOrNone,
    Quantity,
    TradeQuantity,
    Word,
    ns_of,
)

NO_YEAR: Final = 1970
"""Of levels whose time is not told."""

_decode_moment = Decoder(Moment).decode


class FutureTerms(Struct):
    """What a future has beside a spot product. A perpetual of a US exchange is listed as one that
    expires, far ahead, and tells how often it pays funding.
    """

    contract_size: str
    contract_root_unit: Word = ""
    contract_expiry: Moment | None = None
    contract_expiry_type: Word = ""
    funding_interval: Word | None = None


class Product(Struct):
    """A member of `products`. Data of an `alias` comes under the name of what it is an alias of."""

    product_id: str
    price_increment: str
    base_increment: str
    product_type: Word
    status: Word = ""
    base_currency_id: Word = ""
    quote_currency_id: Word = ""
    alias: Word = ""
    is_disabled: bool = False
    trading_disabled: bool = False
    view_only: bool = False
    cancel_only: bool = False
    post_only: bool = False
    auction_mode: bool = False
    new_at: Moment | None = None
    future_product_details: FutureTerms | None = None


class Products(Struct):
    """The answer; each is a `Product`."""

    products: list[Raw]


class TypedProduct(Struct):
    """What kind of product an answer is about."""

    product_type: str = ""


class MarketTrade(Struct, gc=False):
    """A trade. Whose `side` it is, the option `trade_side` says."""

    trade_id: Id
    product_id: str
    price: Price
    size: TradeQuantity
    side: Literal["BUY", "SELL"]
    time: Moment


class TradesEvent(Struct, gc=False):
    """Trades of a quarter of a second, or (`snapshot`) those before the subscription."""

    trades: list[MarketTrade]
    type: str = ""


class MarketTrades(Struct, tag_field="channel", tag="market_trades", gc=False):
    """Channel `market_trades`."""

    events: list[TradesEvent]
    sequence_num: Id | None = None


class LevelUpdate(Struct, gc=False):
    """A level as it is now; no quantity removes it. Of the times of a message the last one counts,
    and is read then.
    """

    side: Literal["bid", "offer"]
    event_time: Raw
    price_level: Price
    new_quantity: Quantity


class BookUpdates(Struct, gc=False):
    """A book, whole or what has changed of it."""

    type: Literal["snapshot", "update"]
    product_id: str
    updates: list[LevelUpdate]

    def changed_ns(self) -> int | None:
        """The time of its last level; None where that is said to be 1970, or there is none. Raises
        MsgspecError where it is no time that a market can have.
        """
        at = _decode_moment(self.updates[-1].event_time) if self.updates else None
        return None if at is None or at.year == NO_YEAR else ns_of(at)


class BookMessage(Struct, tag_field="channel", tag="l2_data", gc=False):
    """Channel `level2`, which has another name in its messages."""

    events: list[BookUpdates]
    timestamp: Moment | None = None
    sequence_num: Id | None = None


class BestPrices(Struct, gc=False):
    """Best bid and offer as of a trade."""

    product_id: str
    best_bid: PriceOrNone
    best_bid_quantity: Quantity
    best_ask: PriceOrNone
    best_ask_quantity: Quantity


class TickersEvent(Struct, gc=False):
    """Several of them."""

    tickers: list[BestPrices]


class TickerMessage(Struct, tag_field="channel", tag="ticker", gc=False):
    """Channel `ticker`."""

    events: list[TickersEvent]
    timestamp: Moment | None = None
    sequence_num: Id | None = None


class Subscribed(Struct, gc=False):
    """All that is subscribed on the socket, by channel."""

    subscriptions: dict[str, Raw]


class Subscriptions(Struct, tag_field="channel", tag="subscriptions", gc=False):
    """The answer to any request that was taken."""

    events: list[Subscribed]
    sequence_num: Id | None = None


class Heartbeats(Struct, tag_field="channel", tag="heartbeats", gc=False):
    """One a second."""

    sequence_num: Id | None = None


class Refusal(Struct, tag_field="type", tag="error", gc=False):
    """A request was refused, in words."""

    message: str


class FundingTerms(Struct, gc=False):
    """What is polled of a perpetual. An interval is written as `3600s`."""

    open_interest: Computed
    funding_rate: ComputedRate | None = None
    funding_interval: str | None = None


class FundedProduct(Struct, gc=False):
    """The answer to a poll."""

    product_id: str
    future_product_details: FundingTerms
