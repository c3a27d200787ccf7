"""What OKX is: addresses, limits, channels, calls."""

import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.contracts import FundingRates, Liquidations, OpenInterestPoints
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import BookRule, by_previous_or_reset
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.digits import decimals_of
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
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.okx import messages
from shards.venues.okx.decode import MARK, SHAPES, open_decoder
from shards.venues.okx.messages import index_of, pays_funding
from shards.venues.wire import NS_PER_MS, Date

_SPOT: Final = "SPOT"
_TYPES: Final = (_SPOT, "SWAP", "FUTURES")
_KINDS: Final = {
    _SPOT: InstrumentKind.SPOT,
    "SWAP": InstrumentKind.PERPETUAL,
    "FUTURES": InstrumentKind.FUTURE,
    "OPTION": InstrumentKind.OPTION,
}
_ENDING: Final = (InstrumentKind.FUTURE, InstrumentKind.OPTION)
_STATES: Final = {
    "live": InstrumentState.TRADING,
    "preopen": InstrumentState.ANNOUNCED,
    "suspend": InstrumentState.HALTED,
    "post_only": InstrumentState.HALTED,
    "rebase": InstrumentState.HALTED,
    "expired": InstrumentState.EXPIRED,
}
_decode_instruments = msgspec.json.Decoder(messages.Instruments).decode
_instruments = RowReader(messages.Instrument, "instId")

# The listing


def _call(kind: str) -> RestCall:
    return RestCall("GET", f"/api/v5/public/instruments?instType={kind}", weight=1)


def parse_instruments(body: bytes) -> Listing:
    """Instruments of one type by symbol."""
    answer = _decode_instruments(body)
    if answer.code != "0":
        raise ValueError(f"code {answer.code}: {answer.msg}")
    return _instruments.read(answer.data, _instrument)


def _instrument(row: messages.Instrument) -> Instrument:
    tick, lot = step_size("tickSz", row.tickSz), step_size("lotSz", row.lotSz)
    is_spot = row.instType == _SPOT
    pair = (row.baseCcy, "-", row.quoteCcy) if is_spot else row.uly.partition("-")
    base, _, quote = pair
    kind = _KINDS.get(row.instType, InstrumentKind.UNKNOWN)
    return Instrument(
        venue=VENUE.name,
        symbol=row.instId,
        price_decimals=decimals_of(tick),
        qty_decimals=decimals_of(lot),
        base=base,
        quote=quote,
        tick_size=tick,
        lot_size=lot,
        contract_size="1" if is_spot else _contract_size(row),
        status=row.state,
        state=_STATES.get(row.state, InstrumentState.UNKNOWN),
        kind=kind,
        venue_kind=row.instType,
        settle=quote if is_spot else row.settleCcy,
        contract_unit=SizeUnit.BASE if is_spot else _unit(row.ctValCcy, base, quote),
        listed_ns=_ns(row.listTime),
        # Of the others it is when they will be delisted.
        delivery_ns=_ns(row.expTime) if kind in _ENDING else 0,
    )


def _contract_size(row: messages.Instrument) -> str:
    value, multiplier = step_size("ctVal", row.ctVal), step_size("ctMult", row.ctMult)
    return f"{(Decimal(value) * Decimal(multiplier)).normalize():f}"


def _unit(currency: str, base: str, quote: str) -> SizeUnit:
    return {base: SizeUnit.BASE, quote: SizeUnit.QUOTE}.get(currency, SizeUnit.UNKNOWN)


def _ns(text: str) -> int:
    """Of milliseconds as a text, which is empty where there is no such date."""
    return msgspec.convert(text, Date, strict=False) * NS_PER_MS if text else 0


# Topics: `channel:name`


def _topic(channel: str) -> Callable[[str, VenueSettings], str]:
    return lambda symbol, _: f"{channel}:{symbol}"


def _liquidations_topic(symbol: str, _: VenueSettings) -> str:
    """Of all symbols of a type. Those of spot pairs are of positions on margin."""
    if symbol.endswith("-SWAP"):
        return "liquidation-orders:SWAP"
    return f"liquidation-orders:{'FUTURES' if symbol.count('-') > 1 else 'MARGIN'}"


def _args(topic: str) -> Iterable[dict[str, str]]:
    """What a topic is called by the venue. A row of funding is made of several channels, and the
    one that makes it comes last.
    """
    channel, _, name = topic.partition(":")
    if channel == MARK:
        if pays_funding(name):
            yield {"channel": "funding-rate", "instId": name}
        yield {"channel": "index-tickers", "instId": index_of(name)}
    key = "instType" if channel == "liquidation-orders" else "instId"
    yield {"channel": channel, key: name}


def _request(op: str, args: Sequence[dict[str, str]], request_id: int) -> list[bytes]:
    return [msgspec.json.encode({"id": str(request_id), "op": op, "args": args})]


def subscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics."""
    args = [arg for topic in topics for arg in _args(topic)]
    return _request("subscribe", args, request_id)


def unsubscribe(topics: Sequence[str], request_id: int) -> list[bytes]:
    """One frame for all topics. An index stays: other contracts may have the same, and nobody minds
    the prices of one that no contract here has.
    """
    args = [arg for topic in topics for arg in _args(topic)]
    ended = [arg for arg in args if arg["channel"] != "index-tickers"]
    return _request("unsubscribe", ended, request_id)


def _group(streams: int) -> SocketGroup:
    return SocketGroup(
        path="/ws/v5/public",
        streams_per_connection=streams,
        # 64 KB; a topic of funding takes 170 bytes.
        topics_per_message=100,
        # 480 requests an hour and connection. What is wanted meanwhile goes into one request.
        message_interval_s=7.5,
        # The venue hangs up after 30 s in which it has sent nothing; a ping makes it send a pong.
        idle_timeout_s=60.0,
        lifetime_s=24 * 3600.0,
        refuses_repeats=True,
        json_ping=b"ping",
        ping_interval_s=20.0,
    )


VENUE: Final = Venue(
    name="okx",
    rest_url="https://www.okx.com",
    ws_url="wss://ws.okx.com:8443",
    groups={
        "public": _group(100),
        # Fewer than 30 deep books a connection are recommended.
        "books": _group(25),
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel(
            "public", ContiguousTrades, _topic("trades"), 300.0,
            note="fills of one order at one price are one trade",
        ),
        # A book that does not change says so after 60 s.
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            "books", PushedBook, _topic("books"), 120.0, book=BookRule(by_previous_or_reset)
        ),
        (StreamKind.TICKER, Transport.WS): Channel("public", Quotes, _topic("bbo-tbt"), 300.0),
        # Every 10 s at least; the first rate may be 90 s away.
        (StreamKind.FUNDING, Transport.WS): Channel(
            "public", FundingRates, _topic(MARK), 120.0,
            note="a row for each mark price, with the rate and the index that were told last",
        ),
        # Only when it changes.
        (StreamKind.OPEN_INTEREST, Transport.WS): Channel(
            "public", OpenInterestPoints, _topic("open-interest"), 300.0
        ),
        (StreamKind.LIQUIDATIONS, Transport.WS): Channel(
            "public", Liquidations, _liquidations_topic, math.inf,
            note="the exchange sends at most one liquidation a second and contract",
            is_of_all_symbols=True,
        ),
    },
    limits=(
        # 20 calls for instruments of a type in 2 s.
        Limit(REST_WEIGHT, 20, 2.0),
        Limit(CONNECTS, 3, 1.0),
    ),
    too_often=(b'"code":"50011"', b"60014 "),
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    open_decoder=open_decoder,
    tag="arg.channel:arg.instId",
    shapes=SHAPES,
    listing=ListingCalls(
        _call(_TYPES[0]), parse_instruments, others=tuple(map(_call, _TYPES[1:]))
    ),
    examples=("BTC-USDT-SWAP", "ETH-USDT-SWAP"),
)  # fmt: skip
