"""Bybit frames and answers into feeds, of all categories."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from engine.data.flags import Side
from shards.feeds.book_rows import BookEvent, Level
from shards.feeds.contracts import FundingOpenInterest, LiquidationRow
from shards.feeds.contracts import Liquidations as LiquidationFeed
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed.books import PushedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import TradeRow, UnorderedTrades, wide_id
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.bybit.messages import (
    Answer,
    Book,
    BookFrame,
    ContractTicker,
    Head,
    Liquidation,
    Liquidations,
    Named,
    Rows,
    Ticker,
    TickerFields,
    TickerFrame,
    Trade,
    Trades,
)
from shards.venues.digits import decoder
from shards.venues.elements import funding_row, take_one, take_parts
from shards.venues.json_parts import elements, members, text_of
from shards.venues.kit import Feeds, FrameDecoder, OnBadFrame, Shape, Talk
from shards.venues.wire import NS_PER_MS

BOOK_CHANNELS: Final = ("orderbook.1000", "orderbook.200", "orderbook.50")
"""Every 200, 100 and 20 ms."""
_BEST: Final = "1"
"""The depth that is a best bid and offer."""
_TRADES, _BOOKS = b'{"topic":"publicTrade.', b'{"topic":"orderbook.'
"""How frames begin that come often; the topic may stand elsewhere."""
_SIDE: Final = {"Buy": int(Side.BUY), "Sell": int(Side.SELL)}
_ORDER_SIDE: Final = {"Buy": int(Side.SELL), "Sell": int(Side.BUY)}
"""Of the order that closes a position of this side."""
_NO_ORDER: Final = (0.0, 0.0)
_NUMBER_DIGITS: Final = 18
_SYMBOL_AT: Final = len("publicTrade.")

_decode_head = msgspec.json.Decoder(Head).decode
_decode_trades = msgspec.json.Decoder(Trades, strict=False).decode
_decode_book = msgspec.json.Decoder(BookFrame, strict=False).decode
_decode_ticker = decoder(TickerFrame)
_decode_liquidations = msgspec.json.Decoder(Liquidations, strict=False).decode
_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_rows = msgspec.json.Decoder(Rows).decode
_decode_named = msgspec.json.Decoder(Named).decode
_decode_contract = decoder(ContractTicker)


def _levels(said: Mapping[str, bytes]) -> list[bytes]:
    data = members(said.get("data", b""))
    return [data.get(side, b"") for side in ("b", "a")]


SHAPES: Final = (
    Shape(UnorderedTrades, Trade, "publicTrade.{symbol}", ("data",), is_list=True, time="T"),
    *(
        Shape(PushedBook, Book, f"{channel}.{{symbol}}", time="cts", levels=_levels)
        for channel in BOOK_CHANNELS
    ),
    Shape(Quotes, Book, f"orderbook.{_BEST}.{{symbol}}", time="cts"),
    Shape(FundingOpenInterest, Ticker, "tickers.{symbol}", time="ts", row_count=2),
    Shape(
        LiquidationFeed, Liquidation, "allLiquidation.{symbol}", ("data",), is_list=True, time="T"
    ),
)
CONTRACT: Final = Shape(
    FundingOpenInterest, ContractTicker, path=("result", "list"), is_list=True,
    symbol="symbol", row_count=2,
)  # fmt: skip


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of a socket of any category."""
    return _Decoder(feeds, talk).on_frame


_FIELDS: Final = tuple(name for name in TickerFields.__struct_fields__ if name != "symbol")
_SELDOM: Final = {"fundingIntervalHour", "singleOpenInterest"}
"""Not every contract's ticker has these."""
_NEEDED: Final = {*_FIELDS} - _SELDOM


class _Decoder:
    """One socket's life. By topic it keeps what deltas change; of a topic of which a frame was
    refused nothing is known until it says everything once more.
    """

    def __init__(self, feeds: Feeds, talk: Talk) -> None:
        self._talk = talk
        self._trades, self._books = feeds.of(UnorderedTrades), feeds.of(PushedBook)
        self._quotes, self._tickers = feeds.of(Quotes), feeds.of(FundingOpenInterest)
        self._liquidations = feeds.of(LiquidationFeed)
        self._touches: dict[str, tuple[Level, Level]] = {}
        self._fields: dict[str, TickerFields] = {}

    def on_frame(self, payload: bytes, ts_recv: int) -> None:
        """Take a frame, data or not."""
        try:
            if payload.startswith(_TRADES):
                self._on_trades(payload, ts_recv)
            elif payload.startswith(_BOOKS):
                self._on_book(payload, ts_recv)
            else:
                self._on_other(payload, ts_recv)
        except BAD_FRAME:
            topic = text_of(members(payload).get("topic")) or ""
            self._touches.pop(topic, None)
            self._fields.pop(topic, None)
            raise

    def _on_other(self, payload: bytes, ts_recv: int) -> None:
        head = _decode_head(payload)
        word = head.topic.partition(".")[0]
        if word == "tickers":
            self._on_ticker(payload, ts_recv)
        elif word == "allLiquidation":
            self._on_liquidations(payload, ts_recv)
        elif word == "orderbook":
            self._on_book(payload, ts_recv)
        elif word == "publicTrade":
            self._on_trades(payload, ts_recv)
        elif word:
            raise MalformedFrameError("schema")
        else:
            self._on_reply(head)

    def _on_reply(self, said: Head) -> None:
        text = said.req_id
        is_number = text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS
        number = int(text) if is_number else None
        if said.success is False:
            self._talk.refused(said.ret_msg, number)
        elif said.op in ("subscribe", "unsubscribe") and said.success:
            self._talk.acknowledged(number)
        elif said.op not in ("ping", "pong"):
            raise MalformedFrameError("schema")

    def _on_trades(self, payload: bytes, ts_recv: int) -> None:
        said = _decode_trades(payload)
        symbol = said.topic[_SYMBOL_AT:]
        feed = self._trades.get(symbol)
        if feed is None:
            raise UntakenError(symbol, UnorderedTrades)
        side = _SIDE
        rows = [
            TradeRow(wide_id(trade.i), side[trade.S], trade.T * NS_PER_MS, trade.p, trade.v)
            for trade in said.data
        ]
        if rows:
            feed.on_trades(rows, ts_recv)

    def _on_book(self, payload: bytes, ts_recv: int) -> None:
        said = _decode_book(payload)
        _, depth, symbol = said.topic.split(".", 2)
        if depth == _BEST:
            self._on_best(said, symbol, ts_recv)
            return
        feed = self._books.get(symbol)
        if feed is None:
            raise UntakenError(symbol, PushedBook)
        is_whole, data = said.type == "snapshot", said.data
        previous = 0 if is_whole else max(data.u - 1, 0)
        at = (said.cts or said.ts) * NS_PER_MS
        feed.on_event(BookEvent(data.u, previous, at, ts_recv, data.b, data.a, is_whole))

    def _on_best(self, said: BookFrame, symbol: str, ts_recv: int) -> None:
        """Whole as a rule; where it is a delta, a side that it does not name has not changed."""
        feed = self._quotes.get(symbol)
        if feed is None:
            raise UntakenError(symbol, Quotes)
        data, is_whole = said.data, said.type == "snapshot"
        known = None if is_whole else self._touches.get(said.topic)
        bid, ask = known or (_NO_ORDER, _NO_ORDER)
        bid, ask = _best(max, bid, data.b), _best(min, ask, data.a)
        if not (is_whole or known or (bid[1] and ask[1])):
            return  # what the other side is, nobody has said
        self._touches[said.topic] = bid, ask
        feed.on_quote(data.u, (said.cts or said.ts) * NS_PER_MS, ts_recv, (*bid, *ask))

    def _on_ticker(self, payload: bytes, ts_recv: int) -> None:
        """A row for each message in which a number of it is, with what was said of the others."""
        said = _decode_ticker(payload)
        topic, data = said.topic, said.data
        symbol = topic.partition(".")[2]
        feed = self._tickers.get(symbol)
        if feed is None:
            raise UntakenError(symbol, FundingOpenInterest)
        news = {name: value for name in _FIELDS if (value := getattr(data, name)) is not None}
        before = self._fields.get(topic)
        if said.type == "delta" and before is not None:
            data = msgspec.structs.replace(before, **news)
        elif said.type == "delta" and not news.keys() >= _NEEDED:
            return
        self._fields[topic] = data
        if news:
            _deliver(data, feed, said.ts * NS_PER_MS, ts_recv)

    def _on_liquidations(self, payload: bytes, ts_recv: int) -> None:
        said = _decode_liquidations(payload)
        symbol = said.topic.partition(".")[2]
        feed = self._liquidations.get(symbol)
        if feed is None:
            raise UntakenError(symbol, LiquidationFeed)
        seen = Counter[LiquidationRow]()
        for each in said.data:
            side, at = _ORDER_SIDE[each.S], each.T * NS_PER_MS
            row = LiquidationRow(at, side, each.p, each.v, each.v, 0.0)
            feed.on_liquidation(row, ts_recv, seen[row] or None)
            seen[row] += 1


def _best(choose: Callable[..., Level], before: Level, levels: Sequence[Level]) -> Level:
    """The best of a side that has one level, after it has changed."""
    after = {before[0]: before[1], **dict(levels)}
    return choose((level for level in after.items() if level[1]), default=_NO_ORDER)


def _deliver(
    said: TickerFields | ContractTicker, feed: FundingOpenInterest, ts_event: int, ts_recv: int
) -> None:
    """A row of each kind; none where there is no open interest."""
    interest = said.singleOpenInterest or said.openInterest
    if interest is None:
        return
    next_ts = (said.nextFundingTime or 0) * NS_PER_MS
    interval_s = (said.fundingIntervalHour or 0) * 3600
    row = funding_row(said.fundingRate, said.markPrice, said.indexPrice, next_ts, interval_s)
    feed.on_both(ts_event, ts_recv, row, interest.value, interest.is_exact)


def result_of(body: bytes) -> msgspec.Raw:
    """What a call was made for. Raises ValueError with the venue's words where it refused it."""
    answer = _decode_answer(body)
    if answer.retCode:
        raise ValueError(f"retCode {answer.retCode}: {answer.retMsg[:200]}")
    return answer.result


def decode_contracts(body: bytes, feeds: Feeds, ts_recv: int, on_bad_frame: OnBadFrame) -> None:
    """`/v5/market/tickers`, of one symbol or of all. An answer has one time for all of its rows,
    which is that of the answer: rows have ours.
    """
    states = feeds.of(FundingOpenInterest)

    def take(_: str | None, part: bytes) -> None:
        said = _decode_contract(part)
        feed = states.get(said.symbol)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        _deliver(said, feed, ts_recv, ts_recv)

    parts = _parts(body)
    if len(parts) == 1:
        take_one(parts[0], CONTRACT, feeds, ts_recv, take)
    else:
        named = [(_symbol_of(part), part) for part in parts]
        take_parts(named, CONTRACT, feeds, ts_recv, on_bad_frame, take)


def _parts(body: bytes) -> list[bytes]:
    try:
        return [bytes(part) for part in _decode_rows(result_of(body)).rows]
    except BAD_FRAME:
        parts = elements(members(members(body).get("result", b"")).get("list", b""))
        if len(parts) != 1 and not any(map(_symbol_of, parts)):
            raise
        return parts


def _symbol_of(part: bytes) -> str | None:
    try:
        return _decode_named(part).symbol
    except BAD_FRAME:
        return text_of(members(part).get("symbol"))
