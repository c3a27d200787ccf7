"""OKX frames and answers into feeds."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from engine.data.flags import Side
from shards.feeds import contracts, quotes
from shards.feeds.book_rows import BookEvent
from shards.feeds.contracts import Liquidations, OpenInterestPoints
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.feeds.pushed.books import PushedBook
from shards.feeds.trades import ContiguousTrades
from shards.venues.digits import Computed, read_number
from shards.venues.elements import funding_row
from shards.venues.json_parts import members_named
from shards.venues.kit import Feeds, FrameDecoder, Shape, Talk
from shards.venues.okx import messages
from shards.venues.okx.messages import index_of, pays_funding
from shards.venues.wire import NS_PER_MS

_LETTERS: Final = 5
"""So many of a channel's name tell those apart that are known."""
_HEAD: Final = b'{"arg":{"channel":"'
_NAME_AT: Final = slice(len(_HEAD), len(_HEAD) + _LETTERS)
_SIDE: Final = {"buy": int(Side.BUY), "sell": int(Side.SELL)}
_NO_ORDER: Final = (0.0, 0.0)
_REFUSED: Final = re.compile(r"channel:([\w-]{1,40}),inst(?:Id|Type):([\w-]{1,40})")
MARK: Final = "mark-price"
_TOPIC_OF: Final = {"funding-rate": MARK}
"""Of channels that are subscribed beside another one, the other."""


SHAPES: Final = (
    Shape(
        ContiguousTrades, messages.Trade, "trades:{symbol}", ("data",), is_list=True,
        seq="tradeId", time="ts",
    ),
    Shape(
        PushedBook, messages.BookChange, "books:{symbol}", ("data",), is_list=True,
        seq="seqId", prev_seq="prevSeqId", time="ts", levels=members_named("bids", "asks"),
    ),
    Shape(
        quotes.Quotes, messages.BestQuote, "bbo-tbt:{symbol}", ("data",), is_list=True,
        seq="seqId", time="ts",
    ),
    Shape(
        contracts.FundingRates, messages.MarkPrice, f"{MARK}:{{symbol}}", ("data",), is_list=True,
        time="ts",
    ),
    Shape(
        OpenInterestPoints, messages.OpenInterest, "open-interest:{symbol}", ("data",),
        is_list=True, time="ts",
    ),
    Shape(
        Liquidations, messages.Liquidation, "liquidation-orders:", ("data",), is_list=True,
        symbol="instId", levels=members_named("details"), is_of_all_symbols=True,
    ),
)  # fmt: skip

_Take = Callable[[Any, int], None]
_Taker = tuple[str, Callable[[bytes], messages.Frame], _Take]
_decode_head = msgspec.json.Decoder(messages.Head).decode
_decode_event = msgspec.json.Decoder(messages.Event).decode


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of all socket groups."""
    prices = _Prices(feeds.of(contracts.FundingRates))
    takers = dict(
        (
            _taker("trades", messages.Trades, partial(_on_trades, feeds.of(ContiguousTrades))),
            _taker("books", messages.Books, partial(_on_books, feeds.of(PushedBook))),
            _taker("bbo-tbt", messages.Quotes, partial(_on_quotes, feeds.of(quotes.Quotes))),
            _taker("funding-rate", messages.FundingRates, prices.on_rates),
            _taker(MARK, messages.MarkPrices, prices.on_marks),
            _taker("index-tickers", messages.IndexTickers, prices.on_indexes),
            _taker(
                "open-interest", messages.OpenInterests,
                partial(_on_open_interest, feeds.of(OpenInterestPoints)),
            ),
            _taker(
                "liquidation-orders", messages.LiquidationOrders,
                partial(_on_liquidations, feeds.of(Liquidations)),
            ),
        )
    )  # fmt: skip

    def on_frame(payload: bytes, ts_recv: int) -> None:
        # As a rule a message begins with its channel: that saves a look at the whole of it.
        taker = takers.get(payload[_NAME_AT]) or look(payload)
        if taker is None:
            return
        channel, decode, take = taker
        message = decode(payload)
        if message.arg.channel != channel:
            raise MalformedFrameError("schema")
        take(message, ts_recv)

    def look(payload: bytes) -> _Taker | None:
        """Whose a message is that begins in another way; None for what is no data."""
        if _on_event(payload, talk):
            return None
        taker = takers.get(_channel_of(payload)[:_LETTERS])
        if taker is None:
            raise MalformedFrameError("schema")
        return taker

    return on_frame


def _taker(channel: str, kind: type[messages.Frame], take: _Take) -> tuple[bytes, _Taker]:
    decode = msgspec.json.Decoder(kind, strict=False, dec_hook=read_number, float_hook=str).decode
    return channel.encode()[:_LETTERS], (channel, decode, take)


def _channel_of(payload: bytes) -> bytes:
    arg = _decode_head(payload).arg
    return arg.channel.encode("utf-8", "surrogatepass") if arg else b""


def _on_event(payload: bytes, talk: Talk) -> bool:
    """Handle a frame that is not data; False when it is none of these either."""
    if payload == b"pong":
        return True
    if not _decode_head(payload).event:
        return False
    event = _decode_event(payload)
    if event.event == "error":
        _on_error(event, talk)
    elif event.event == "notice":
        talk.closing(f"the venue announced: {event.msg}")
    elif event.event in ("subscribe", "unsubscribe"):
        talk.acknowledged(None)
    else:
        raise MalformedFrameError("schema")
    return True


def _on_error(event: messages.Event, talk: Talk) -> None:
    """A refusal of one topic of a request, the others of which are taken, or of all of it."""
    text = f"{event.code} {event.msg}"
    if found := _REFUSED.search(event.msg):
        channel, name = found.groups()
        talk.refused(text, None, {f"{_TOPIC_OF.get(channel, channel)}:{name}"})
    else:
        is_number = event.id.isascii() and event.id.isdigit() and len(event.id) < 10
        talk.refused(text, int(event.id) if is_number else None)


def _on_trades(
    feeds: Mapping[str, ContiguousTrades], message: messages.Trades, ts_recv: int
) -> None:
    feed = feeds.get(message.arg.instId)
    if feed is None:
        raise UntakenError(message.arg.instId, ContiguousTrades)
    sides = _SIDE
    for row in message.data:
        last_id, side, at = row.tradeId, sides[row.side], row.ts * NS_PER_MS
        if row.count == 1:
            feed.on_trade(last_id, side, at, ts_recv, row.px, row.sz)
        else:
            first_id = last_id - row.count + 1
            feed.on_merged_trade(first_id, last_id, side, at, ts_recv, row.px, row.sz)


def _on_books(feeds: Mapping[str, PushedBook], message: messages.Books, ts_recv: int) -> None:
    feed = feeds.get(message.arg.instId)
    if feed is None:
        raise UntakenError(message.arg.instId, PushedBook)
    is_whole = message.action == "snapshot"
    for said in message.data:
        bids = [(level.px, level.sz) for level in said.bids]
        asks = [(level.px, level.sz) for level in said.asks]
        previous = 0 if is_whole else said.prevSeqId
        at = said.ts * NS_PER_MS
        feed.on_event(BookEvent(said.seqId, previous, at, ts_recv, bids, asks, is_whole))


def _on_quotes(feeds: Mapping[str, quotes.Quotes], message: messages.Quotes, ts_recv: int) -> None:
    feed = feeds.get(message.arg.instId)
    if feed is None:
        raise UntakenError(message.arg.instId, quotes.Quotes)
    for said in message.data:
        content = (*_best(said.bids), *_best(said.asks))
        feed.on_quote(said.seqId, said.ts * NS_PER_MS, ts_recv, content)


def _best(levels: list[messages.Level]) -> tuple[float, float]:
    return (levels[0].px, levels[0].sz) if levels else _NO_ORDER


class _Prices:
    """What is told of contracts on three channels. A mark price makes a row, with the rate and the
    index that were told last; of a contract that pays funding not before its rate is known.
    """

    def __init__(self, feeds: Mapping[str, contracts.FundingRates]) -> None:
        self._feeds = feeds
        self._rates: dict[str, messages.FundingRate] = {}
        self._indexes: dict[str, Computed] = {}

    def on_rates(self, message: messages.FundingRates, _: int) -> None:
        """Remember a rate."""
        symbol = message.arg.instId
        if symbol not in self._feeds:
            raise UntakenError(symbol, contracts.FundingRates)
        for said in message.data:
            self._rates[symbol] = said

    def on_indexes(self, message: messages.IndexTickers, _: int) -> None:
        """Remember the price of an index that a contract here has."""
        name = message.arg.instId
        if name in self._indexes or any(index_of(symbol) == name for symbol in self._feeds):
            for said in message.data:
                self._indexes[name] = said.idxPx

    def on_marks(self, message: messages.MarkPrices, ts_recv: int) -> None:
        """Deliver rows."""
        symbol = message.arg.instId
        feed = self._feeds.get(symbol)
        if feed is None:
            raise UntakenError(symbol, contracts.FundingRates)
        told = self._rates.get(symbol)
        if told is None and pays_funding(symbol):
            return
        index = self._indexes.get(index_of(symbol))
        for said in message.data:
            if told is None:
                row = funding_row(None, said.markPx, index, 0)
            else:
                next_ts = told.fundingTime * NS_PER_MS
                row = funding_row(told.fundingRate, said.markPx, index, next_ts, told.interval_s)
            feed.on_funding(said.ts * NS_PER_MS, ts_recv, row)


def _on_open_interest(
    feeds: Mapping[str, OpenInterestPoints], message: messages.OpenInterests, ts_recv: int
) -> None:
    feed = feeds.get(message.arg.instId)
    if feed is None:
        raise UntakenError(message.arg.instId, OpenInterestPoints)
    for said in message.data:
        feed.on_open_interest(said.ts * NS_PER_MS, ts_recv, said.oi.value, said.oi.is_exact)


def _on_liquidations(
    feeds: Mapping[str, Liquidations], message: messages.LiquidationOrders, ts_recv: int
) -> None:
    """Orders of those symbols that somebody collects."""
    for said in message.data:
        if (feed := feeds.get(said.instId)) is not None:
            for order in said.details:
                at, qty = order.ts * NS_PER_MS, order.sz
                # The position is taken over whole; at what price it is sold is not told.
                row = contracts.LiquidationRow(at, _SIDE[order.side], order.bkPx, qty, qty, 0.0)
                feed.on_liquidation(row, ts_recv)
