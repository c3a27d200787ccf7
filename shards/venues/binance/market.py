"""What Binance's markets have in common besides messages: topics, sockets, channels."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.books import DeltaBook
from shards.feeds.contracts import FundingRates, Liquidations
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.kit import CONNECTS, REST_WEIGHT, Channel, Limit, SocketGroup

USED_WEIGHT: Final = "X-MBX-USED-WEIGHT-1M"
FUTURES_BOOKS: Final = ("depth@100ms", "depth@250ms", "depth@500ms", "depth@0ms", "depth")
"""The last is the second by another name."""


def subscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [msgspec.json.encode({"method": "SUBSCRIBE", "params": topics, "id": request_id})]


def unsubscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [msgspec.json.encode({"method": "UNSUBSCRIBE", "params": topics, "id": request_id})]


def topic(stream: str) -> Callable[[str, VenueSettings], str]:
    """Names a stream of a symbol."""
    return lambda symbol, _: f"{symbol.lower()}@{stream}"


def book_topic(symbol: str, settings: VenueSettings) -> str:
    """Names the stream of its book that is chosen."""
    return f"{symbol.lower()}@{settings.book_channel or FUTURES_BOOKS[0]}"


def _group(path: str) -> SocketGroup:
    return SocketGroup(
        path=path,
        # 1024 streams are documented, 200 were for years and are what clients use.
        streams_per_connection=200,
        topics_per_message=100,
        # Ten messages a second per connection, pings and pongs included.
        message_interval_s=0.25,
        idle_timeout_s=30.0,
        # The venue cuts after 24 h.
        lifetime_s=23 * 3600.0,
    )


TOO_OFTEN: Final = (b'"code":-1003,', b"Too many requests")

FUTURES_GROUPS: Final[Mapping[str, SocketGroup]] = {
    "public": _group("/public/ws"),
    "market": _group("/market/ws"),
}
FUTURES_LIMITS: Final = (
    # An address has them for both markets of futures, and the venue counts its use of both.
    Limit(REST_WEIGHT, 2400, 60.0),
    Limit(CONNECTS, 60, 60.0),
    # fundingInfo and fundingRate of USD-M weigh nothing, and have 500 requests in 5 minutes.
    Limit("rest_funding", 500, 300.0),
)
FUTURES_CHANNELS: Final[Mapping[tuple[StreamKind, Transport], Channel]] = {
    # Funding with open interest is not offered: they are two calls here, and a row that joins
    # them would claim a moment at which both were true.
    (StreamKind.TRADES, Transport.WS): Channel(
        "market", ContiguousTrades, topic("aggTrade"), 300.0
    ),
    (StreamKind.L2_BOOK, Transport.WS): Channel("public", DeltaBook, book_topic, 60.0),
    (StreamKind.TICKER, Transport.WS): Channel("public", Quotes, topic("bookTicker"), 300.0),
    (StreamKind.FUNDING, Transport.WS): Channel(
        "market", FundingRates, topic("markPrice@1s"), 15.0
    ),
    # At most the latest one a second and symbol is pushed, and often none for hours.
    (StreamKind.LIQUIDATIONS, Transport.WS): Channel(
        "market",
        Liquidations,
        topic("forceOrder"),
        math.inf,
        note="the exchange sends at most one liquidation a second and symbol",
    ),
}
