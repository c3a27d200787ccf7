"""Kraken spot frames into feeds."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed_books import UntoldBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.kit import Feeds, FrameDecoder, Shape, Talk
from shards.venues.kraken_spot.messages import (
    Book,
    Books,
    Heartbeat,
    Quote,
    Reply,
    Status,
    Ticker,
    Trade,
    Trades,
)
from shards.venues.wire import ns_of

_Frame = Trades | Books | Ticker | Status | Heartbeat
_SIDE: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}
_IS_SO: Final = ("Already subscribed", "Subscription Not Found")
_UNKNOWN_PAIR: Final = "Currency pair not supported"


def _levels(said: Mapping[str, bytes]) -> list[bytes]:
    return [said.get(side, b"") for side in ("bids", "asks")]


SHAPES: Final = (
    Shape(
        ContiguousTrades, Trade, "trade", ("data",), is_list=True,
        symbol="symbol", seq="trade_id", time="timestamp",
    ),
    Shape(
        UntoldBook, Book, "book", ("data",), is_list=True,
        symbol="symbol", time="timestamp", levels=_levels,
    ),
    Shape(Quotes, Quote, "ticker", ("data",), is_list=True, symbol="symbol", time="timestamp"),
)  # fmt: skip

_decode_reply = msgspec.json.Decoder(Reply).decode


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    decode = msgspec.json.Decoder(_Frame, strict=False).decode
    trades, quotes = feeds.of(ContiguousTrades), feeds.of(Quotes)
    books = feeds.of(UntoldBook)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        try:
            message = decode(payload)
        except msgspec.ValidationError:
            if not _on_reply(payload, talk):
                raise
            return
        if type(message) is Books:
            _on_books(message, books, ts_recv)
        elif type(message) is Trades:
            _on_trades(message, trades, ts_recv)
        elif type(message) is Ticker:
            _on_quotes(message.data, quotes, ts_recv)

    return on_frame


def _on_trades(message: Trades, feeds: Mapping[str, ContiguousTrades], ts_recv: int) -> None:
    """Of one pair. Nothing says in which order a snapshot is."""
    rows = message.data
    if not rows:
        return
    symbol = rows[0].symbol
    feed = feeds.get(symbol)
    if feed is None:
        raise UntakenError(symbol, ContiguousTrades)
    take = feed.on_trade
    if message.type == "snapshot":
        rows, take = sorted(rows, key=lambda row: row.trade_id), feed.on_past_trade
    times = [ns_of(row.timestamp) for row in rows if row.symbol == symbol]
    if len(times) != len(rows):
        raise MalformedFrameError("mixed_coins")
    for row, at in zip(rows, times, strict=True):
        take(row.trade_id, _SIDE[row.side], at, ts_recv, row.price, row.qty)


def _on_books(message: Books, feeds: Mapping[str, UntoldBook], ts_recv: int) -> None:
    events = []
    for book in message.data:
        feed = feeds.get(book.symbol)
        if feed is None:
            raise UntakenError(book.symbol, UntoldBook)
        at = ns_of(book.timestamp)
        bids = [(level.price, level.qty) for level in book.bids]
        asks = [(level.price, level.qty) for level in book.asks]
        event = BookEvent(at // 1000, 0, at, ts_recv, bids, asks, message.type == "snapshot")
        events.append((feed, event, book.checksum))
    for feed, event, checksum in events:
        feed.on_event(event, checksum)


def _on_quotes(rows: Sequence[Quote], feeds: Mapping[str, Quotes], ts_recv: int) -> None:
    quotes = []
    for row in rows:
        feed = feeds.get(row.symbol)
        if feed is None:
            raise UntakenError(row.symbol, Quotes)
        content = (row.bid, row.bid_qty, row.ask, row.ask_qty)
        quotes.append((feed, ns_of(row.timestamp), content))
    for feed, at, content in quotes:
        feed.on_quote(at // 1000, at, ts_recv, content)


def _on_reply(payload: bytes, talk: Talk) -> bool:
    """Handle a frame that is no data; False when it is no reply either. One request for several
    pairs has a reply for each; those that are not refused are subscribed.
    """
    reply = _decode_reply(payload)
    if reply.method not in ("subscribe", "unsubscribe", "pong"):
        return False
    if reply.success or reply.error.startswith(_IS_SO):
        if reply.method != "pong":
            talk.acknowledged(reply.req_id)
    elif reply.error.startswith(_UNKNOWN_PAIR) and reply.symbol:
        topics = [f"{channel} {reply.symbol}" for channel in ("trade", "book", "ticker")]
        talk.refused(reply.error, topics=topics)
    else:
        talk.refused(reply.error)
    return True
