"""Kraken spot messages: the wire's own names, and only the fields that are used."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Raw, Struct

from shards.venues.digits import DECIMALS_MAX
from shards.venues.wire import (
    Id,
    Moment,
    Price,
    PriceOrNone,
    Quantity,
    TradeQuantity,
    Word,
)

DEPTH: Final = 1000
"""Levels a side: all that the venue offers."""

_SPELLED: Final = {"XBT": "BTC", "XDG": "DOGE"}
"""Currencies that the socket spells in another way than REST."""

_Decimals = Annotated[int, Meta(ge=0, le=DECIMALS_MAX)]
_Form = Literal["update", "snapshot"]


class Trade(Struct, gc=False):
    """A member of `trade`; `side` is the taker's."""

    symbol: str
    side: Literal["buy", "sell"]
    price: Price
    qty: TradeQuantity
    trade_id: Id
    timestamp: Moment


class Trades(Struct, tag_field="channel", tag="trade", gc=False):
    """Channel `trade`; a snapshot repeats the last fifty."""

    data: list[Trade]
    type: _Form = "update"


class Level(Struct, gc=False):
    """A price level; quantity zero removes it."""

    price: Price
    qty: Quantity


class Book(Struct, gc=False):
    """What has changed of a book, or all of it, and its checksum after that. A whole one may have
    no time.
    """

    symbol: str
    bids: list[Level]
    asks: list[Level]
    checksum: Annotated[int, Meta(ge=0, lt=2**32)]
    timestamp: Moment | None = None


class Books(Struct, tag_field="channel", tag="book", gc=False):
    """Channel `book`."""

    data: list[Book]
    type: _Form = "update"


class Quote(Struct, gc=False):
    """Best bid and offer, and what is left out here of a day's figures. It may have no time."""

    symbol: str
    bid: PriceOrNone
    bid_qty: Quantity
    ask: PriceOrNone
    ask_qty: Quantity
    timestamp: Moment | None = None


class Ticker(Struct, tag_field="channel", tag="ticker", gc=False):
    """Channel `ticker`."""

    data: list[Quote]


class Status(Struct, tag_field="channel", tag="status", gc=False):
    """The state of the whole exchange, first on a socket and when it changes."""


class Heartbeat(Struct, tag_field="channel", tag="heartbeat", gc=False):
    """Once a second when nothing else is sent."""


class Reply(Struct, gc=False):
    """To a request: an acknowledgement or a refusal for each symbol, or a pong."""

    method: str = ""
    success: bool = True
    error: str = ""
    symbol: str = ""
    req_id: int | None = None


class Pair(Struct):
    """A member of `AssetPairs`. Of its names `wsname` is the one that sockets once took."""

    wsname: str
    pair_decimals: _Decimals
    lot_decimals: _Decimals
    tick_size: str
    status: Word = ""
    aclass_base: Word = ""

    def __post_init__(self) -> None:
        """Spell it as sockets do now."""
        self.wsname = "/".join(_SPELLED.get(part, part) for part in self.wsname.split("/"))


class AssetPairs(Struct):
    """`GET /0/public/AssetPairs`. Each is a `Pair`."""

    result: dict[str, Raw]
