"""Binance frames and answers into feeds."""

import msgspec

from engine.records import Side
from shards.book_feeds import DeltaBook
from shards.book_rows import BookEvent
from shards.contract_feeds import FundingRow, LiquidationRow
from shards.stream import MalformedFrameError
from shards.unusable import UNUSABLE_FRAME
from shards.venues.binance_linear.messages import (
    AggTrade,
    BookTicker,
    Depth,
    DepthUpdate,
    ForceOrder,
    FundingInfo,
    MarkPriceUpdate,
    Named,
    OpenInterest,
    PremiumIndex,
    Reply,
)
from shards.venues.listing import Readings, RowReader
from shards.venues.spec import (
    BookSnapshot,
    Control,
    ControlHandler,
    Feeds,
    FrameDecoder,
    OnUnusable,
)
from shards.venues.wire import NS_PER_MS

_Message = AggTrade | DepthUpdate | BookTicker | MarkPriceUpdate | ForceOrder
_SIDE = {"BUY": int(Side.BUY), "SELL": int(Side.SELL)}

_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_depth = msgspec.json.Decoder(Depth, strict=False).decode
_decode_premium_index = msgspec.json.Decoder(PremiumIndex, strict=False).decode
_decode_open_interest = msgspec.json.Decoder(OpenInterest, strict=False).decode
_decode_named = msgspec.json.Decoder(Named).decode
_funding_rows = RowReader(FundingInfo, "symbol")
_decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode


def build_decoder(feeds: Feeds, on_control: ControlHandler) -> FrameDecoder:
    """Decoder of raw-mode frames of either socket group."""
    decode = msgspec.json.Decoder(_Message, strict=False).decode
    trade_feed = feeds.contiguous_trades.get
    quote_feed = feeds.quotes.get
    book_feed = feeds.delta_books.get
    buy, sell = int(Side.BUY), int(Side.SELL)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        try:
            message = decode(payload)
        except msgspec.ValidationError:
            if not _on_reply(payload, on_control):
                raise
            return
        kind = type(message)
        if kind is AggTrade:
            trades = trade_feed(message.s)
            if trades is None:
                raise MalformedFrameError("not_subscribed")
            side = sell if message.m else buy
            ts_event = message.T * NS_PER_MS
            trades.on_trade(message.a, side, ts_event, ts_recv, message.p, message.q)
        elif kind is BookTicker:
            quotes = quote_feed(message.s)
            if quotes is None:
                raise MalformedFrameError("not_subscribed")
            content = (message.b, message.B, message.a, message.A)
            quotes.on_quote(message.u, message.T * NS_PER_MS, ts_recv, content)
        elif kind is DepthUpdate:
            _on_depth(message, book_feed(message.s), ts_recv)
        elif kind is MarkPriceUpdate:
            _on_mark_price(message, feeds, ts_recv)
        else:
            _on_force_order(message, feeds, ts_recv)

    return on_frame


def _on_depth(message: DepthUpdate, book: DeltaBook | None, ts_recv: int) -> None:
    if book is None:
        raise MalformedFrameError("not_subscribed")
    event = BookEvent(message.u, message.pu, message.T * NS_PER_MS, ts_recv, message.b, message.a)
    book.on_event(message.U, event)


def _on_mark_price(message: MarkPriceUpdate, feeds: Feeds, ts_recv: int) -> None:
    feed = feeds.funding.get(message.s)
    if feed is None:
        raise MalformedFrameError("not_subscribed")
    rate = None if message.r == "" else message.r
    row = FundingRow(rate, message.p, message.i, message.T * NS_PER_MS)
    feed.on_funding(message.E * NS_PER_MS, ts_recv, row)


def _on_force_order(message: ForceOrder, feeds: Feeds, ts_recv: int) -> None:
    order = message.o
    feed = feeds.liquidations.get(order.s)
    if feed is None:
        raise MalformedFrameError("not_subscribed")
    row = LiquidationRow(
        order.T * NS_PER_MS, _SIDE[order.S], order.p, order.q, order.z, order.ap
    )  # fmt: skip
    feed.on_liquidation(row, ts_recv)


def _on_reply(payload: bytes, on_control: ControlHandler) -> bool:
    """Handle a frame that is not data; False when it is none of these either."""
    reply = _decode_reply(payload)
    if reply.e == "serverShutdown":
        on_control(Control.CLOSING, "the venue announced a shutdown")
    elif reply.e:
        return False
    elif reply.error is not None or reply.code is not None:
        text = reply.error.msg if reply.error else reply.msg
        on_control(Control.REFUSED, text, reply.id)
    elif reply.id is not None:
        on_control(Control.ACK, str(reply.id))
    else:
        return False
    return True


def parse_book_snapshot(body: bytes) -> BookSnapshot:
    """`/fapi/v1/depth`; `T` is the matching engine's time of the snapshot."""
    depth = _decode_depth(body)
    return BookSnapshot(depth.lastUpdateId, depth.T * NS_PER_MS, depth.bids, depth.asks)


def decode_premium_index(body: bytes, feeds: Feeds, ts_recv: int, on_unusable: OnUnusable) -> None:
    """`/fapi/v1/premiumIndex`, of one symbol or of all."""
    if body.lstrip()[:1] != b"[":
        _on_premium_index(body, feeds, ts_recv)
        return
    for part in _decode_parts(body):
        try:
            # The answer names every symbol of the venue: what is wrong with others is not ours.
            if _decode_named(part).symbol in feeds.funding:
                _on_premium_index(part, feeds, ts_recv)
        except UNUSABLE_FRAME as error:
            on_unusable(error, bytes(part))


def _on_premium_index(part: bytes | msgspec.Raw, feeds: Feeds, ts_recv: int) -> None:
    state = _decode_premium_index(part)
    feed = feeds.funding.get(state.symbol)
    if feed is None:
        raise MalformedFrameError("not_subscribed")
    rate = None if state.lastFundingRate == "" else state.lastFundingRate
    row = FundingRow(rate, state.markPrice, state.indexPrice, state.nextFundingTime * NS_PER_MS)
    feed.on_funding(state.time * NS_PER_MS, ts_recv, row)


def parse_funding_intervals(body: bytes) -> Readings[int]:
    """`/fapi/v1/fundingInfo`: seconds by symbol."""
    return _funding_rows.read(_decode_parts(body), lambda row: row.fundingIntervalHours * 3600)


def decode_open_interest(body: bytes, feeds: Feeds, ts_recv: int, _: OnUnusable) -> None:
    """`/fapi/v1/openInterest`."""
    state = _decode_open_interest(body)
    feed = feeds.open_interest.get(state.symbol)
    if feed is None:
        raise MalformedFrameError("not_subscribed")
    feed.on_open_interest(state.time * NS_PER_MS, ts_recv, state.openInterest)
