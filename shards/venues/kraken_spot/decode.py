"""Kraken spot frames into feeds."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed.timed import UnnumberedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.json_parts import members_named
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
from shards.venues.wire import NS_PER_US, ns_of

_Frame = Trades | Books | Ticker | Status | Heartbeat
_SIDE: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}
_IS_SO: Final = ("Already subscribed", "Subscription Not Found")
_LATE_US: Final = 60_000_000
"""A message is not older by more than this than the one before it, but by another clock."""
_UNKNOWN_PAIR: Final = "Currency pair not supported"


def _time_of(said: Trade | Book | Quote) -> int | None:
    return ns_of(said.timestamp) if said.timestamp else None


SHAPES: Final = (
    Shape(
        ContiguousTrades, Trade, "trade", ("data",), is_list=True,
        symbol="symbol", seq="trade_id", time="timestamp", check=_time_of,
    ),
    Shape(
        UnnumberedBook, Book, "book", ("data",), is_list=True,
        symbol="symbol", time="timestamp", levels=members_named("bids", "asks"), check=_time_of,
    ),
    Shape(
        Quotes, Quote, "ticker", ("data",), is_list=True,
        symbol="symbol", time="timestamp", check=_time_of,
    ),
)  # fmt: skip

_decode_reply = msgspec.json.Decoder(Reply).decode


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    decode = msgspec.json.Decoder(_Frame, strict=False).decode
    trades = feeds.of(ContiguousTrades)
    on_books, on_quotes = _BookTaker(feeds).take, _QuoteTaker(feeds).take

    def on_frame(payload: bytes, ts_recv: int) -> None:
        try:
            message = decode(payload)
        except msgspec.ValidationError:
            if not _on_reply(payload, talk):
                raise
            return
        if type(message) is Trades:
            _on_trades(message, trades, ts_recv)
        elif type(message) is Books:
            on_books(message, ts_recv)
        elif type(message) is Ticker:
            on_quotes(message.data, ts_recv)

    return on_frame


class _Moments:
    """The times of one socket's messages, by symbol, and numbers made of them: µs that never go
    back, for messages count in the order in which they come, whatever they say of their time. One
    that says none is of the µs after the one before it, or of its receipt if that is later.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def of(self, symbol: str, timestamp: datetime | None, ts_recv: int) -> tuple[int, int]:
        """(number, time in ns) of the next message."""
        last = self._last.get(symbol, 0)
        at = ns_of(timestamp) if timestamp else max((last + 1) * NS_PER_US, ts_recv)
        number = at // NS_PER_US
        if last - _LATE_US < number < last:
            number = last
        self._last[symbol] = number
        return number, at


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
    sides, ready = _SIDE, []
    for row in rows:
        if row.symbol != symbol:
            raise MalformedFrameError("mixed_coins")
        ready.append((row, ns_of(row.timestamp)))
    for row, at in ready:
        take(row.trade_id, sides[row.side], at, ts_recv, row.price, row.qty)


class _BookTaker:
    """Books of one socket. A whole one without a time has no number (`UnnumberedBook` waits for the
    first change after it).
    """

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds.of(UnnumberedBook)
        self._moments = _Moments()

    def take(self, message: Books, ts_recv: int) -> None:
        """Deliver a message."""
        is_whole, books = message.type == "snapshot", []
        for book in message.data:
            feed = self._feeds.get(book.symbol)
            if feed is None:
                raise UntakenError(book.symbol, UnnumberedBook)
            number, at = 0, ts_recv
            if book.timestamp or not is_whole:
                number, at = self._moments.of(book.symbol, book.timestamp, ts_recv)
            books.append((feed, book, number, at))
        for feed, book, number, at in books:
            bids = [(level.price, level.qty) for level in book.bids]
            asks = [(level.price, level.qty) for level in book.asks]
            event = BookEvent(number, 0, at, ts_recv, bids, asks, is_whole)
            feed.on_event(event, book.checksum)


class _QuoteTaker:
    """Quotes of one socket."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds.of(Quotes)
        self._moments = _Moments()

    def take(self, rows: Sequence[Quote], ts_recv: int) -> None:
        """Deliver a message."""
        quotes = []
        for row in rows:
            feed = self._feeds.get(row.symbol)
            if feed is None:
                raise UntakenError(row.symbol, Quotes)
            times = self._moments.of(row.symbol, row.timestamp, ts_recv)
            quotes.append((feed, times, (row.bid, row.bid_qty, row.ask, row.ask_qty)))
        for feed, (number, at), content in quotes:
            feed.on_quote(number, at, ts_recv, content)


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
