"""What Bybit's categories are: addresses, limits, channels, calls."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.contracts import FundingOpenInterest, Liquidations
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import BookRule, by_one
from shards.feeds.quotes import Quotes
from shards.feeds.trades import UnorderedTrades
from shards.venues.bybit.decode import (
    BOOK_CHANNELS,
    CONTRACT,
    SHAPES,
    decode_contracts,
    open_decoder,
    result_of,
)
from shards.venues.bybit.messages import InstrumentInfo, Rows
from shards.venues.digits import decimals_of
from shards.venues.kit import (
    CONNECTS,
    REST_WEIGHT,
    SOCKETS,
    Channel,
    Limit,
    ListingCalls,
    Places,
    PollChannel,
    RestCall,
    SocketGroup,
    Venue,
)
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import NS_PER_MS

_decode_rows = msgspec.json.Decoder(Rows).decode
_instruments = RowReader(InstrumentInfo, "symbol")
_is_cursor: Final = re.compile(r"[A-Za-z0-9%._~=-]{1,512}").fullmatch
_KINDS: Final = {
    "LinearPerpetual": InstrumentKind.PERPETUAL,
    "LinearFutures": InstrumentKind.FUTURE,
    "InversePerpetual": InstrumentKind.PERPETUAL,
    "InverseFutures": InstrumentKind.FUTURE,
    "spot": InstrumentKind.SPOT,
}
_STATES: Final = {
    "PreLaunch": InstrumentState.ANNOUNCED,
    "Trading": InstrumentState.TRADING,
    "Delivering": InstrumentState.SETTLING,
    "Closed": InstrumentState.DELISTED,
}


def subscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [_request("subscribe", topics, request_id)]


def unsubscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [_request("unsubscribe", topics, request_id)]


def _request(word: str, topics: Sequence[str], request_id: int) -> bytes:
    return msgspec.json.encode({"req_id": str(request_id), "op": word, "args": topics})


def _listing(category: str, unit: SizeUnit) -> ListingCalls:
    path = f"/v5/market/instruments-info?category={category}&limit=1000"

    def parse(body: bytes) -> Listing:
        make = partial(_instrument, f"bybit_{category}", unit)
        return _instruments.read(_decode_rows(result_of(body)).rows, make)

    def next_page(body: bytes) -> RestCall | None:
        cursor = _decode_rows(result_of(body)).nextPageCursor
        if not cursor:
            return None
        if not _is_cursor(cursor):
            raise ValueError(f"nextPageCursor: {cursor[:32]!a} is no part of an address")
        return RestCall("GET", f"{path}&cursor={cursor}", weight=1)

    return ListingCalls(RestCall("GET", path, weight=1), parse, next_page)


def _instrument(venue: str, unit: SizeUnit, row: InstrumentInfo) -> Instrument:
    tick = step_size("priceFilter.tickSize", row.priceFilter.tickSize)
    sizes = row.lotSizeFilter
    lot = step_size("lotSizeFilter.qtyStep", sizes.qtyStep or sizes.basePrecision)
    venue_kind = row.contractType or "spot"
    kind = _KINDS.get(venue_kind, InstrumentKind.UNKNOWN)
    state = _STATES.get(row.status, InstrumentState.UNKNOWN)
    is_dated = kind is InstrumentKind.FUTURE
    if is_dated and state is InstrumentState.DELISTED:
        state = InstrumentState.EXPIRED
    return Instrument(
        venue=venue,
        symbol=row.symbol,
        price_decimals=decimals_of(tick),
        qty_decimals=decimals_of(lot),
        base=row.baseCoin,
        quote=row.quoteCoin,
        tick_size=tick,
        lot_size=lot,
        status=row.status,
        state=state,
        kind=kind,
        venue_kind=venue_kind,
        settle=row.settleCoin or row.quoteCoin,
        contract_unit=unit,
        listed_ns=_date_ns(row.launchTime),
        delivery_ns=_date_ns(row.deliveryTime) if is_dated else 0,
    )


def _date_ns(text: str) -> int:
    return int(text or 0) * NS_PER_MS


def _topic(word: str) -> Callable[[str, VenueSettings], str]:
    return lambda symbol, _: f"{word}.{symbol}"


def _book_topic(symbol: str, settings: VenueSettings) -> str:
    return f"{settings.book_channel or BOOK_CHANNELS[0]}.{symbol}"


_MARKET: Final[Mapping[tuple[StreamKind, Transport], Channel]] = {
    (StreamKind.TRADES, Transport.WS): Channel("ws", UnorderedTrades, _topic("publicTrade"), 300.0),
    (StreamKind.L2_BOOK, Transport.WS): Channel(
        "ws", PushedBook, _book_topic, 60.0, book=BookRule(by_one)
    ),
    # Every 10 ms where it changes, and repeated after three idle seconds.
    (StreamKind.TICKER, Transport.WS): Channel("ws", Quotes, _topic("orderbook.1"), 60.0),
}
_CONTRACT_NOTE: Final = "funding and open interest in one stream"


def _contracts(category: str) -> Mapping[tuple[StreamKind, Transport], Channel | PollChannel]:
    """What contracts have beside trades and book."""
    tickers = f"/v5/market/tickers?category={category}"
    return {
        # Ten times a second, what has changed; a mark price does at least every few seconds.
        (StreamKind.FUNDING_OPEN_INTEREST, Transport.WS): Channel(
            "ws", FundingOpenInterest, _topic("tickers"), 30.0, _CONTRACT_NOTE
        ),
        (StreamKind.FUNDING_OPEN_INTEREST, Transport.HTTP_POLL): PollChannel(
            CONTRACT,
            decode_contracts,
            interval_s=10.0,
            stale_after_s=60.0,
            call=RestCall("GET", f"{tickers}&symbol={{symbol}}", weight=1),
            batch=RestCall("GET", tickers, weight=1),
            note=_CONTRACT_NOTE,
            has_venue_time=False,
        ),
        (StreamKind.LIQUIDATIONS, Transport.WS): Channel(
            "ws",
            Liquidations,
            _topic("allLiquidation"),
            math.inf,
            note="prices are those of bankruptcy; average prices are not told",
        ),
    }


def _venue(category: str, unit: SizeUnit, examples: tuple[str, ...]) -> Venue:
    channels: dict[tuple[StreamKind, Transport], Channel | PollChannel] = {**_MARKET}
    if category != "spot":
        channels |= _contracts(category)
    fed = {channel.feed for channel in channels.values()}
    return Venue(
        name=f"bybit_{category}",
        rest_url="https://api.bybit.com",
        ws_url="wss://stream.bybit.com",
        groups={
            "ws": SocketGroup(
                path=f"/v5/public/{category}",
                # The names of all topics of a socket may have 21,000 characters.
                streams_per_connection=200,
                # More are refused on spot; elsewhere one bad topic has the whole request refused.
                topics_per_message=10,
                message_interval_s=0.1,
                idle_timeout_s=40.0,
                lifetime_s=24 * 3600.0,
                refuses_repeats=True,
                json_ping=b'{"op":"ping"}',
                ping_interval_s=20.0,
            )
        },
        channels=channels,
        # An address has 600 calls in 5 s and 500 handshakes in 5 minutes for all categories: a
        # third each. Sockets are counted by category.
        limits=(
            Limit(REST_WEIGHT, 200, 5.0),
            Limit(CONNECTS, 165, 300.0),
            Places(SOCKETS, 1000),
        ),
        too_often=(b'"retCode":10006,', b'"retCode":10018,', b"Too many visits"),
        subscribe=subscribe,
        unsubscribe=unsubscribe,
        open_decoder=open_decoder,
        tag="topic",
        shapes=tuple(shape for shape in SHAPES if shape.feed in fed),
        listing=_listing(category, unit),
        examples=examples,
        options={"book_channel": BOOK_CHANNELS},
    )


LINEAR: Final = _venue("linear", SizeUnit.BASE, ("BTCUSDT", "ETHUSDT"))
INVERSE: Final = _venue("inverse", SizeUnit.QUOTE, ("BTCUSD", "ETHUSD"))
SPOT: Final = _venue("spot", SizeUnit.BASE, ("BTCUSDT", "ETHUSDT"))
