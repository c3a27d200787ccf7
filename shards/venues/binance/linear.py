"""Binance USD-M futures: perpetual and dated contracts of one unit of the base asset."""

from typing import Final

from engine.data.names import StreamKind, Transport
from shards.venues.binance.answers import (
    OPEN_INTEREST,
    PREMIUM_INDEX,
    SETTLED_RATE,
    decode_open_interest,
    decode_premium_index,
    decode_settled_rates,
    parse_book_snapshot,
    parse_funding_intervals,
)
from shards.venues.binance.decode import FUTURES_SHAPES, open_futures
from shards.venues.binance.instruments import parse_limits, parse_linear
from shards.venues.binance.market import (
    FUTURES_BOOKS,
    FUTURES_CHANNELS,
    FUTURES_GROUPS,
    FUTURES_LIMITS,
    TOO_OFTEN,
    USED_WEIGHT,
    subscribe,
    unsubscribe,
)
from shards.venues.kit import (
    FundingIntervals,
    ListingCalls,
    PollChannel,
    RestCall,
    Venue,
)

VENUE: Final = Venue(
    name="binance_linear",
    rest_url="https://fapi.binance.com",
    ws_url="wss://fstream.binance.com",
    groups=FUTURES_GROUPS,
    channels={
        **FUTURES_CHANNELS,
        (StreamKind.FUNDING, Transport.HTTP_POLL): PollChannel(
            PREMIUM_INDEX,
            decode_premium_index,
            interval_s=5.0,
            stale_after_s=30.0,
            call=RestCall("GET", "/fapi/v1/premiumIndex?symbol={symbol}", weight=1),
            batch=RestCall("GET", "/fapi/v1/premiumIndex", weight=10),
        ),
        # No socket carries it.
        (StreamKind.OPEN_INTEREST, Transport.HTTP_POLL): PollChannel(
            OPEN_INTEREST,
            decode_open_interest,
            interval_s=10.0,
            stale_after_s=60.0,
            call=RestCall("GET", "/fapi/v1/openInterest?symbol={symbol}", weight=1),
        ),
        (StreamKind.SETTLED_FUNDING, Transport.HTTP_POLL): PollChannel(
            SETTLED_RATE,
            decode_settled_rates,
            interval_s=300.0,
            stale_after_s=1800.0,
            call=RestCall(
                "GET",
                "/fapi/v1/fundingRate?symbol={symbol}&startTime={since}&limit=1000",
                weight=1,
                pool="rest_funding",
            ),
        ),
    },
    limits=FUTURES_LIMITS,
    parse_limits=parse_limits,
    used_weight_header=USED_WEIGHT,
    too_often=TOO_OFTEN,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    open_decoder=open_futures,
    tag="e",
    shapes=FUTURES_SHAPES,
    listing=ListingCalls(RestCall("GET", "/fapi/v1/exchangeInfo", weight=1), parse_linear),
    funding_intervals=FundingIntervals(
        RestCall("GET", "/fapi/v1/fundingInfo", weight=1, pool="rest_funding"),
        parse_funding_intervals,
        usual_s=8 * 3600,
        refresh_s=60.0,
    ),
    book_snapshot=RestCall("GET", "/fapi/v1/depth?symbol={symbol}&limit=1000", weight=20),
    parse_book_snapshot=parse_book_snapshot,
    examples=("BTCUSDT", "ETHUSDT"),
    options={"book_channel": FUTURES_BOOKS},
)
