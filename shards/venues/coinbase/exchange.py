"""Coinbase Exchange: spot, by the exchange's own feed.

Trades have ids without holes, and heartbeats tell the last one: what a quiet product misses shows
within two of them. Books begin with a snapshot that says no time; nothing chains their updates.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from engine.data.flags import Side
from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from shards.feeds.book_rows import BookEvent
from shards.feeds.feed import UntakenError
from shards.feeds.pushed.rules import BookRule, by_previous
from shards.feeds.pushed.timed import UnchainedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues import kit
from shards.venues.digits import decimals_of
from shards.venues.json_parts import members_named
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    REST_WEIGHT,
    Channel,
    Feeds,
    FrameDecoder,
    Limit,
    ListingCalls,
    RestCall,
    Shape,
    SocketGroup,
    Talk,
    Venue,
)
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import (
    Id,
    Moment,
    Price,
    PriceOrNone,
    Quantity,
    TradeQuantity,
    Word,
    check_moment,
    ns_of,
)

# The listing


class Product(Struct):
    """A member of `/products`."""

    id: str
    base_currency: Word
    quote_currency: Word
    quote_increment: str
    base_increment: str
    status: Word
    trading_disabled: bool = False
    cancel_only: bool = False
    post_only: bool = False
    auction_mode: bool = False


_products = RowReader(Product, "id")
_decode_products = msgspec.json.Decoder(list[Raw]).decode
_STATES: Final = {
    "online": InstrumentState.TRADING,
    "offline": InstrumentState.HALTED,
    "internal": InstrumentState.ANNOUNCED,
    "delisted": InstrumentState.DELISTED,
}
_HALTS: Final = ("trading_disabled", "cancel_only", "post_only", "auction_mode")


def parse_products(body: bytes) -> Listing:
    """All products."""
    return _products.read(_decode_products(body), _instrument)


def _instrument(row: Product) -> Instrument:
    tick = step_size("quote_increment", row.quote_increment)
    lot = step_size("base_increment", row.base_increment)
    halts = [name for name in _HALTS if getattr(row, name)]
    state = _STATES.get(row.status, InstrumentState.UNKNOWN)
    return Instrument(
        venue=VENUE.name,
        symbol=row.id,
        price_decimals=decimals_of(tick),
        qty_decimals=decimals_of(lot),
        base=row.base_currency,
        quote=row.quote_currency,
        tick_size=tick,
        lot_size=lot,
        status=" ".join([row.status, *halts]),
        state=InstrumentState.HALTED if halts and state is InstrumentState.TRADING else state,
        kind=InstrumentKind.SPOT,
        settle=row.quote_currency,
        contract_unit=SizeUnit.BASE,
    )


# Messages


class Match(Struct, tag_field="type", tag="match", gc=False):
    """A trade; `side` is the maker's."""

    trade_id: Id
    side: Literal["buy", "sell"]
    size: TradeQuantity
    price: Price
    product_id: str
    time: Moment


class LastMatch(Match, tag_field="type", tag="last_match", gc=False):
    """The last trade before a subscription."""


class BookSnapshot(Struct, tag_field="type", tag="snapshot", gc=False):
    """A whole book. It says no time."""

    product_id: str
    bids: list[tuple[Price, Quantity]]
    asks: list[tuple[Price, Quantity]]


class LevelUpdates(Struct, tag_field="type", tag="l2update", gc=False):
    """Levels as they are now; no quantity removes one."""

    product_id: str
    changes: list[tuple[Literal["buy", "sell"], Price, Quantity]]
    time: Moment


class BestPrices(Struct, tag_field="type", tag="ticker", gc=False):
    """Best bid and offer as of a trade. Quantities were not always told."""

    product_id: str
    sequence: Id
    best_bid: PriceOrNone
    best_ask: PriceOrNone
    time: Moment
    best_bid_size: Quantity = 0.0
    best_ask_size: Quantity = 0.0


class Heartbeat(Struct, tag_field="type", tag="heartbeat", gc=False):
    """One a second of each product."""

    product_id: str
    last_trade_id: Id
    time: Moment

    def __post_init__(self) -> None:
        check_moment(self.time)


class Subscriptions(Struct, tag_field="type", tag="subscriptions", gc=False):
    """The answer to any request that was taken: all that is subscribed on the socket."""


class Refusal(Struct, tag_field="type", tag="error", gc=False):
    """A request was refused, in words."""

    message: str
    reason: str = ""


# The decoder

_Frame = (
    Match
    | LastMatch
    | BookSnapshot
    | LevelUpdates
    | BestPrices
    | Heartbeat
    | Subscriptions
    | Refusal
)


def _time_of(said: Match | LevelUpdates | BestPrices) -> int:
    return ns_of(said.time)


SHAPES: Final = (
    Shape(ContiguousTrades, Match, "match", symbol="product_id", seq="trade_id", check=_time_of),
    Shape(
        UnchainedBook, LevelUpdates, "l2update", symbol="product_id",
        levels=members_named("changes"), check=_time_of,
    ),
    Shape(Quotes, BestPrices, "ticker", symbol="product_id", seq="sequence", check=_time_of),
)  # fmt: skip

_decode = msgspec.json.Decoder(_Frame, strict=False).decode
_TAKER: Final = {"sell": int(Side.BUY), "buy": int(Side.SELL)}
"""By the maker's side."""


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Decoder of the one socket group."""
    trade_feed, quote_feed = feeds.of(ContiguousTrades).get, feeds.of(Quotes).get
    on_book = _BookReader(feeds)
    last_ids: dict[str, int] = {}

    def on_frame(payload: bytes, ts_recv: int) -> None:
        message = _decode(payload)
        kind = type(message)
        if kind is Match or kind is LastMatch:
            trades = trade_feed(message.product_id)
            if trades is None:
                raise UntakenError(message.product_id, ContiguousTrades)
            side, at = _TAKER[message.side], ns_of(message.time)
            take = trades.on_trade if kind is Match else trades.on_past_trade
            take(message.trade_id, side, at, ts_recv, message.price, message.size)
        elif kind is LevelUpdates:
            on_book.updates(message, ts_recv)
        elif kind is BestPrices:
            _on_quote(message, quote_feed(message.product_id), ts_recv)
        elif kind is Heartbeat:
            is_repeated = last_ids.get(message.product_id) == message.last_trade_id
            last_ids[message.product_id] = message.last_trade_id
            _on_heartbeat(message, trade_feed(message.product_id), is_repeated, ts_recv)
        elif kind is BookSnapshot:
            on_book.snapshot(message, ts_recv)
        elif kind is Subscriptions:
            talk.acknowledged(None)
        else:
            talk.refused(": ".join(filter(None, [message.message, message.reason])))

    return on_frame


class _BookReader:
    """The books of one socket: what came before is what an event follows."""

    def __init__(self, feeds: Feeds) -> None:
        self._feed = feeds.of(UnchainedBook).get
        self._last_seq: dict[str, int] = {}

    def snapshot(self, message: BookSnapshot, ts_recv: int) -> None:
        """Take a whole book, as of when it came."""
        feed = self._feed(message.product_id)
        if feed is None:
            raise UntakenError(message.product_id, UnchainedBook)
        self._last_seq[message.product_id] = 0
        bids, asks = message.bids, message.asks
        feed.on_event(BookEvent(0, 0, ts_recv, ts_recv, bids, asks, is_snapshot=True))

    def updates(self, message: LevelUpdates, ts_recv: int) -> None:
        """Take what has changed."""
        feed = self._feed(message.product_id)
        if feed is None:
            raise UntakenError(message.product_id, UnchainedBook)
        at = ns_of(message.time)
        seq = at // 1000
        prev_seq = self._last_seq.get(message.product_id, seq)
        self._last_seq[message.product_id] = seq
        changes = message.changes
        bids = [(price, qty) for side, price, qty in changes if side == "buy"]
        asks = [(price, qty) for side, price, qty in changes if side != "buy"]
        feed.on_event(BookEvent(seq, prev_seq, at, ts_recv, bids, asks))


def _on_quote(message: BestPrices, feed: Quotes | None, ts_recv: int) -> None:
    if feed is None:
        raise UntakenError(message.product_id, Quotes)
    content = message.best_bid, message.best_bid_size, message.best_ask, message.best_ask_size
    feed.on_quote(message.sequence, ns_of(message.time), ts_recv, content)


def _on_heartbeat(
    message: Heartbeat, feed: ContiguousTrades | None, is_repeated: bool, ts_recv: int
) -> None:
    """One may overtake the trade it speaks of: what two of them say is missing if it is not here.
    What another socket still brings (a handover) is no concern of this one.
    """
    if is_repeated and type(feed) is ContiguousTrades:
        feed.complete_to(message.last_trade_id, ns_of(message.time), ts_recv)


# Channels, limits


def topics_in(text: str, topics: Iterable[str]) -> set[str] | None:
    """Which topics a refusal is about: it names products alone."""
    found = {topic for topic in topics if kit.topics_in(text, [topic.partition(":")[2]])}
    return found or None


def _say(word: str, topics: Sequence[str]) -> list[bytes]:
    """One frame for the products of a channel."""
    products: dict[str, list[str]] = {}
    for topic in topics:
        channel, _, symbol = topic.partition(":")
        products.setdefault(channel, []).append(symbol)
    return [
        msgspec.json.encode({"type": word, "product_ids": symbols, "channels": _channels(channel)})
        for channel, symbols in products.items()
    ]


def _channels(channel: str) -> list[str]:
    return ["matches", "heartbeat"] if channel == "matches" else [channel]


VENUE: Final = Venue(
    name="coinbase_exchange",
    rest_url="https://api.exchange.coinbase.com",
    ws_url="wss://ws-feed.exchange.coinbase.com",
    groups={
        "ws": SocketGroup(
            path="/",
            # The venue says nothing of a limit; its snapshots are large.
            streams_per_connection=100,
            topics_per_message=50,
            # A hundred messages a second of all sockets.
            message_interval_s=0.05,
            idle_timeout_s=30.0,
            lifetime_s=24 * 3600.0,
            refuses_repeats=True,
        )
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel(
            "ws", ContiguousTrades, lambda symbol, _: f"matches:{symbol}", 3600.0
        ),
        # The full `level2` is for those who log in; this one says the same every 50 ms.
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            "ws", UnchainedBook, lambda symbol, _: f"level2_batch:{symbol}", 300.0,
            book=BookRule(by_previous),
        ),
        (StreamKind.TICKER, Transport.WS): Channel(
            "ws", Quotes, lambda symbol, _: f"ticker:{symbol}", 3600.0,
            note="the best bid and offer at each trade, not at each change",
        ),
    },
    limits=(
        Limit(REST_WEIGHT, 10, 1.0),
        Limit(CONNECTS, 8, 1.0),
        Limit(MESSAGES, 100, 1.0),
    ),
    too_often=(b"rate limit exceeded",),
    subscribe=lambda topics, _: _say("subscribe", topics),
    unsubscribe=lambda topics, _: _say("unsubscribe", topics),
    open_decoder=open_decoder,
    tag="type",
    shapes=SHAPES,
    topics_in=topics_in,
    listing=ListingCalls(RestCall("GET", "/products", weight=1), parse_products),
    examples=("BTC-USD", "ETH-USD"),
)  # fmt: skip
