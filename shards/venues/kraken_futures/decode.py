"""Kraken futures frames into feeds."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent
from shards.feeds.contracts import FundingOpenInterest, LiquidationRow, Liquidations
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed.books import PushedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.digits import read_number
from shards.venues.elements import funding_row
from shards.venues.json_parts import members_named
from shards.venues.kit import Feeds, FrameDecoder, Shape, Talk
from shards.venues.kraken_futures.messages import (
    BookChange,
    BookSnapshot,
    Event,
    Ticker,
    Trade,
    TradeSnapshot,
)
from shards.venues.wire import NS_PER_MS

FUNDING_INTERVAL_S: Final = 3600
"""Perpetuals pay every hour."""
FORCED: Final = "liquidation"
"""The type of a trade that closes a position by force."""

_Frame = Trade | TradeSnapshot | BookSnapshot | BookChange | Ticker
_SIDE: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}


SHAPES: Final = (
    Shape(
        ContiguousTrades, Trade, "trade_snapshot", ("trades",), is_list=True,
        symbol="product_id", seq="seq", time="time",
    ),
    Shape(ContiguousTrades, Trade, "trade", symbol="product_id", seq="seq", time="time"),
    Shape(Liquidations, Trade, "trade", symbol="product_id", time="time", where=("type", FORCED)),
    Shape(
        PushedBook, BookSnapshot, "book_snapshot",
        symbol="product_id", seq="seq", time="timestamp", levels=members_named("bids", "asks"),
    ),
    Shape(PushedBook, BookChange, "book", symbol="product_id", seq="seq", time="timestamp"),
    Shape(Quotes, Ticker, "ticker", symbol="product_id", time="time"),
    Shape(FundingOpenInterest, Ticker, "ticker", symbol="product_id", time="time", row_count=2),
)  # fmt: skip

_decode_event = msgspec.json.Decoder(Event).decode


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    decode = msgspec.json.Decoder(_Frame, strict=False, dec_hook=read_number, float_hook=str).decode
    trades, liquidations = feeds.of(ContiguousTrades), feeds.of(Liquidations)
    quotes, states = feeds.of(Quotes), feeds.of(FundingOpenInterest)
    books = feeds.of(PushedBook)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        try:
            message = decode(payload)
        except msgspec.ValidationError:
            if not _on_event(payload, talk):
                raise
            return
        if type(message) is BookChange:
            _on_change(message, books.get(message.product_id), ts_recv)
        elif type(message) is Trade:
            _on_trade(message, trades, liquidations, ts_recv)
        elif type(message) is Ticker:
            _on_ticker(message, quotes, states, ts_recv)
        elif type(message) is BookSnapshot:
            _on_snapshot(message, books.get(message.product_id), ts_recv)
        elif type(message) is TradeSnapshot:
            _on_past(message.trades, trades, liquidations, ts_recv)

    return on_frame


def _on_change(said: BookChange, feed: PushedBook | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(said.product_id, PushedBook)
    seq, level = said.seq, ((said.price, said.qty),)
    bids, asks = (level, ()) if said.side == "buy" else ((), level)
    before = seq - 1 if seq else 0
    feed.on_event(BookEvent(seq, before, said.timestamp * NS_PER_MS, ts_recv, bids, asks))


def _on_snapshot(said: BookSnapshot, feed: PushedBook | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(said.product_id, PushedBook)
    bids, asks = (
        [(level.price, level.qty) for level in side if level.qty] for side in (said.bids, said.asks)
    )
    at = said.timestamp * NS_PER_MS
    feed.on_event(BookEvent(said.seq, 0, at, ts_recv, bids, asks, is_snapshot=True))


def _on_trade(
    said: Trade,
    trades: Mapping[str, ContiguousTrades],
    liquidations: Mapping[str, Liquidations],
    ts_recv: int,
) -> None:
    """The feed brings both, whichever is wanted."""
    symbol, at, side = said.product_id, said.time * NS_PER_MS, _SIDE[said.side]
    feed, forced = trades.get(symbol), liquidations.get(symbol)
    if feed is not None:
        feed.on_trade(said.seq, side, at, ts_recv, said.price, said.qty)
    elif forced is None:
        raise UntakenError(symbol, ContiguousTrades, Liquidations)
    if forced is not None and said.type == FORCED:
        row = LiquidationRow(at, side, said.price, said.qty, said.qty, said.price)
        forced.on_liquidation(row, ts_recv, said.seq)


def _on_past(
    rows: Sequence[Trade],
    trades: Mapping[str, ContiguousTrades],
    liquidations: Mapping[str, Liquidations],
    ts_recv: int,
) -> None:
    """Liquidations of the past are left: a stream of them could not tell which it has."""
    if not rows:
        return
    symbol = rows[0].product_id
    if any(row.product_id != symbol for row in rows):
        raise MalformedFrameError("mixed_coins")
    feed = trades.get(symbol)
    if feed is None:
        if symbol not in liquidations:
            raise UntakenError(symbol, ContiguousTrades, Liquidations)
        return
    for row in sorted(rows, key=lambda row: row.seq):
        at = row.time * NS_PER_MS
        feed.on_past_trade(row.seq, _SIDE[row.side], at, ts_recv, row.price, row.qty)


def _on_ticker(
    said: Ticker,
    quotes: Mapping[str, Quotes],
    states: Mapping[str, FundingOpenInterest],
    ts_recv: int,
) -> None:
    """The feed brings both, whichever is wanted."""
    symbol, at = said.product_id, said.time * NS_PER_MS
    quote, state = quotes.get(symbol), states.get(symbol)
    if quote is None and state is None:
        raise UntakenError(symbol, Quotes, FundingOpenInterest)
    if quote is not None:
        quote.on_quote(said.time, at, ts_recv, (said.bid, said.bid_size, said.ask, said.ask_size))
    if state is not None:
        interval_s = 0 if said.relative_funding_rate is None else FUNDING_INTERVAL_S
        next_ts = (said.next_funding_rate_time or 0) * NS_PER_MS
        row = funding_row(
            said.relative_funding_rate, said.markPrice, said.index, next_ts, interval_s
        )
        interest = said.openInterest
        state.on_both(at, ts_recv, row, interest.value, interest.is_exact)


def _on_event(payload: bytes, talk: Talk) -> bool:
    """Handle a frame that is no data; False when it is none of these. Nothing names the request
    that is answered.
    """
    said = _decode_event(payload)
    if said.event in ("error", "alert"):
        talk.refused(said.message)
    elif said.event in ("subscribed", "unsubscribed"):
        talk.acknowledged(None)
    else:
        return said.event == "info"
    return True
