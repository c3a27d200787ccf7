"""What Kraken futures are: addresses, limits, channels, calls."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import msgspec
from msgspec import Raw

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.contracts import FundingOpenInterest, Liquidations
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import BookRule, by_previous
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.digits import decimals_of
from shards.venues.kit import (
    CONNECTS,
    REST_WEIGHT,
    SOCKETS,
    Channel,
    Limit,
    ListingCalls,
    Places,
    RestCall,
    SocketGroup,
    Venue,
)
from shards.venues.kraken_futures.decode import SHAPES, open_decoder
from shards.venues.kraken_futures.messages import Contract, Instruments, Typed
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import ns_of

_INDEX: Final = "spot index"
"""What the listing once had beside contracts."""

_contracts = RowReader(Contract, "symbol")
_decode_typed = msgspec.json.Decoder(Typed).decode
_decode_instruments = msgspec.json.Decoder(Instruments).decode


def parse_instruments(body: bytes) -> Listing:
    """Contracts by symbol."""
    rows = _decode_instruments(body).instruments
    return _contracts.read((row for row in rows if not _is_index(row)), _instrument)


def _is_index(row: Raw) -> bool:
    try:
        return _decode_typed(row).type == _INDEX
    except BAD_FRAME:
        return False  # whoever reads it says what is wrong


def _instrument(row: Contract) -> Instrument:
    tick = step_size("tickSize", bytes(row.tickSize).decode())
    lot_decimals = max(row.contractValueTradePrecision, 0)
    is_inverse, is_dated = "inverse" in row.type, row.lastTradingTime is not None
    status, state = _condition(row)
    return Instrument(
        venue=VENUE.name,
        symbol=row.symbol,
        price_decimals=decimals_of(tick),
        qty_decimals=lot_decimals,
        base=row.base,
        quote=row.quote,
        tick_size=tick,
        lot_size=f"{10.0**-row.contractValueTradePrecision:.{lot_decimals}f}",
        contract_size=step_size("contractSize", bytes(row.contractSize).decode()),
        status=status,
        state=state,
        kind=InstrumentKind.FUTURE if is_dated else InstrumentKind.PERPETUAL,
        venue_kind=row.type,
        settle=row.base if is_inverse else row.quote,
        contract_unit=SizeUnit.QUOTE if is_inverse else SizeUnit.BASE,
        listed_ns=ns_of(row.openingDate) if row.openingDate else 0,
        delivery_ns=ns_of(row.lastTradingTime) if row.lastTradingTime else 0,
    )


def _condition(row: Contract) -> tuple[str, InstrumentState]:
    """The venue says it in two members, in a word of ours."""
    if not row.tradeable:
        return "not tradeable", InstrumentState.HALTED
    if row.postOnly:
        return "postOnly", InstrumentState.HALTED
    return "tradeable", InstrumentState.TRADING


def _topic(feed: str) -> Callable[[str, VenueSettings], str]:
    return lambda symbol, _: f"{feed} {symbol}"


def _say(event: str, topics: Sequence[str]) -> list[bytes]:
    """A frame for each feed."""
    wanted = sorted(set(topics))
    return [
        msgspec.json.encode(
            {
                "event": event,
                "feed": feed,
                "product_ids": [topic.partition(" ")[2] for topic in group],
            }
        )
        for feed, group in groupby(wanted, key=lambda topic: topic.partition(" ")[0])
    ]


VENUE: Final = Venue(
    name="kraken_futures",
    rest_url="https://futures.kraken.com",
    ws_url="wss://futures.kraken.com",
    groups={
        "ws": SocketGroup(
            path="/ws/v1",
            streams_per_connection=200,
            topics_per_message=50,
            # A hundred requests a second are allowed.
            message_interval_s=0.05,
            # The venue wants a ping a minute, also of who is sent something all the time.
            pings_always=True,
            idle_timeout_s=60.0,
            lifetime_s=24 * 3600.0,
            refuses_repeats=True,
            ping_interval_s=20.0,
        )
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel("ws", ContiguousTrades, _topic("trade"), 300.0),
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            "ws", PushedBook, _topic("book"), 60.0, book=BookRule(by_previous)
        ),
        (StreamKind.TICKER, Transport.WS): Channel(
            "ws", Quotes, _topic("ticker"), 30.0, note="the exchange samples it once a second"
        ),
        (StreamKind.FUNDING_OPEN_INTEREST, Transport.WS): Channel(
            "ws", FundingOpenInterest, _topic("ticker"), 30.0,
            note="funding and open interest in one stream",
        ),
        (StreamKind.LIQUIDATIONS, Transport.WS): Channel(
            "ws", Liquidations, _topic("trade"), float("inf"),
            note="each is a trade of the instrument, too",
        ),
    },
    limits=(
        # Nothing is documented of public calls; the listing is the only one.
        Limit(REST_WEIGHT, 60, 60.0),
        Limit(CONNECTS, 60, 60.0),
        Places(SOCKETS, 100),
    ),
    too_often=(b"apiLimitExceeded",),
    subscribe=lambda topics, _: _say("subscribe", topics),
    unsubscribe=lambda topics, _: _say("unsubscribe", topics),
    open_decoder=open_decoder,
    tag="feed",
    shapes=SHAPES,
    listing=ListingCalls(
        RestCall("GET", "/derivatives/api/v3/instruments", weight=1), parse_instruments
    ),
    examples=("PF_XBTUSD", "PF_ETHUSD"),
)  # fmt: skip
