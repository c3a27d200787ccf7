"""What Binance USD-M is: addresses, limits, channels, calls."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.books import DeltaBook
from shards.feeds.contracts import FundingRates, Liquidations
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.binance_linear.decode import (
    OPEN_INTEREST,
    PREMIUM_INDEX,
    SHAPES,
    decode_open_interest,
    decode_premium_index,
    open_decoder,
    parse_book_snapshot,
    parse_funding_intervals,
)
from shards.venues.binance_linear.messages import ExchangeInfo, RateLimit, RateLimits, Symbol
from shards.venues.kit import (
    CONNECTS,
    REST_WEIGHT,
    Channel,
    FundingIntervals,
    Limit,
    ListingCalls,
    PollChannel,
    RestCall,
    SocketGroup,
    Venue,
    decimals_of,
)
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import NS_PER_MS

_decode_exchange_info = msgspec.json.Decoder(ExchangeInfo).decode
_decode_rate_limits = msgspec.json.Decoder(RateLimits).decode
_decode_rate_limit = msgspec.json.Decoder(RateLimit).decode
_symbols = RowReader(Symbol, "symbol")
_BOOK_CHANNELS = ("depth@100ms", "depth@250ms", "depth@500ms", "depth@0ms", "depth")
"""The last is the second by another name."""
_STATES = {
    "PENDING_TRADING": InstrumentState.ANNOUNCED,
    "TRADING": InstrumentState.TRADING,
    "PRE_SETTLE": InstrumentState.SETTLING,
    "SETTLING": InstrumentState.SETTLING,
    "PRE_DELIVERING": InstrumentState.SETTLING,
    "DELIVERING": InstrumentState.SETTLING,
    "DELIVERED": InstrumentState.EXPIRED,
    "CLOSE": InstrumentState.DELISTED,
}
_SECONDS = {"SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0, "DAY": 86_400.0}


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
    kind = _kind(row.contractType)
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
        state=_STATES.get(row.status, InstrumentState.UNKNOWN),
        kind=kind,
        venue_kind=row.contractType,
        settle=row.marginAsset,
        contract_unit=SizeUnit.BASE,
        listed_ns=row.onboardDate * NS_PER_MS,
        delivery_ns=row.deliveryDate * NS_PER_MS if kind is InstrumentKind.FUTURE else 0,
    )


def _kind(contract_type: str) -> InstrumentKind:
    """By the venue's word, which says more (`TRADIFI_PERPETUAL`, `CURRENT_QUARTER DELIVERING`)."""
    if "PERPETUAL" in contract_type:
        return InstrumentKind.PERPETUAL
    is_dated = "QUARTER" in contract_type or "MONTH" in contract_type
    return InstrumentKind.FUTURE if is_dated else InstrumentKind.UNKNOWN


def _size(filters: Sequence[dict[str, Any]], kind: str, name: str) -> str:
    found = next((each for each in filters if each.get("filterType") == kind), None)
    if found is None:
        raise ValueError(f"filters: no {kind}")
    return step_size(f"filters: {kind}.{name}", found.get(name))


def parse_limits(body: bytes) -> list[Limit]:
    """Limits on weight that `exchangeInfo` announces, as far as they can be read."""
    limits = []
    for raw in _decode_rate_limits(body).rateLimits:
        with contextlib.suppress(*BAD_FRAME):
            each = _decode_rate_limit(raw)
            if each.rateLimitType == "REQUEST_WEIGHT" and each.interval in _SECONDS:
                window_s = each.intervalNum * _SECONDS[each.interval]
                limits.append(Limit(REST_WEIGHT, each.limit, window_s))
    return limits


def _trades_topic(symbol: str, _: VenueSettings) -> str:
    return f"{symbol.lower()}@aggTrade"


def _book_topic(symbol: str, settings: VenueSettings) -> str:
    return f"{symbol.lower()}@{settings.book_channel or _BOOK_CHANNELS[0]}"


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
            "market", ContiguousTrades, _trades_topic, 300.0
        ),
        (StreamKind.L2_BOOK, Transport.WS): Channel("public", DeltaBook, _book_topic, 60.0),
        (StreamKind.TICKER, Transport.WS): Channel("public", Quotes, _quotes_topic, 300.0),
        (StreamKind.FUNDING, Transport.WS): Channel("market", FundingRates, _funding_topic, 15.0),
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
        # At most the latest one a second and symbol is pushed, and often none for hours.
        (StreamKind.LIQUIDATIONS, Transport.WS): Channel(
            "market",
            Liquidations,
            _liquidations_topic,
            math.inf,
            note="the exchange sends at most one liquidation a second and symbol",
        ),
    },
    limits=(
        Limit(REST_WEIGHT, 2400, 60.0),
        Limit(CONNECTS, 60, 60.0),
        # fundingInfo and fundingRate weigh nothing, and have 500 requests in 5 minutes.
        Limit("rest_funding", 500, 300.0),
    ),
    parse_limits=parse_limits,
    used_weight_header="X-MBX-USED-WEIGHT-1M",
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    open_decoder=open_decoder,
    tag="e",
    shapes=SHAPES,
    listing=ListingCalls(RestCall("GET", "/fapi/v1/exchangeInfo", weight=1), parse_instruments),
    funding_intervals=FundingIntervals(
        RestCall("GET", "/fapi/v1/fundingInfo", weight=1, pool="rest_funding"),
        parse_funding_intervals,
        usual_s=8 * 3600,
        refresh_s=60.0,
    ),
    book_snapshot=RestCall("GET", "/fapi/v1/depth?symbol={symbol}&limit=1000", weight=20),
    parse_book_snapshot=parse_book_snapshot,
    examples=("BTCUSDT", "ETHUSDT"),
    options={"book_channel": _BOOK_CHANNELS},
)
