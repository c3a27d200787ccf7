"""What Binance USD-M is: addresses, limits, channels, calls."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.data.slots import Instrument, StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.binance_linear.decode import (
    SHAPES,
    decode_open_interest,
    decode_premium_index,
    open_decoder,
    parse_book_snapshot,
    parse_funding_intervals,
)
from shards.venues.binance_linear.messages import ExchangeInfo, RateLimit, RateLimits, Symbol
from shards.venues.kit import (
    Channel,
    FeedRule,
    FundingIntervals,
    PollChannel,
    RestCall,
    RestPool,
    SocketGroup,
    Venue,
    decimals_of,
)
from shards.venues.listing import Listing, RowReader, step_size

_decode_exchange_info = msgspec.json.Decoder(ExchangeInfo).decode
_decode_rate_limits = msgspec.json.Decoder(RateLimits).decode
_decode_rate_limit = msgspec.json.Decoder(RateLimit).decode
_symbols = RowReader(Symbol, "symbol")
_MINUTES = {"SECOND": 1 / 60, "MINUTE": 1.0, "HOUR": 60.0, "DAY": 1440.0}


def subscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [msgspec.json.encode({"method": "SUBSCRIBE", "params": topics, "id": request_id})]


def unsubscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [msgspec.json.encode({"method": "UNSUBSCRIBE", "params": topics, "id": request_id})]


def parse_instruments(body: bytes) -> Listing:
    """Instruments by symbol. `pricePrecision` is not the tick: the filters are."""
    return _symbols.read(_decode_exchange_info(body).symbols, _instrument)


def _instrument(row: Symbol) -> Instrument:
    tick = _size(row.filters, "PRICE_FILTER", "tickSize")
    lot = _size(row.filters, "LOT_SIZE", "stepSize")
    return Instrument(
        venue=VENUE.name,
        symbol=row.symbol,
        price_decimals=decimals_of(tick),
        qty_decimals=decimals_of(lot),
        base=row.baseAsset,
        quote=row.quoteAsset,
        tick_size=tick,
        lot_size=lot,
        status=row.status,
    )


def _size(filters: Sequence[dict[str, Any]], kind: str, name: str) -> str:
    found = next((each for each in filters if each.get("filterType") == kind), None)
    if found is None:
        raise ValueError(f"filters: no {kind}")
    return step_size(f"filters: {kind}.{name}", found.get(name))


def parse_rest_weight(body: bytes) -> float | None:
    """The strictest limit on weight that `exchangeInfo` announces, per minute, as far as its limits
    can be read.
    """
    per_minute = []
    for raw in _decode_rate_limits(body).rateLimits:
        with contextlib.suppress(*BAD_FRAME):
            each = _decode_rate_limit(raw)
            if each.rateLimitType == "REQUEST_WEIGHT" and each.interval in _MINUTES:
                per_minute.append(each.limit / (each.intervalNum * _MINUTES[each.interval]))
    return min(per_minute, default=None)


def _trades_topic(symbol: str, _: VenueSettings) -> str:
    return f"{symbol.lower()}@aggTrade"


def _book_topic(symbol: str, settings: VenueSettings) -> str:
    return f"{symbol.lower()}@{settings.book_channel or 'depth@100ms'}"


def _quotes_topic(symbol: str, _: VenueSettings) -> str:
    return f"{symbol.lower()}@bookTicker"


def _funding_topic(symbol: str, _: VenueSettings) -> str:
    return f"{symbol.lower()}@markPrice@1s"


def _liquidations_topic(symbol: str, _: VenueSettings) -> str:
    return f"{symbol.lower()}@forceOrder"


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


VENUE = Venue(
    name="binance_linear",
    rest_url="https://fapi.binance.com",
    ws_url="wss://fstream.binance.com",
    groups={
        "public": _group("/public/ws"),
        "market": _group("/market/ws"),
    },
    channels={
        # Funding with open interest is not offered: they are two calls here, and a row that joins
        # them would claim a moment at which both were true.
        (StreamKind.TRADES, Transport.WS): Channel(
            "market", FeedRule.CONTIGUOUS_TRADES, _trades_topic, 300.0
        ),
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            "public", FeedRule.DELTA_BOOK, _book_topic, 60.0
        ),
        (StreamKind.TICKER, Transport.WS): Channel("public", FeedRule.QUOTES, _quotes_topic, 300.0),
        (StreamKind.FUNDING, Transport.WS): Channel(
            "market", FeedRule.FUNDING, _funding_topic, 15.0
        ),
        (StreamKind.FUNDING, Transport.HTTP_POLL): PollChannel(
            FeedRule.FUNDING,
            decode_premium_index,
            interval_s=5.0,
            stale_after_s=30.0,
            call=RestCall("GET", "/fapi/v1/premiumIndex?symbol={symbol}", weight=1),
            batch=RestCall("GET", "/fapi/v1/premiumIndex", weight=10),
        ),
        # No socket carries it.
        (StreamKind.OPEN_INTEREST, Transport.HTTP_POLL): PollChannel(
            FeedRule.OPEN_INTEREST,
            decode_open_interest,
            interval_s=10.0,
            stale_after_s=60.0,
            call=RestCall("GET", "/fapi/v1/openInterest?symbol={symbol}", weight=1),
        ),
        # At most the latest one a second and symbol is pushed, and often none for hours.
        (StreamKind.LIQUIDATIONS, Transport.WS): Channel(
            "market", FeedRule.LIQUIDATIONS, _liquidations_topic, math.inf
        ),
    },
    rest_weight_per_minute=2400,
    # fundingInfo and fundingRate weigh nothing, and have 500 requests in 5 minutes to themselves.
    rest_pools={"rest_funding": RestPool(500, 300.0)},
    parse_rest_weight=parse_rest_weight,
    used_weight_header="X-MBX-USED-WEIGHT-1M",
    connects_per_minute=60,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    open_decoder=open_decoder,
    tag="e",
    shapes=SHAPES,
    instruments=RestCall("GET", "/fapi/v1/exchangeInfo", weight=1),
    parse_instruments=parse_instruments,
    funding_intervals=FundingIntervals(
        RestCall("GET", "/fapi/v1/fundingInfo", weight=1, pool="rest_funding"),
        parse_funding_intervals,
        usual_s=8 * 3600,
        refresh_s=60.0,
    ),
    book_snapshot=RestCall("GET", "/fapi/v1/depth?symbol={symbol}&limit=1000", weight=20),
    parse_book_snapshot=parse_book_snapshot,
)
