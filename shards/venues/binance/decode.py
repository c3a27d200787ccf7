"""Binance frames and answers into feeds."""

from collections.abc import Mapping

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook
from shards.feeds.contracts import FundingRates, LiquidationRow, Liquidations, OpenInterestPoints
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.binance_linear.messages import (
    AggTrade,
    BookTicker,
    Depth,
    DepthUpdate,
    ForceOrder,
    FundingInfo,
    LiquidationOrder,
    MarkPriceUpdate,
    Named,
    OpenInterest,
    PremiumIndex,
    Reply,
)
from shards.venues.digits import decoder, read_number
from shards.venues.elements import funding_row, take_one, take_parts
from shards.venues.json_parts import elements, members, text_of
from shards.venues.kit import (
    BookSnapshot,
    Feeds,
    FrameDecoder,
    OnBadFrame,
    Shape,
    Talk,
)
from shards.venues.listing import Readings, RowReader
from shards.venues.wire import NS_PER_MS

_Message = AggTrade | DepthUpdate | BookTicker | MarkPriceUpdate | ForceOrder
_SIDE = {"BUY": int(Side.BUY), "SELL": int(Side.SELL)}

_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_depth = msgspec.json.Decoder(Depth, strict=False).decode
_decode_premium_index = decoder(PremiumIndex)
_decode_open_interest = decoder(OpenInterest)
_decode_named = msgspec.json.Decoder(Named).decode
_funding_rows = RowReader(FundingInfo, "symbol")
_decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _levels(said: Mapping[str, bytes]) -> list[bytes]:
    return [said.get(side, b"") for side in ("b", "a")]


SHAPES = (
    Shape(ContiguousTrades, AggTrade, "aggTrade", symbol="s", seq="a", time="T"),
    Shape(
        DeltaBook, DepthUpdate, "depthUpdate",
        symbol="s", seq="u", prev_seq="pu", time="T", levels=_levels,
    ),
    Shape(Quotes, BookTicker, "bookTicker", symbol="s", seq="u", time="T"),
    Shape(FundingRates, MarkPriceUpdate, "markPriceUpdate", symbol="s", time="E"),
    Shape(Liquidations, LiquidationOrder, "forceOrder", ("o",), symbol="s", time="T"),
)  # fmt: skip
PREMIUM_INDEX = Shape(FundingRates, PremiumIndex, symbol="symbol", time="time")
OPEN_INTEREST = Shape(OpenInterestPoints, OpenInterest, symbol="symbol", time="time")


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of raw-mode frames of either socket group."""
    decode = msgspec.json.Decoder(
        _Message, strict=False, dec_hook=read_number, float_hook=str
    ).decode
    trade_feed = feeds.of(ContiguousTrades).get
    quote_feed = feeds.of(Quotes).get
    book_feed = feeds.of(DeltaBook).get
    funding_feed = feeds.of(FundingRates).get
    liquidation_feed = feeds.of(Liquidations).get
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
        elif kind is MarkPriceUpdate:
            _on_mark_price(message, funding_feed(message.s), ts_recv)
        else:
            _on_force_order(message.o, liquidation_feed(message.o.s), ts_recv)

    return on_frame


def _on_depth(message: DepthUpdate, book: DeltaBook | None, ts_recv: int) -> None:
    if book is None:
        raise UntakenError(message.s, DeltaBook)
    event = BookEvent(message.u, message.pu, message.T * NS_PER_MS, ts_recv, message.b, message.a)
    book.on_event(message.U, event)


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


def parse_book_snapshot(body: bytes) -> BookSnapshot:
    """`/fapi/v1/depth`; `T` is the matching engine's time of the snapshot."""
    depth = _decode_depth(body)
    return BookSnapshot(depth.lastUpdateId, depth.T * NS_PER_MS, depth.bids, depth.asks)


def decode_premium_index(body: bytes, feeds: Feeds, ts_recv: int, on_bad_frame: OnBadFrame) -> None:
    """`/fapi/v1/premiumIndex`, of one symbol or of all."""

    def take(_: str | None, part: bytes) -> None:
        state = _decode_premium_index(part)
        feed = feeds.of(FundingRates).get(state.symbol)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        next_ts = state.nextFundingTime * NS_PER_MS
        row = funding_row(state.lastFundingRate, state.markPrice, state.indexPrice, next_ts)
        feed.on_funding(state.time * NS_PER_MS, ts_recv, row)

    if body.lstrip()[:1] == b"[":
        parts = [(_symbol_of(part), part) for part in _parts(body)]
        take_parts(parts, PREMIUM_INDEX, feeds, ts_recv, on_bad_frame, take)
    else:
        take_one(body, PREMIUM_INDEX, feeds, ts_recv, take)


def _parts(body: bytes) -> list[bytes]:
    try:
        return [bytes(part) for part in _decode_parts(body)]
    except BAD_FRAME:
        parts = elements(body)
        if not any(map(_symbol_of, parts)):
            raise
        return parts


def _symbol_of(part: bytes) -> str | None:
    try:
        return _decode_named(part).symbol
    except BAD_FRAME:
        return text_of(members(part).get("symbol"))


def parse_funding_intervals(body: bytes) -> Readings[int]:
    """`/fapi/v1/fundingInfo`: seconds by symbol."""
    return _funding_rows.read(_decode_parts(body), lambda row: row.fundingIntervalHours * 3600)


def decode_open_interest(body: bytes, feeds: Feeds, ts_recv: int, _: OnBadFrame) -> None:
    """`/fapi/v1/openInterest`."""

    def take(_: str | None, part: bytes) -> None:
        state = _decode_open_interest(part)
        feed = feeds.of(OpenInterestPoints).get(state.symbol)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        said = state.openInterest
        feed.on_open_interest(state.time * NS_PER_MS, ts_recv, said.value, said.is_exact)

    take_one(body, OPEN_INTEREST, feeds, ts_recv, take)
