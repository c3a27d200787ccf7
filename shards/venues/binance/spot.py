"""Binance spot. It has no sockets by category, no mark prices, and quotes without a time."""

from typing import Final

from engine.data.names import StreamKind, Transport
from shards.feeds.books import DeltaBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.binance.answers import parse_book_snapshot
from shards.venues.binance.decode import SPOT_SHAPES, open_spot
from shards.venues.binance.instruments import parse_limits, parse_spot
from shards.venues.binance.market import (
    TOO_OFTEN,
    USED_WEIGHT,
    book_topic,
    subscribe,
    topic,
    unsubscribe,
)
from shards.venues.kit import (
    CONNECTS,
    REST_WEIGHT,
    Channel,
    Limit,
    ListingCalls,
    RestCall,
    SocketGroup,
    Venue,
)

VENUE: Final = Venue(
    name="binance_spot",
    rest_url="https://api.binance.com",
    ws_url="wss://stream.binance.com:9443",
    groups={
        "ws": SocketGroup(
            path="/ws",
            streams_per_connection=1024,
            topics_per_message=100,
            # Five messages a second per connection, pings and pongs included.
            message_interval_s=0.3,
            # The venue pings every 20 s.
            idle_timeout_s=30.0,
            # The venue cuts after 24 h.
            lifetime_s=23 * 3600.0,
        )
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel(
            "ws", ContiguousTrades, topic("aggTrade"), 300.0
        ),
        # Said only when it changes: pairs that nobody trades are quiet for minutes.
        (StreamKind.L2_BOOK, Transport.WS): Channel("ws", DeltaBook, book_topic, 300.0),
        (StreamKind.TICKER, Transport.WS): Channel(
            "ws",
            Quotes,
            topic("bookTicker"),
            300.0,
            note="quotes have the time at which they were received: the exchange says none",
            has_venue_time=False,
        ),
    },
    limits=(Limit(REST_WEIGHT, 6000, 60.0), Limit(CONNECTS, 300, 300.0)),
    parse_limits=parse_limits,
    used_weight_header=USED_WEIGHT,
    too_often=TOO_OFTEN,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    open_decoder=open_spot,
    tag="e",
    shapes=SPOT_SHAPES,
    listing=ListingCalls(
        RestCall("GET", "/api/v3/exchangeInfo?showPermissionSets=false", weight=20), parse_spot
    ),
    book_snapshot=RestCall("GET", "/api/v3/depth?symbol={symbol}&limit=1000", weight=50),
    parse_book_snapshot=parse_book_snapshot,
    examples=("BTCUSDT", "ETHUSDT"),
    options={"book_channel": ("depth@100ms", "depth")},
)
