"""Hyperliquid frames and answers into feeds."""

from collections.abc import Mapping, Sequence

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import SnapshotBook
from shards.feeds.contracts import FundingOpenInterest
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.quotes import Quotes
from shards.feeds.trades import HistoryTrades, TradeRow
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.digits import decoder, read_number
from shards.venues.elements import funding_row, take_parts
from shards.venues.hyperliquid.messages import (
    ActiveAssetCtx,
    AssetCtx,
    Bbo,
    BestBidOffer,
    Book,
    CoinCtx,
    Error,
    L2Book,
    MetaAndAssetCtxs,
    Named,
    Pong,
    SubscriptionResponse,
    Trade,
    Trades,
)
from shards.venues.json_parts import elements, members, text_of
from shards.venues.kit import (
    Feeds,
    FrameDecoder,
    OnBadFrame,
    Shape,
    Talk,
)
from shards.venues.wire import NS_PER_MS

FUNDING_INTERVAL_S = 3600
"""Funding is paid every hour; the message does not tell when the next hour is over."""

_SIDE = {"B": int(Side.BUY), "A": int(Side.SELL)}
_IS_SO = ("Already subscribed", "Already unsubscribed")
"""Errors that say that what was asked for is so."""
_NO_ORDER = (0.0, 0.0)

_Frame = Trades | L2Book | Bbo | ActiveAssetCtx | SubscriptionResponse | Error | Pong
_decode_ctx = decoder(AssetCtx)
_decode_named = msgspec.json.Decoder(Named).decode
_decode_meta_and_ctxs = msgspec.json.Decoder(MetaAndAssetCtxs).decode


def _levels(said: Mapping[str, bytes]) -> list[bytes]:
    return elements(said.get("levels", b""))


SHAPES = (
    Shape(
        HistoryTrades, Trade, "trades", ("data",), is_list=True,
        symbol="coin", seq="tid", time="time",
    ),
    Shape(
        SnapshotBook, Book, "l2Book", ("data",),
        symbol="coin", seq="time", time="time", levels=_levels,
    ),
    Shape(
        Quotes, BestBidOffer, "bbo", ("data",), symbol="coin", seq="time", time="time"
    ),
    Shape(
        FundingOpenInterest, CoinCtx, "activeAssetCtx", ("data",),
        symbol="coin", row_count=2,
    ),
)  # fmt: skip
CTX = Shape(FundingOpenInterest, AssetCtx, row_count=2)


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    decode = msgspec.json.Decoder(_Frame, strict=False, dec_hook=read_number, float_hook=str).decode
    trades, books = feeds.of(HistoryTrades), feeds.of(SnapshotBook)
    quotes, ctxs = feeds.of(Quotes), feeds.of(FundingOpenInterest)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        if payload[:9] == b"Websocket":
            talk.ready()
            return
        message = decode(payload)
        if type(message) is Trades:
            _on_trades(message.data, trades, ts_recv)
        elif type(message) is Bbo:
            _on_bbo(message.data, quotes, ts_recv)
        elif type(message) is L2Book:
            _on_book(message.data, books, ts_recv)
        elif type(message) is ActiveAssetCtx:
            _on_ctx(message.data.coin, message.data.ctx, ctxs, ts_recv)
        elif type(message) is SubscriptionResponse or (
            type(message) is Error and message.data.startswith(_IS_SO)
        ):
            talk.acknowledged(None)
        elif type(message) is Error:
            talk.refused(message.data)

    return on_frame


def _on_trades(trades: list[Trade], feeds: Mapping[str, HistoryTrades], ts_recv: int) -> None:
    if not trades:
        return
    coin = trades[0].coin
    feed = feeds.get(coin)
    if feed is None:
        raise UntakenError(coin, HistoryTrades)
    side = _SIDE
    rows = [
        TradeRow(trade.tid, side[trade.side], trade.time * NS_PER_MS, trade.px, trade.sz)
        for trade in trades
        if trade.coin == coin
    ]
    if len(rows) != len(trades):
        raise MalformedFrameError("mixed_coins")
    feed.on_trades(rows, ts_recv)


def _on_book(book: Book, feeds: Mapping[str, SnapshotBook], ts_recv: int) -> None:
    feed = feeds.get(book.coin)
    if feed is None:
        raise UntakenError(book.coin, SnapshotBook)
    bids, asks = book.levels
    feed.on_book(
        BookEvent(
            book.time, 0, book.time * NS_PER_MS, ts_recv,
            [(level.px, level.sz) for level in bids], [(level.px, level.sz) for level in asks],
        )
    )  # fmt: skip


def _on_bbo(quote: BestBidOffer, feeds: Mapping[str, Quotes], ts_recv: int) -> None:
    feed = feeds.get(quote.coin)
    if feed is None:
        raise UntakenError(quote.coin, Quotes)
    bid, ask = quote.bbo
    content = (*((bid.px, bid.sz) if bid else _NO_ORDER), *((ask.px, ask.sz) if ask else _NO_ORDER))
    feed.on_quote(quote.time, quote.time * NS_PER_MS, ts_recv, content)


def _on_ctx(
    coin: str, ctx: AssetCtx, feeds: Mapping[str, FundingOpenInterest], ts_recv: int
) -> None:
    feed = feeds.get(coin)
    if feed is None:
        raise UntakenError(coin, FundingOpenInterest)
    row = funding_row(ctx.funding, ctx.markPx, ctx.oraclePx, 0, FUNDING_INTERVAL_S)
    said = ctx.openInterest
    feed.on_both(ts_recv, ts_recv, row, said.value, said.is_exact)


def decode_meta_and_ctxs(body: bytes, feeds: Feeds, ts_recv: int, on_bad_frame: OnBadFrame) -> None:
    """States of all coins. Like the socket's they carry no time: it is the one of receipt."""
    states = feeds.of(FundingOpenInterest)

    def take(coin: str | None, ctx: bytes) -> None:
        assert coin is not None
        _on_ctx(coin, _decode_ctx(ctx), states, ts_recv)

    names, ctxs = _names_and_ctxs(body)
    if len(names) != len(ctxs):
        raise MalformedFrameError("uneven_lists")
    take_parts(zip(names, ctxs, strict=True), CTX, feeds, ts_recv, on_bad_frame, take)


def _names_and_ctxs(body: bytes) -> tuple[Sequence[str | None], Sequence[bytes]]:
    """The coins in their order and the states in theirs; None for a name that cannot be read."""
    try:
        meta, ctxs = _decode_meta_and_ctxs(body)
    except BAD_FRAME:
        halves = elements(body)
        coins = elements(members(halves[0]).get("universe", b"")) if len(halves) == 2 else []
        names = [_name_of(coin) for coin in coins]
        if not any(names):
            raise
        return names, elements(halves[1])
    return [_name_of(coin) for coin in meta.universe], [bytes(ctx) for ctx in ctxs]


def _name_of(coin: bytes | msgspec.Raw) -> str | None:
    try:
        return _decode_named(coin).name
    except BAD_FRAME:
        return text_of(members(bytes(coin)).get("name"))
