"""Deribit frames and answers into feeds."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent
from shards.feeds.contracts import FundingOpenInterest, LiquidationRow, Liquidations
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed.books import PushedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.deribit.messages import (
    Book,
    Head,
    Notification,
    Quote,
    Said,
    Ticker,
    Trade,
)
from shards.venues.digits import decoder
from shards.venues.elements import funding_row, take_one
from shards.venues.json_parts import members, members_named
from shards.venues.kit import Feeds, FrameDecoder, OnBadFrame, Shape, Talk
from shards.venues.wire import NS_PER_MS

GREETING_ID: Final = 0
"""Of the request whose answer ends the greeting; subscriptions are numbered from 1 on."""
OTHER_ID: Final = 2**31 - 1
"""Of requests whose answers matter to nobody."""
FUNDING_INTERVAL_S: Final = 8 * 3600
"""Funding accrues all the time; the rate is that of eight hours."""

_TEST: Final = b'{"jsonrpc":"2.0","id":%d,"method":"public/test","params":{}}' % OTHER_ID
_HEAD: Final = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"'
"""How notifications are written."""
_LETTER: Final = slice(len(_HEAD) + 1, len(_HEAD) + 2)
_PARTS: Final = {"trades": 3, "book": 3, "quote": 2, "ticker": 3}
"""Kinds of channels, and of how many parts their names are."""
_TRADES, _BOOK, _QUOTE, _TICKER = (word[1].encode() for word in _PARTS)
"""No two kinds have the same second letter."""
_SIDE: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}
_FORCED: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "T": {"buy": ("buy",), "sell": ("sell",)},
    "M": {"buy": ("sell",), "sell": ("buy",)},
    "MT": {"buy": ("buy", "sell"), "sell": ("sell", "buy")},
}
"""By mark and direction of a trade: the directions of the orders that were forced."""
_IS_TOO_SLOW: Final = "connection_too_slow"


def _previous(said: Book) -> int:
    """The id of what a book follows, 0 where it follows nothing."""
    if said.prev_change_id is None and said.type == "change":
        raise MalformedFrameError("schema")
    return said.prev_change_id or 0


_DATA: Final = ("params", "data")
SHAPES: Final = (
    Shape(
        ContiguousTrades, Trade, "trades.{symbol}.*", _DATA, is_list=True,
        seq="trade_seq", time="timestamp",
    ),
    Shape(
        Liquidations, Trade, "trades.{symbol}.*", _DATA, is_list=True,
        time="timestamp", where=("liquidation", None),
    ),
    Shape(
        PushedBook, Book, "book.{symbol}.*", _DATA,
        seq="change_id", prev_seq="prev_change_id", time="timestamp",
        levels=members_named("bids", "asks"), check=_previous,
    ),
    Shape(Quotes, Quote, "quote.{symbol}", _DATA, seq="timestamp", time="timestamp"),
    Shape(
        FundingOpenInterest, Ticker, "ticker.{symbol}.*", _DATA, time="timestamp", row_count=2
    ),
)  # fmt: skip
TICKER: Final = Shape(
    FundingOpenInterest, Ticker,
    path=("result",), symbol="instrument_name", time="timestamp", row_count=2,
)  # fmt: skip

_decode_head = msgspec.json.Decoder(Head).decode
_decode_trades = msgspec.json.Decoder(Notification[list[Trade]], strict=False).decode
_decode_book = msgspec.json.Decoder(Notification[Book], strict=False).decode
_decode_quote = msgspec.json.Decoder(Notification[Quote], strict=False).decode
_decode_ticker = decoder(Notification[Ticker])
_decode_said = msgspec.json.Decoder(Said).decode
_decode_topics = msgspec.json.Decoder(list[str]).decode
_decode_state = decoder(Ticker)


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    trades, forced = feeds.of(ContiguousTrades).get, feeds.of(Liquidations).get
    books, quotes = feeds.of(PushedBook).get, feeds.of(Quotes).get
    states = feeds.of(FundingOpenInterest).get

    def on_frame(payload: bytes, ts_recv: int) -> None:
        letter = payload[_LETTER] if payload.startswith(_HEAD) else _letter_in(payload)
        if letter == _TRADES:
            rows = _decode_trades(payload).params
            symbol = _symbol_in(rows.channel, "trades")
            _on_trades(rows.data, symbol, trades(symbol), forced(symbol), ts_recv)
        elif letter == _BOOK:
            book = _decode_book(payload).params
            symbol = _symbol_in(book.channel, "book")
            _on_book(book.data, symbol, books(symbol), ts_recv)
        elif letter == _QUOTE:
            quote = _decode_quote(payload).params
            symbol = _symbol_in(quote.channel, "quote")
            _on_quote(quote.data, symbol, quotes(symbol), ts_recv)
        elif letter == _TICKER:
            state = _decode_ticker(payload).params
            symbol = _symbol_in(state.channel, "ticker")
            _on_state(state.data, symbol, states(symbol), ts_recv)
        else:
            _on_said(_decode_said(payload), talk)

    return on_frame


def _letter_in(payload: bytes) -> bytes:
    """The second letter of a notification's channel, by which its kind is known; empty for any
    other message, or channel. This is the slow way, for messages that are not written as usual.
    """
    head = _decode_head(payload).params
    word = head.channel.partition(".")[0] if head is not None else ""
    return word[1].encode() if word in _PARTS else b""


@lru_cache(maxsize=4096)
def _symbol_in(channel: str, word: str) -> str:
    """The instrument of a channel of this kind. None of a channel's parts has a point in it."""
    found, *others = channel.split(".")
    if found != word or len(others) + 1 != _PARTS[word]:
        raise MalformedFrameError("schema")
    return others[0]


def _on_trades(
    rows: Sequence[Trade],
    symbol: str,
    trades: ContiguousTrades | None,
    forced: Liquidations | None,
    ts_recv: int,
) -> None:
    """Rows of both kinds, as far as they are wanted: they share their channel."""
    if trades is not None:
        for row in rows:
            ts_event = row.timestamp * NS_PER_MS
            side = _SIDE[row.direction]
            trades.on_trade(row.trade_seq, side, ts_event, ts_recv, row.price, row.amount)
    elif forced is None:
        raise UntakenError(symbol, ContiguousTrades, Liquidations)
    if forced is not None:
        for row in rows:
            if row.liquidation is not None:
                _on_forced(row, row.liquidation, forced, ts_recv)


def _on_forced(row: Trade, mark: str, forced: Liquidations, ts_recv: int) -> None:
    """One or both of a trade's orders closed a position that could not be kept."""
    for direction in _FORCED[mark][row.direction]:
        order = LiquidationRow(
            row.timestamp * NS_PER_MS, _SIDE[direction],
            row.price, row.amount, row.amount, row.price,
        )  # fmt: skip
        forced.on_liquidation(order, ts_recv, row.trade_seq)


def _on_book(said: Book, symbol: str, feed: PushedBook | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(symbol, PushedBook)
    previous = _previous(said)
    # Of a level that is deleted nothing is left.
    bids = [(price, 0.0 if word == "delete" else qty) for word, price, qty in said.bids]
    asks = [(price, 0.0 if word == "delete" else qty) for word, price, qty in said.asks]
    at, is_whole = said.timestamp * NS_PER_MS, said.type == "snapshot" or not previous
    feed.on_event(BookEvent(said.change_id, previous, at, ts_recv, bids, asks, is_whole))


def _on_quote(said: Quote, symbol: str, feed: Quotes | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(symbol, Quotes)
    content = (
        said.best_bid_price or 0.0, said.best_bid_amount or 0.0,
        said.best_ask_price or 0.0, said.best_ask_amount or 0.0,
    )  # fmt: skip
    feed.on_quote(said.timestamp, said.timestamp * NS_PER_MS, ts_recv, content)


def _on_state(said: Ticker, symbol: str, feed: FundingOpenInterest | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(symbol, FundingOpenInterest)
    rate, interest = said.current_funding, said.open_interest
    row = funding_row(rate, said.mark_price, said.index_price, 0, FUNDING_INTERVAL_S)
    feed.on_both(said.timestamp * NS_PER_MS, ts_recv, row, interest.value, interest.is_exact)


def _on_said(said: Said, talk: Talk) -> None:
    """What is no data."""
    if said.error is not None:
        error = said.error
        data = bytes(error.data)
        more = "" if data == b"null" else f" {data.decode()}"
        text = f"{error.message} ({error.code}){more}"
        if error.message == _IS_TOO_SLOW:
            talk.closing(text)
        else:
            talk.refused(text, said.id or None)
    elif bytes(said.result)[:1] == b"[":
        talk.acknowledged(said.id, _decode_topics(said.result))
    elif said.result:
        if said.id == GREETING_ID:
            talk.ready()
    elif said.method != "heartbeat" or said.params is None:
        raise MalformedFrameError("schema")
    elif said.params.type == "test_request":
        talk.answer(_TEST)


def decode_ticker(body: bytes, feeds: Feeds, ts_recv: int, _: OnBadFrame) -> None:
    """`public/ticker`, of one instrument."""

    def take(_: str | None, part: bytes) -> None:
        said = _decode_state(part)
        feed = feeds.of(FundingOpenInterest).get(said.instrument_name)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        _on_state(said, said.instrument_name, feed, ts_recv)

    result = members(body).get("result")
    if result is None:
        raise MalformedFrameError("schema")
    take_one(result, TICKER, feeds, ts_recv, take)
