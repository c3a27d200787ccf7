"""What Kraken spot is: addresses, limits, channels, calls."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Final

import msgspec

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.pushed.rules import CRC_OF_MANTISSAS, BookRule, by_time
from shards.feeds.pushed.timed import UnnumberedBook
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.kit import (
    CONNECTS,
    REST_WEIGHT,
    Channel,
    Limit,
    ListingCalls,
    RestCall,
    SocketGroup,
    Venue,
)
from shards.venues.kraken_spot.decode import SHAPES, open_decoder
from shards.venues.kraken_spot.messages import DEPTH, AssetPairs, Pair
from shards.venues.listing import Listing, RowReader, step_size

_STATES: Final = {
    "online": InstrumentState.TRADING,
    "limit_only": InstrumentState.TRADING,
    "post_only": InstrumentState.HALTED,
    "cancel_only": InstrumentState.HALTED,
    "reduce_only": InstrumentState.HALTED,
    "maintenance": InstrumentState.HALTED,
    "work_in_progress": InstrumentState.ANNOUNCED,
    "delisted": InstrumentState.DELISTED,
}
_pairs = RowReader(Pair, "wsname")
_decode_asset_pairs = msgspec.json.Decoder(AssetPairs).decode


def parse_instruments(body: bytes) -> Listing:
    """Pairs by the names that sockets take."""
    return _pairs.read(_decode_asset_pairs(body).result.values(), _instrument)


def _instrument(row: Pair) -> Instrument:
    base, _, quote = row.wsname.partition("/")
    return Instrument(
        venue=VENUE.name,
        symbol=row.wsname,
        price_decimals=row.pair_decimals,
        qty_decimals=row.lot_decimals,
        base=base,
        quote=quote,
        tick_size=step_size("tick_size", row.tick_size),
        lot_size=f"{10.0**-row.lot_decimals:.{row.lot_decimals}f}",
        status=row.status,
        state=_STATES.get(row.status, InstrumentState.UNKNOWN),
        kind=InstrumentKind.SPOT,
        venue_kind=row.aclass_base,
        settle=quote,
        contract_unit=SizeUnit.BASE,
    )


_PARAMS: Final[Mapping[str, Mapping[str, object]]] = {
    "trade": {},
    "book": {"depth": DEPTH},
    "ticker": {"event_trigger": "bbo"},
}


def _topic(channel: str) -> Callable[[str, VenueSettings], str]:
    return lambda symbol, _: f"{channel} {symbol}"


def _say(method: str, topics: Sequence[str], number: int, **more: bool) -> list[bytes]:
    """A frame for each channel."""
    pairs = sorted(topic.split(" ", 1) for topic in topics)
    return [
        msgspec.json.encode(
            {
                "method": method,
                "params": {
                    "channel": channel,
                    "symbol": [symbol for _, symbol in group],
                    **_PARAMS[channel],
                    **more,
                },
                "req_id": number,
            }
        )
        for channel, group in groupby(pairs, key=lambda pair: pair[0])
    ]


VENUE: Final = Venue(
    name="kraken_spot",
    rest_url="https://api.kraken.com",
    ws_url="wss://ws.kraken.com",
    groups={
        "ws": SocketGroup(
            path="/v2",
            streams_per_connection=200,
            topics_per_message=50,
            message_interval_s=0.1,
            # It is never silent for longer than a second.
            idle_timeout_s=20.0,
            lifetime_s=24 * 3600.0,
            refuses_repeats=True,
        )
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel("ws", ContiguousTrades, _topic("trade"), 300.0),
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            "ws", UnnumberedBook, _topic("book"), 60.0,
            book=BookRule(by_time, CRC_OF_MANTISSAS, summed=10, depth=DEPTH),
        ),
        (StreamKind.TICKER, Transport.WS): Channel(
            "ws", Quotes, _topic("ticker"), 300.0,
            note="the exchange may leave out changes of quantity alone",
        ),
    },
    limits=(
        # About one call a second is what is known.
        Limit(REST_WEIGHT, 60, 60.0),
        Limit(CONNECTS, 150, 600.0),
    ),
    too_often=(b"Rate limit exceeded", b"Too many requests", b"Exceeded msg rate"),
    subscribe=lambda topics, number: _say("subscribe", topics, number, snapshot=True),
    unsubscribe=lambda topics, number: _say("unsubscribe", topics, number),
    open_decoder=open_decoder,
    tag="channel",
    shapes=SHAPES,
    listing=ListingCalls(RestCall("GET", "/0/public/AssetPairs", weight=1), parse_instruments),
    examples=("BTC/USD", "ETH/USD"),
)  # fmt: skip
