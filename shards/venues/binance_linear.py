"""Binance USD-M linear futures.

Since 2026-04 a socket belongs to one category: book data on `/public`, trades on `/market`. A
subscription on the wrong one is acknowledged and stays silent. Aggregate trade ids (`a`) grow by
one per symbol; depth events chain by `pu` (previous `u` of this stream); times are milliseconds.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from engine.catalog import Instrument, StreamKind
from engine.records import Side
from engine.settings import VenueSettings
from shards.book_feeds import DeltaBook
from shards.book_rows import BookEvent
from shards.stream import MalformedFrameError
from shards.venues.spec import (
    BookSnapshot,
    Channel,
    Control,
    ControlHandler,
    FeedRule,
    Feeds,
    FrameDecoder,
    RestCall,
    SocketGroup,
    Venue,
    decimals_of,
)
from shards.venues.wire import NS_PER_MS, Id, Millis, Price, Quantity, TradeQuantity

WireLevel = tuple[Price, Quantity]


class AggTrade(Struct, tag_field="e", tag="aggTrade", gc=False):
    """`<symbol>@aggTrade`. `m`: the buyer was the maker, so the taker sold."""

    s: str
    a: Id
    p: Price
    q: TradeQuantity
    T: Millis
    m: bool


class DepthUpdate(Struct, tag_field="e", tag="depthUpdate", gc=False):
    """`<symbol>@depth`: update ids U to u, absolute quantities, zero removes."""

    s: str
    T: Millis
    U: Id
    u: Id
    pu: Id
    b: list[WireLevel]
    a: list[WireLevel]


class Reply(Struct, gc=False):
    """Anything without data: acknowledgement, refusal (two shapes exist), announcement."""

    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    code: int | None = None
    msg: str = ""
    error: "Refusal | None" = None
    e: str = ""


class Refusal(Struct, gc=False):
    """The inner error object."""

    code: int
    msg: str


class Depth(Struct, gc=False):
    """`GET /fapi/v1/depth`."""

    lastUpdateId: Id
    bids: list[WireLevel]
    asks: list[WireLevel]
    T: Millis = 0


class Filter(Struct, gc=False):
    """A member of `filters`; only two kinds matter here."""

    filterType: str
    tickSize: str = ""
    stepSize: str = ""


class Symbol(Struct, gc=False):
    """A member of `exchangeInfo.symbols`."""

    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[Filter]


class ExchangeInfo(Struct, gc=False):
    """`GET /fapi/v1/exchangeInfo`."""

    symbols: list[Symbol]


_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_depth = msgspec.json.Decoder(Depth, strict=False).decode
_decode_exchange_info = msgspec.json.Decoder(ExchangeInfo).decode


def build_decoder(feeds: Feeds, on_control: ControlHandler) -> FrameDecoder:
    """Decoder of raw-mode frames of either socket group."""
    decode = msgspec.json.Decoder(AggTrade | DepthUpdate, strict=False).decode
    trade_feed = feeds.contiguous_trades.get
    book_feed = feeds.delta_books.get
    buy, sell = int(Side.BUY), int(Side.SELL)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        try:
            message = decode(payload)
        except msgspec.ValidationError:
            if not _on_reply(payload, on_control):
                raise
            return
        if type(message) is AggTrade:
            trades = trade_feed(message.s)
            if trades is None:
                raise MalformedFrameError("not_subscribed")
            side = sell if message.m else buy
            ts_event = message.T * NS_PER_MS
            trades.on_trade(message.a, side, ts_event, ts_recv, message.p, message.q)
        elif type(message) is DepthUpdate:
            _on_depth(message, book_feed(message.s), ts_recv)

    return on_frame


def _on_depth(message: DepthUpdate, book: DeltaBook | None, ts_recv: int) -> None:
    if book is None:
        raise MalformedFrameError("not_subscribed")
    event = BookEvent(message.u, message.pu, message.T * NS_PER_MS, ts_recv, message.b, message.a)
    book.on_event(message.U, event)


def _on_reply(payload: bytes, on_control: ControlHandler) -> bool:
    """Handle a frame that is not data; False when it is none of these either."""
    reply = _decode_reply(payload)
    if reply.e == "serverShutdown":
        on_control(Control.CLOSING, "the venue announced a shutdown")
    elif reply.e:
        return False
    elif reply.error is not None or reply.code is not None:
        text = reply.error.msg if reply.error else reply.msg
        on_control(Control.REFUSED, text)
    elif reply.id is not None:
        on_control(Control.ACK, str(reply.id))
    else:
        return False
    return True


def subscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [msgspec.json.encode({"method": "SUBSCRIBE", "params": topics, "id": request_id})]


def unsubscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    return [msgspec.json.encode({"method": "UNSUBSCRIBE", "params": topics, "id": request_id})]


def parse_instruments(body: bytes) -> Mapping[str, Instrument]:
    """Instruments by symbol. `pricePrecision` is not the tick: the filters are."""
    instruments = {}
    for symbol in _decode_exchange_info(body).symbols:
        sizes = {f.filterType: f.tickSize or f.stepSize for f in symbol.filters}
        tick, lot = sizes.get("PRICE_FILTER", "0.01"), sizes.get("LOT_SIZE", "0.001")
        instruments[symbol.symbol] = Instrument(
            venue=VENUE.name,
            symbol=symbol.symbol,
            price_decimals=decimals_of(tick),
            qty_decimals=decimals_of(lot),
            base=symbol.baseAsset,
            quote=symbol.quoteAsset,
            tick_size=tick,
            lot_size=lot,
            status=symbol.status,
        )
    return instruments


def parse_book_snapshot(body: bytes) -> BookSnapshot:
    """`/fapi/v1/depth`; `T` is the matching engine's time of the snapshot."""
    depth = _decode_depth(body)
    return BookSnapshot(depth.lastUpdateId, depth.T * NS_PER_MS, depth.bids, depth.asks)


def _trades_topic(symbol: str, _: VenueSettings) -> str:
    return f"{symbol.lower()}@aggTrade"


def _book_topic(symbol: str, settings: VenueSettings) -> str:
    return f"{symbol.lower()}@{settings.book_channel or 'depth@100ms'}"


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
        StreamKind.TRADES: Channel("market", FeedRule.CONTIGUOUS_TRADES, _trades_topic, 300.0),
        StreamKind.L2_BOOK: Channel("public", FeedRule.DELTA_BOOK, _book_topic, 60.0),
    },
    rest_weight_per_minute=2400,
    used_weight_header="X-MBX-USED-WEIGHT-1M",
    connects_per_minute=60,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    build_decoder=build_decoder,
    instruments=RestCall("GET", "/fapi/v1/exchangeInfo", weight=1),
    parse_instruments=parse_instruments,
    book_snapshot=RestCall("GET", "/fapi/v1/depth?symbol={symbol}&limit=1000", weight=20),
    parse_book_snapshot=parse_book_snapshot,
)
