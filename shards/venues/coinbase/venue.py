"""What Advanced Trade is: addresses, limits, channels, calls."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.pushed.rules import BookRule, by_previous
from shards.feeds.pushed.timed import UnchainedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.coinbase.decode import (
    FUNDING,
    SHAPES,
    TRADE_SIDES,
    configured_decoder,
    decode_funding,
)
from shards.venues.coinbase.messages import FutureTerms, Product, Products, TypedProduct
from shards.venues.digits import decimals_of
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    REST_WEIGHT,
    Channel,
    Limit,
    ListingCalls,
    PollChannel,
    RestCall,
    SocketGroup,
    Venue,
)
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import ns_of

_PRODUCTS: Final = "/api/v3/brokerage/market/products"
_products = RowReader(Product, "product_id")
_decode_products = msgspec.json.Decoder(Products).decode
_decode_typed = msgspec.json.Decoder(TypedProduct).decode
_STATES: Final = {
    "online": InstrumentState.TRADING,
    "": InstrumentState.TRADING,
    "offline": InstrumentState.HALTED,
    "delisted": InstrumentState.DELISTED,
}
"""The status of futures is empty."""
_HALTS: Final = (
    "is_disabled", "trading_disabled", "view_only", "cancel_only", "post_only", "auction_mode",
)  # fmt: skip


def parse_products(body: bytes) -> Listing:
    """Products of one type."""
    return _products.read(_decode_products(body).products, _instrument)


def futures_after_spot(body: bytes) -> RestCall | None:
    """Futures are asked for apart, once spot products have come."""
    products = _decode_products(body).products
    is_spot = bool(products) and _decode_typed(products[0]).product_type == "SPOT"
    return RestCall("GET", f"{_PRODUCTS}?product_type=FUTURE", weight=1) if is_spot else None


def _instrument(row: Product) -> Instrument:
    if row.alias:
        raise ValueError(f"alias: another name of {row.alias}, under which its data comes")
    tick = step_size("price_increment", row.price_increment)
    lot = step_size("base_increment", row.base_increment)
    terms = row.future_product_details
    kind = _kind(terms) if row.product_type == "FUTURE" else _spot_kind(row.product_type)
    expiry = terms.contract_expiry if terms and kind is InstrumentKind.FUTURE else None
    halts = [name for name in _HALTS if getattr(row, name)]
    state = _STATES.get(row.status, InstrumentState.UNKNOWN)
    return Instrument(
        venue=VENUE.name,
        symbol=row.product_id,
        price_decimals=decimals_of(tick),
        qty_decimals=decimals_of(lot),
        base=row.base_currency_id or (terms.contract_root_unit if terms else ""),
        quote=row.quote_currency_id,
        tick_size=tick,
        lot_size=lot,
        contract_size=step_size("contract_size", terms.contract_size) if terms else "1",
        status=" ".join(filter(None, [row.status, *halts])),
        state=InstrumentState.HALTED if halts and state is InstrumentState.TRADING else state,
        kind=kind,
        venue_kind=(terms.contract_expiry_type if terms else "") or row.product_type,
        settle=row.quote_currency_id,
        contract_unit=SizeUnit.BASE,
        listed_ns=_ns_or_none(row.new_at),
        delivery_ns=_ns_or_none(expiry),
    )


def _spot_kind(product_type: str) -> InstrumentKind:
    return InstrumentKind.SPOT if product_type == "SPOT" else InstrumentKind.UNKNOWN


def _kind(terms: FutureTerms | None) -> InstrumentKind:
    if terms is None:
        return InstrumentKind.UNKNOWN
    is_perpetual = terms.contract_expiry_type == "PERPETUAL" or terms.funding_interval
    return InstrumentKind.PERPETUAL if is_perpetual else InstrumentKind.FUTURE


def _ns_or_none(at: datetime | None) -> int:
    return 0 if at is None else ns_of(at)


def _topic(channel: str, symbol: str) -> str:
    return f"{channel}:{symbol}"


def _say(word: str, topics: Sequence[str]) -> list[bytes]:
    """One frame a channel."""
    products: dict[str, list[str]] = {}
    for topic in topics:
        channel, _, symbol = topic.partition(":")
        products.setdefault(channel, []).append(symbol)
    return [
        msgspec.json.encode({"type": word, "product_ids": symbols, "channel": channel})
        for channel, symbols in products.items()
    ]


def _greet(_: VenueSettings) -> Sequence[bytes]:
    return [b'{"type":"subscribe","channel":"heartbeats"}']


VENUE: Final = Venue(
    name="coinbase",
    rest_url="https://api.coinbase.com",
    ws_url="wss://advanced-trade-ws.coinbase.com",
    groups={
        "ws": SocketGroup(
            path="/",
            # The venue says nothing of a limit; its snapshots are large.
            streams_per_connection=100,
            topics_per_message=50,
            # Eight messages a second of all sockets, which share a budget of their own.
            message_interval_s=0.15,
            # Heartbeats come once a second.
            idle_timeout_s=15.0,
            ping_interval_s=5.0,
            lifetime_s=24 * 3600.0,
            refuses_repeats=True,
            greet=_greet,
        )
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel(
            "ws", ContiguousTrades, lambda symbol, _: _topic("market_trades", symbol), 3600.0
        ),
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            "ws", UnchainedBook, lambda symbol, _: _topic("level2", symbol), 300.0,
            book=BookRule(by_previous),
        ),
        (StreamKind.TICKER, Transport.WS): Channel(
            "ws", Quotes, lambda symbol, _: _topic("ticker", symbol), 3600.0,
            note="the best bid and offer at each trade, not at each change",
        ),
        (StreamKind.FUNDING_OPEN_INTEREST, Transport.HTTP_POLL): PollChannel(
            FUNDING,
            decode_funding,
            interval_s=10.0,
            stale_after_s=60.0,
            call=RestCall("GET", f"{_PRODUCTS}/{{symbol}}", weight=1),
            note="of perpetual futures; funding and open interest in one stream",
            has_venue_time=False,
        ),
    },
    limits=(
        Limit(REST_WEIGHT, 10, 1.0),
        Limit(CONNECTS, 8, 1.0),
        Limit(MESSAGES, 8, 1.0),
    ),
    too_often=(b"rate limit exceeded",),
    subscribe=lambda topics, _: _say("subscribe", topics),
    unsubscribe=lambda topics, _: _say("unsubscribe", topics),
    open_decoder=configured_decoder(VenueSettings()),
    configured_decoder=configured_decoder,
    tag="channel",
    shapes=SHAPES,
    listing=ListingCalls(
        RestCall("GET", f"{_PRODUCTS}?product_type=SPOT", weight=1),
        parse_products,
        futures_after_spot,
    ),
    examples=("BTC-USD", "ETH-USD"),
    options={"trade_side": TRADE_SIDES},
)  # fmt: skip
