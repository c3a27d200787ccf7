"""Binance frames into feeds."""

from typing import Any, Final

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook
from shards.feeds.contracts import FundingRates, LiquidationRow, Liquidations
from shards.feeds.feed import UntakenError
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.binance.messages import (
    AggTrade,
    BookTicker,
    DepthUpdate,
    ForceOrder,
    LiquidationOrder,
    MarkPriceUpdate,
    Reply,
    SpotBookTicker,
    SpotDepthUpdate,
)
from shards.venues.digits import read_number
from shards.venues.elements import funding_row
from shards.venues.json_parts import members_named
from shards.venues.kit import Feeds, FrameDecoder, Shape, Talk
from shards.venues.wire import NS_PER_MS

_FuturesMessage = AggTrade | DepthUpdate | BookTicker | MarkPriceUpdate | ForceOrder
_SpotMessage = AggTrade | SpotDepthUpdate
_TYPED: Final = b'{"e":'
"""So begins what has a type. On spot, quotes have none."""
_SIDE = {"BUY": int(Side.BUY), "SELL": int(Side.SELL)}

_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_spot_quote = msgspec.json.Decoder(SpotBookTicker, strict=False).decode


_TRADE = Shape(ContiguousTrades, AggTrade, "aggTrade", symbol="s", seq="a", time="T")
FUTURES_SHAPES = (
    _TRADE,
    Shape(
        DeltaBook, DepthUpdate, "depthUpdate",
        symbol="s", seq="u", prev_seq="pu", time="T", levels=members_named("b", "a"),
    ),
    Shape(Quotes, BookTicker, "bookTicker", symbol="s", seq="u", time="T"),
    Shape(FundingRates, MarkPriceUpdate, "markPriceUpdate", symbol="s", time="E"),
    Shape(Liquidations, LiquidationOrder, "forceOrder", ("o",), symbol="s", time="T"),
)  # fmt: skip
SPOT_SHAPES = (
    _TRADE,
    Shape(
        DeltaBook,
        SpotDepthUpdate,
        "depthUpdate",
        symbol="s",
        seq="u",
        time="E",
        levels=members_named("b", "a"),
    ),
    Shape(Quotes, SpotBookTicker, symbol="s", seq="u"),
)


def open_futures(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of raw-mode frames of either socket group."""
    return _open(_FuturesMessage, feeds, talk)


def open_spot(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of raw-mode frames of spot: a quote is what has the members of one."""
    on_typed = _open(_SpotMessage, feeds, talk)
    quote_feed = feeds.of(Quotes).get

    def on_frame(payload: bytes, ts_recv: int) -> None:
        if payload.startswith(_TYPED):
            on_typed(payload, ts_recv)
            return
        try:
            message = _decode_spot_quote(payload)
        except msgspec.ValidationError:
            on_typed(payload, ts_recv)
            return
        quotes = quote_feed(message.s)
        if quotes is None:
            raise UntakenError(message.s, Quotes)
        content = (message.b, message.B, message.a, message.A)
        quotes.on_quote(message.u, ts_recv, ts_recv, content)

    return on_frame


def _open(messages: Any, feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of what has a type, one of `messages`, and of replies."""
    decode = msgspec.json.Decoder(
        messages, strict=False, dec_hook=read_number, float_hook=str
    ).decode
    trade_feed = feeds.of(ContiguousTrades).get
    quote_feed = feeds.of(Quotes).get
    book_feed = feeds.of(DeltaBook).get
    buy, sell = int(Side.BUY), int(Side.SELL)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        try:
            message = decode(payload)
        except msgspec.ValidationError:
            if not _on_reply(payload, talk):
                raise
            return
        kind = type(message)
        if kind is AggTrade:
            trades = trade_feed(message.s)
            if trades is None:
                raise UntakenError(message.s, ContiguousTrades)
            side = sell if message.m else buy
            ts_event = message.T * NS_PER_MS
            trades.on_trade(message.a, side, ts_event, ts_recv, message.p, message.q)
        elif kind is BookTicker:
            quotes = quote_feed(message.s)
            if quotes is None:
                raise UntakenError(message.s, Quotes)
            content = (message.b, message.B, message.a, message.A)
            quotes.on_quote(message.u, message.T * NS_PER_MS, ts_recv, content)
        elif kind is DepthUpdate:
            _on_depth(message, book_feed(message.s), ts_recv)
        elif kind is SpotDepthUpdate:
            _on_spot_depth(message, book_feed(message.s), ts_recv)
        else:
            _on_contract(message, feeds, ts_recv)

    return on_frame


def _on_depth(message: DepthUpdate, book: DeltaBook | None, ts_recv: int) -> None:
    if book is None:
        raise UntakenError(message.s, DeltaBook)
    event = BookEvent(message.u, message.pu, message.T * NS_PER_MS, ts_recv, message.b, message.a)
    book.on_event(message.U, event)


def _on_spot_depth(message: SpotDepthUpdate, book: DeltaBook | None, ts_recv: int) -> None:
    if book is None:
        raise UntakenError(message.s, DeltaBook)
    first_seq, at = message.U, message.E * NS_PER_MS
    book.on_event(first_seq, BookEvent(message.u, first_seq - 1, at, ts_recv, message.b, message.a))


def _on_contract(message: MarkPriceUpdate | ForceOrder, feeds: Feeds, ts_recv: int) -> None:
    if isinstance(message, MarkPriceUpdate):
        _on_mark_price(message, feeds.of(FundingRates).get(message.s), ts_recv)
    else:
        _on_force_order(message.o, feeds.of(Liquidations).get(message.o.s), ts_recv)


def _on_mark_price(message: MarkPriceUpdate, feed: FundingRates | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(message.s, FundingRates)
    row = funding_row(message.r, message.p, message.i, message.T * NS_PER_MS)
    feed.on_funding(message.E * NS_PER_MS, ts_recv, row)


def _on_force_order(order: LiquidationOrder, feed: Liquidations | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(order.s, Liquidations)
    row = LiquidationRow(
        order.T * NS_PER_MS, _SIDE[order.S], order.p, order.q, order.z,
        order.ap.value, order.ap.is_exact,
    )  # fmt: skip
    feed.on_liquidation(row, ts_recv)


def _on_reply(payload: bytes, talk: Talk) -> bool:
    """Handle a frame that is not data; False when it is none of these either."""
    reply = _decode_reply(payload)
    if reply.e == "serverShutdown":
        talk.closing("the venue announced a shutdown")
    elif reply.e:
        return False
    elif reply.error is not None or reply.code is not None:
        talk.refused(reply.error.msg if reply.error else reply.msg, reply.id)
    elif reply.id is not None:
        talk.acknowledged(reply.id)
    else:
        return False
    return True
