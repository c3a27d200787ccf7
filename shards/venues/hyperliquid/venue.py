"""What Hyperliquid is: addresses, limits, channels, calls. Its venues differ in data alone."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.books import SnapshotBook
from shards.feeds.contracts import FundingOpenInterest
from shards.feeds.quotes import Quotes
from shards.feeds.trades import HistoryTrades
from shards.venues.hyperliquid.decode import (
    CTX,
    SHAPES,
    decode_meta_and_ctxs,
    open_decoder,
)
from shards.venues.hyperliquid.listing import (
    BUILDER_LISTING,
    BUILDER_NAME,
    PERP_LISTING,
    PERP_NAME,
    SPOT_LISTING,
    SPOT_NAME,
)
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    REST_WEIGHT,
    SOCKETS,
    SUBSCRIPTIONS,
    Channel,
    Limit,
    ListingCalls,
    Places,
    PollChannel,
    RestCall,
    SocketGroup,
    Venue,
)

_OBJECTS_MAX: Final = 16
_decode_object = json.JSONDecoder().raw_decode
_CTX_NOTE: Final = "funding and open interest in one stream"

_Channels = Mapping[tuple[StreamKind, Transport], Channel | PollChannel]


def subscribe(topics: Sequence[str], _: int) -> list[bytes]:
    """One frame a topic: arrays are refused. A topic is the subscription object as JSON."""
    return [b'{"method":"subscribe","subscription":%b}' % topic.encode() for topic in topics]


def unsubscribe(topics: Sequence[str], _: int) -> list[bytes]:
    """One frame a topic, with the same subscription object."""
    return [b'{"method":"unsubscribe","subscription":%b}' % topic.encode() for topic in topics]


def topics_in(text: str, topics: Iterable[str]) -> set[str] | None:
    """Which subscriptions an error repeats. The venue adds the defaults of fields that were not
    sent, and may wrap a subscription into the message it came in.
    """
    named = [each for each in _objects(text) if "type" in each]
    if not named:
        return None
    wanted = {topic: json.loads(topic).items() for topic in topics}
    return {
        topic
        for topic, items in wanted.items()
        if any(all(each.get(key) == value for key, value in items) for each in named)
    }


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects in the midst of words, those inside others too."""
    at = -1
    for _ in range(_OBJECTS_MAX):
        if (at := text.find("{", at + 1)) < 0:
            return
        with contextlib.suppress(ValueError, RecursionError):
            found, _ = _decode_object(text, at)
            yield found


def _trades_topic(symbol: str, _: VenueSettings) -> str:
    return msgspec.json.encode({"type": "trades", "coin": symbol}).decode()


def _book_topic(symbol: str, settings: VenueSettings) -> str:
    subscription: dict[str, str | bool] = {"type": "l2Book", "coin": symbol}
    if settings.book_channel == "fast":
        subscription["fast"] = True
    return msgspec.json.encode(subscription).decode()


def _quotes_topic(symbol: str, _: VenueSettings) -> str:
    return msgspec.json.encode({"type": "bbo", "coin": symbol}).decode()


def _ctx_topic(symbol: str, _: VenueSettings) -> str:
    return msgspec.json.encode({"type": "activeAssetCtx", "coin": symbol}).decode()


_MARKET: Final[_Channels] = {
    (StreamKind.TRADES, Transport.WS): Channel("ws", HistoryTrades, _trades_topic, 300.0),
    # Every 5.4 s, or 0.54 s the fast one, changed or not.
    (StreamKind.L2_BOOK, Transport.WS): Channel("ws", SnapshotBook, _book_topic, 15.0),
    (StreamKind.TICKER, Transport.WS): Channel("ws", Quotes, _quotes_topic, 300.0),
}
_CONTRACTS: Final[_Channels] = {
    (StreamKind.FUNDING_OPEN_INTEREST, Transport.WS): Channel(
        "ws", FundingOpenInterest, _ctx_topic, 30.0, _CTX_NOTE, has_venue_time=False
    ),
}
_POLLED: Final[_Channels] = {
    # Of the venue's own dex: each other dex has a call of its own.
    (StreamKind.FUNDING_OPEN_INTEREST, Transport.HTTP_POLL): PollChannel(
        CTX,
        decode_meta_and_ctxs,
        interval_s=10.0,
        stale_after_s=60.0,
        batch=RestCall("POST", "/info", weight=20, body='{"type":"metaAndAssetCtxs"}'),
        note=_CTX_NOTE,
        has_venue_time=False,
    ),
}


def _venue(
    name: str, channels: _Channels, listing: ListingCalls, examples: tuple[str, ...]
) -> Venue:
    feeds = {channel.feed for channel in channels.values()}
    return Venue(
        name=name,
        rest_url="https://api.hyperliquid.xyz",
        ws_url="wss://api.hyperliquid.xyz",
        groups={
            "ws": SocketGroup(
                path="/ws",
                streams_per_connection=200,
                topics_per_message=1,
                # 2000 messages a minute over all sockets, which share a budget of their own.
                message_interval_s=0.02,
                idle_timeout_s=60.0,
                lifetime_s=7 * 24 * 3600.0,
                hangs_up_on_unknown=True,
                refuses_repeats=True,
                json_ping=b'{"method":"ping"}',
                ping_interval_s=30.0,
            )
        },
        channels=channels,
        limits=(
            Limit(REST_WEIGHT, 1200, 60.0),
            Limit(CONNECTS, 25, 60.0),
            Limit(MESSAGES, 2000, 60.0),
            Places(SUBSCRIPTIONS, 1000),
            Places(SOCKETS, 10),
        ),
        limits_with=PERP_NAME,
        subscribe=subscribe,
        unsubscribe=unsubscribe,
        open_decoder=open_decoder,
        tag="channel",
        shapes=tuple(shape for shape in SHAPES if shape.feed in feeds),
        topics_in=topics_in,
        listing=listing,
        examples=examples,
        # 20 levels, or 5 ten times as often.
        options={"book_channel": ("slow", "fast")},
    )


PERP: Final = _venue(PERP_NAME, {**_MARKET, **_CONTRACTS, **_POLLED}, PERP_LISTING, ("BTC", "ETH"))
BUILDER: Final = _venue(
    BUILDER_NAME, {**_MARKET, **_CONTRACTS}, BUILDER_LISTING, ("xyz:TSLA", "xyz:NVDA")
)
SPOT: Final = _venue(SPOT_NAME, _MARKET, SPOT_LISTING, ("@107", "PURR/USDC"))
