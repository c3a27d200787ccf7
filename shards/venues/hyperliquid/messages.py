"""Hyperliquid messages: the wire's own names, and only the fields that are used."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shards.venues.digits import Computed, ComputedRate
from shards.venues.wire import Id, Millis, Price, Quantity, TradeQuantity, Word

PERP_DECIMALS = 6
"""A perpetual's price has at most 6 - szDecimals decimals (and 5 significant figures)."""
SPOT_DECIMALS = 8
"""The same of a pair, with the szDecimals of its base token."""


class Trade(Struct, gc=False):
    """A member of `trades`; `side` is the aggressor's. Addresses are left out on purpose."""

    coin: str
    side: Literal["A", "B"]
    px: Price
    sz: TradeQuantity
    time: Millis
    tid: Id


class Level(Struct, gc=False):
    """A price level of `l2Book`."""

    px: Price
    sz: Quantity


class Book(Struct, gc=False):
    """A whole book, bids then asks, best first."""

    coin: str
    time: Millis
    levels: tuple[list[Level], list[Level]]


class Trades(Struct, tag_field="channel", tag="trades", gc=False):
    """Channel `trades`: one coin per frame."""

    data: list[Trade]


class L2Book(Struct, tag_field="channel", tag="l2Book", gc=False):
    """Channel `l2Book`."""

    data: Book


class BestBidOffer(Struct, gc=False):
    """Bid and ask; null where that side is empty."""

    coin: str
    time: Millis
    bbo: tuple[Level | None, Level | None]


class Bbo(Struct, tag_field="channel", tag="bbo", gc=False):
    """Channel `bbo`, at most once a block and only when it changes."""

    data: BestBidOffer


class AssetCtx(Struct, gc=False):
    """State of a perpetual; `funding` is the rate of an hour. It carries no time. A null is a
    number that is not there now, as `midPx` is at times; without open interest there is no row.
    """

    funding: ComputedRate | None
    openInterest: Computed
    oraclePx: Computed | None
    markPx: Computed | None


class CoinCtx(Struct, gc=False):
    """A state and whose it is."""

    coin: str
    ctx: AssetCtx


class ActiveAssetCtx(Struct, tag_field="channel", tag="activeAssetCtx", gc=False):
    """Channel `activeAssetCtx`, about once a second."""

    data: CoinCtx


class SubscriptionResponse(Struct, tag_field="channel", tag="subscriptionResponse", gc=False):
    """Acknowledgement; echoes the subscription."""

    data: msgspec.Raw


class Error(Struct, tag_field="channel", tag="error", gc=False):
    """A refusal in words. The socket stays open."""

    data: str


class Pong(Struct, tag_field="channel", tag="pong", gc=False):
    """Answer to our ping."""


class Coin(Struct, gc=False):
    """A member of `meta.universe`."""

    name: str
    szDecimals: Annotated[int, Meta(ge=0, le=PERP_DECIMALS)]
    isDelisted: bool | None = None


class Named(Struct, gc=False):
    """A member of `universe` where only its place matters."""

    name: str


class Universe(Struct, gc=False):
    """`{"type": "meta"}`: all coins, the delisted as well. One that cannot be read keeps its place
    like the others, so each is a `Coin`, or only `Named`, in its turn.
    """

    universe: list[msgspec.Raw]


class PerpMeta(Struct, gc=False):
    """A member of `{"type": "allPerpMetas"}`: the coins of one dex, in the order of the dexes, and
    the token they are margined in. Names of other dexes than the first begin with the dex's.
    """

    universe: list[msgspec.Raw]
    collateralToken: int | None = None


class Token(Struct, gc=False):
    """A member of `spotMeta.tokens`. Both lists of a spotMeta have holes: only `index` counts."""

    index: Id
    name: Word
    szDecimals: Annotated[int, Meta(ge=0, le=SPOT_DECIMALS)]


class Pair(Struct, gc=False):
    """A member of `spotMeta.universe`: base and quote by their tokens' indexes."""

    name: str
    tokens: tuple[int, int]


class SpotMeta(Struct, gc=False):
    """`{"type": "spotMeta"}`: all pairs, and all tokens."""

    universe: list[msgspec.Raw]
    tokens: list[msgspec.Raw]


MetaAndAssetCtxs = tuple[Universe, list[msgspec.Raw]]
"""`{"type": "metaAndAssetCtxs"}`: the states are in the order of the universe."""
