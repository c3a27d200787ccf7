"""Frames and answers of Advanced Trade into feeds."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Final

import msgspec

from engine.data.flags import Side
from engine.messages.settings import VenueSettings
from shards.feeds.book_rows import BookEvent
from shards.feeds.contracts import FundingOpenInterest
from shards.feeds.feed import Feed, MalformedFrameError, UntakenError
from shards.feeds.pushed.timed import UnchainedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.coinbase.messages import (
    BestPrices,
    BookMessage,
    BookUpdates,
    FundedProduct,
    Heartbeats,
    MarketTrade,
    MarketTrades,
    Refusal,
    Subscriptions,
    TickerMessage,
    TradesEvent,
)
from shards.venues.digits import decoder
from shards.venues.elements import funding_row, take_one
from shards.venues.json_parts import id_of, members, members_named
from shards.venues.kit import Feeds, OnBadFrame, OpenDecoder, Shape, Talk
from shards.venues.wire import check_moment, ns_of

_Frame = MarketTrades | BookMessage | TickerMessage | Heartbeats | Subscriptions


SHAPES: Final = (
    Shape(
        ContiguousTrades, MarketTrade, "market_trades", ("events", "", "trades"), is_list=True,
        symbol="product_id", seq="trade_id", check=lambda row: ns_of(row.time),
    ),
    Shape(
        UnchainedBook, BookUpdates, "l2_data", ("events",), is_list=True,
        symbol="product_id", levels=members_named("updates"), check=BookUpdates.changed_ns,
    ),
    Shape(
        Quotes, BestPrices, "ticker", ("events", "", "tickers"), is_list=True, symbol="product_id"
    ),
)  # fmt: skip
FUNDING: Final = Shape(FundingOpenInterest, FundedProduct, symbol="product_id", row_count=2)

_decode = msgspec.json.Decoder(_Frame, strict=False).decode
_decode_refusal = msgspec.json.Decoder(Refusal).decode
_decode_funding = decoder(FundedProduct)
_trade_id = attrgetter("trade_id")
_BUY, _SELL, _NONE = int(Side.BUY), int(Side.SELL), int(Side.NONE)
_TAKER: Final = {
    "maker": {"BUY": _SELL, "SELL": _BUY},
    "taker": {"BUY": _BUY, "SELL": _SELL},
    "unknown": {"BUY": _NONE, "SELL": _NONE},
}
"""By whose side a trade's is."""
TRADE_SIDES: Final = tuple(_TAKER)
"""The first is what the venue means, as far as anybody knows; it does not say so."""


def configured_decoder(settings: VenueSettings) -> OpenDecoder:
    """With the meaning of a trade's side that was chosen."""
    taker = _TAKER[settings.trade_side or TRADE_SIDES[0]]
    return lambda feeds, talk: _SocketDecoder(feeds, talk, taker).on_frame


class _SocketDecoder:
    """Of one socket: what it has brought last, of each product and as a whole."""

    def __init__(self, feeds: Feeds, talk: Talk, taker: Mapping[str, int]) -> None:
        self._trades = feeds.of(ContiguousTrades).get
        self._books = feeds.of(UnchainedBook).get
        self._quotes = feeds.of(Quotes).get
        self._talk = talk
        self._taker = taker
        self._next_number = -1
        self._is_counted = True
        """Whether numbers are the socket's: they are not, if one goes back."""
        self._book_seq: dict[str, int] = {}
        self._quote_seq: dict[str, int] = {}

    def on_frame(self, payload: bytes, ts_recv: int) -> None:
        """Decode one message."""
        try:
            message = _decode(payload)
        except BAD_FRAME:
            if not self._on_refusal(payload):
                raise
            return
        number = message.sequence_num
        if number is not None:
            if number != self._next_number:
                self._say_lost(number)
            self._next_number = number + 1
        kind = type(message)
        if kind is MarketTrades:
            self._on_trades(message.events, ts_recv)
        elif kind is BookMessage:
            self._on_books(message, ts_recv)
        elif kind is TickerMessage:
            self._on_tickers(message, ts_recv)
        elif kind is Subscriptions:
            self._talk.ready()
            self._talk.acknowledged(None)

    def _on_refusal(self, payload: bytes) -> bool:
        """What is no message: an error, or one that cannot be read but has its number."""
        try:
            self._talk.refused(_decode_refusal(payload).message)
        except BAD_FRAME:
            if (number := id_of(members(payload).get("sequence_num"))) is not None:
                self._say_lost(number)
                self._next_number = number + 1
            return False
        return True

    def _say_lost(self, number: int) -> None:
        """Say what is missing before a message. Numbers that go back are not the socket's, and tell
        nothing: there are documents that say they are a product's.
        """
        expected = self._next_number
        if number < expected:
            self._is_counted = False
        elif number > expected >= 0 and self._is_counted:
            self._talk.lost(f"message {number} came after {expected - 1}")

    def _on_trades(self, events: Sequence[TradesEvent], ts_recv: int) -> None:
        if len(events) == 1:
            rows = events[0].trades
        else:
            rows = [row for event in events for row in event.trades]
        if len(rows) > 1:
            rows.sort(key=_trade_id)  # the recent ones come newest first
        feed_of, ready = self._trades, []
        for row in rows:
            feed = feed_of(row.product_id)
            if feed is None:
                raise _untaken(row.product_id, rows, ContiguousTrades)
            ready.append((row, feed, ns_of(row.time)))
        side_of, is_past = self._taker, bool(rows) and events[0].type == "snapshot"
        for row, feed, at in ready:
            take = feed.on_past_trade if is_past else feed.on_trade
            take(row.trade_id, side_of[row.side], at, ts_recv, row.price, row.size)

    def _on_books(self, message: BookMessage, ts_recv: int) -> None:
        feed_of, ready = self._books, []
        for event in message.events:
            feed, at = feed_of(event.product_id), event.changed_ns()
            if feed is None:
                raise _untaken(event.product_id, message.events, UnchainedBook)
            if at is None or event.type == "snapshot":
                at = _sent_ts(message.timestamp, ts_recv)
            ready.append((event, feed, at))
        for event, feed, at in ready:
            feed.on_event(self._book_event(event, at, ts_recv))

    def _book_event(self, event: BookUpdates, at: int, ts_recv: int) -> BookEvent:
        """An update is of the time of its last level. Those of a snapshot tell when each level came
        to be, if not 1970, and none when another was removed: it says no time.
        """
        updates, is_whole = event.updates, event.type == "snapshot"
        seq = 0 if is_whole else at // 1000
        prev_seq = 0 if is_whole else self._book_seq.get(event.product_id, seq)
        self._book_seq[event.product_id] = seq
        bids = [(each.price_level, each.new_quantity) for each in updates if each.side == "bid"]
        asks = [(each.price_level, each.new_quantity) for each in updates if each.side != "bid"]
        return BookEvent(seq, prev_seq, at, ts_recv, bids, asks, is_whole)

    def _on_tickers(self, message: TickerMessage, ts_recv: int) -> None:
        rows = [row for event in message.events for row in event.tickers]
        at, ready = _sent_ts(message.timestamp, ts_recv), []
        for row in rows:
            feed = self._quotes(row.product_id)
            if feed is None:
                raise _untaken(row.product_id, rows, Quotes)
            ready.append((row, feed))
        for row, feed in ready:
            last_seq = self._quote_seq.get(row.product_id, 0)
            seq = self._quote_seq[row.product_id] = max(at // 1000, last_seq + 1)
            content = row.best_bid, row.best_bid_quantity, row.best_ask, row.best_ask_quantity
            feed.on_quote(seq, at, ts_recv, content)


def _sent_ts(sent: datetime | None, ts_recv: int) -> int:
    """When a message was sent; where it does not say so, when it came."""
    if sent is None:
        return ts_recv
    check_moment(sent)
    return ns_of(sent)


def _untaken(
    symbol: str, rows: Sequence[MarketTrade | BookUpdates | BestPrices], kind: type[Feed]
) -> MalformedFrameError:
    """A message with a row of a stream that is not here is refused; if it has rows of other
    products as well, it is taken apart.
    """
    if any(row.product_id != symbol for row in rows):
        return MalformedFrameError("mixed_coins")
    return UntakenError(symbol, kind)


def decode_funding(body: bytes, feeds: Feeds, ts_recv: int, _: OnBadFrame) -> None:
    """`/market/products/<id>`. Of a spot product there is nothing to say."""
    if members(body).get("product_type") == b'"SPOT"':
        return

    def take(_: str | None, part: bytes) -> None:
        said = _decode_funding(part)
        feed = feeds.of(FundingOpenInterest).get(said.product_id)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        terms = said.future_product_details
        row = funding_row(terms.funding_rate, None, None, 0, _seconds(terms.funding_interval))
        interest = terms.open_interest
        feed.on_both(ts_recv, ts_recv, row, interest.value, interest.is_exact)

    take_one(body, FUNDING, feeds, ts_recv, take)


def _seconds(interval: str | None) -> int:
    """`3600s` is 3600; what is not known is 0."""
    digits = (interval or "").removesuffix("s")
    is_known = digits.isascii() and digits.isdigit() and len(digits) <= 6
    return int(digits) if is_known else 0
