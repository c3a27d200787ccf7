"""Hyperliquid perpetuals.

One socket serves everything. Books are whole snapshots without ids; trade ids are hashes, but the
first `trades` frame after a subscribe repeats the recent past. Subscribing a coin the venue does
not list drops the connection with everything on it, so only coins its `meta` names are subscribed.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from engine.catalog import Instrument, StreamKind
from engine.records import Side
from engine.settings import VenueSettings
from shards.book_rows import BookEvent
from shards.stream import MalformedFrameError
from shards.trade_feeds import TradeRow
from shards.venues.spec import (
    Channel,
    Control,
    ControlHandler,
    FeedRule,
    Feeds,
    FrameDecoder,
    RestCall,
    SocketGroup,
    Venue,
)
from shards.venues.wire import NS_PER_MS, Id, Millis, Price, Quantity, TradeQuantity

PERP_DECIMALS = 6
"""A perpetual's price has at most 6 - szDecimals decimals (and 5 significant figures)."""

_SIDE = {"B": int(Side.BUY), "A": int(Side.SELL)}


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
    isDelisted: bool = False


class MetaReply(Struct, gc=False):
    """`{"type": "meta"}`."""

    universe: list[Coin]


_Frame = Trades | L2Book | SubscriptionResponse | Error | Pong
_decode_meta = msgspec.json.Decoder(MetaReply).decode


def build_decoder(feeds: Feeds, on_control: ControlHandler) -> FrameDecoder:
    """Decoder of the one socket group."""
    decode = msgspec.json.Decoder(_Frame, strict=False).decode

    def on_frame(payload: bytes, ts_recv: int) -> None:
        if payload[:9] == b"Websocket":
            on_control(Control.GREETING, "")
            return
        message = decode(payload)
        if type(message) is Trades:
            _on_trades(message.data, feeds, ts_recv)
        elif type(message) is L2Book:
            _on_book(message.data, feeds, ts_recv)
        elif type(message) is SubscriptionResponse:
            on_control(Control.ACK, bytes(message.data).decode())
        elif type(message) is Error:
            on_control(Control.REFUSED, message.data)
        else:
            on_control(Control.PONG, "")

    return on_frame


def _on_trades(trades: list[Trade], feeds: Feeds, ts_recv: int) -> None:
    if not trades:
        return
    coin = trades[0].coin
    feed = feeds.history_trades.get(coin)
    if feed is None:
        raise MalformedFrameError("not_subscribed")
    side = _SIDE
    rows = [
        TradeRow(trade.tid, side[trade.side], trade.time * NS_PER_MS, trade.px, trade.sz)
        for trade in trades
        if trade.coin == coin
    ]
    if len(rows) != len(trades):
        raise MalformedFrameError("mixed_coins")
    feed.on_trades(rows, ts_recv)


def _on_book(book: Book, feeds: Feeds, ts_recv: int) -> None:
    feed = feeds.snapshot_books.get(book.coin)
    if feed is None:
        raise MalformedFrameError("not_subscribed")
    bids, asks = ([(level.px, level.sz) for level in side] for side in book.levels)
    feed.on_book(BookEvent(book.time, 0, book.time * NS_PER_MS, ts_recv, bids, asks))


def subscribe(topics: Sequence[str], _: int) -> list[bytes]:
    """One frame a topic: arrays are refused. A topic is the subscription object as JSON."""
    return [b'{"method":"subscribe","subscription":%b}' % topic.encode() for topic in topics]


def unsubscribe(topics: Sequence[str], _: int) -> list[bytes]:
    """One frame a topic, with the same subscription object."""
    return [b'{"method":"unsubscribe","subscription":%b}' % topic.encode() for topic in topics]


def parse_instruments(body: bytes) -> Mapping[str, Instrument]:
    """Coins by name. There is no fixed tick; decimals follow from `szDecimals`."""
    return {
        coin.name: Instrument(
            venue=VENUE.name,
            symbol=coin.name,
            price_decimals=PERP_DECIMALS - coin.szDecimals,
            qty_decimals=coin.szDecimals,
            base=coin.name,
            quote="USDC",
            lot_size=f"{10.0**-coin.szDecimals:.{coin.szDecimals}f}",
            status="DELISTED" if coin.isDelisted else "TRADING",
        )
        for coin in _decode_meta(body).universe
    }


def _trades_topic(symbol: str, _: VenueSettings) -> str:
    return msgspec.json.encode({"type": "trades", "coin": symbol}).decode()


def _book_topic(symbol: str, settings: VenueSettings) -> str:
    subscription: dict[str, str | bool] = {"type": "l2Book", "coin": symbol}
    if settings.book_channel == "fast":
        subscription["fast"] = True
    return msgspec.json.encode(subscription).decode()


VENUE = Venue(
    name="hyperliquid_perp",
    rest_url="https://api.hyperliquid.xyz",
    ws_url="wss://api.hyperliquid.xyz",
    groups={
        "ws": SocketGroup(
            path="/ws",
            # 1000 subscriptions over at most 10 sockets per address.
            streams_per_connection=200,
            topics_per_message=1,
            # 2000 messages a minute over all sockets, which share a budget of their own.
            message_interval_s=0.02,
            idle_timeout_s=60.0,
            lifetime_s=7 * 24 * 3600.0,
            json_ping=b'{"method":"ping"}',
            ping_interval_s=30.0,
        )
    },
    channels={
        StreamKind.TRADES: Channel("ws", FeedRule.HISTORY_TRADES, _trades_topic, 300.0),
        StreamKind.L2_BOOK: Channel("ws", FeedRule.SNAPSHOT_BOOK, _book_topic, 30.0),
    },
    rest_weight_per_minute=1200,
    connects_per_minute=25,
    messages_per_minute=2000,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    build_decoder=build_decoder,
    instruments=RestCall("POST", "/info", weight=20, body='{"type":"meta"}'),
    parse_instruments=parse_instruments,
)
