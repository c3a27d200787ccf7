"""What Deribit is: addresses, limits, channels, calls."""

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from engine.data.instrument import Instrument as Known
from engine.data.instrument import InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.contracts import FundingOpenInterest, Liquidations
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import BookRule, by_previous
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.deribit.decode import (
    GREETING_ID,
    OTHER_ID,
    SHAPES,
    TICKER,
    decode_ticker,
    open_decoder,
)
from shards.venues.deribit.messages import Instrument, Kind, Listed
from shards.venues.digits import decimals_of
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    REST_WEIGHT,
    SOCKETS,
    Channel,
    Limit,
    ListingCalls,
    Places,
    PollChannel,
    RestCall,
    SocketGroup,
    Venue,
)
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import NS_PER_MS, TIME_MS_MAX

_PACES: Final = ("100ms", "agg2", "raw")
"""How often books are told: ten times a second, about once, or, to who logs in, at each change."""
_HEARTBEAT_S: Final = 10
"""The least that the venue takes."""
_CHANNELS_A_REQUEST: Final = 250
"""500 are recommended at most."""
_LISTINGS: Final = "rest_instruments"
_NOTE: Final = "funding, where the contract pays any, and open interest in one stream"
_STATES: Final = {
    "created": InstrumentState.ANNOUNCED,
    "open": InstrumentState.TRADING,
    "started": InstrumentState.TRADING,
    "active": InstrumentState.TRADING,
    "inactive": InstrumentState.HALTED,
    "deactivated": InstrumentState.HALTED,
    "locked": InstrumentState.HALTED,
    "halted": InstrumentState.HALTED,
    "settlement": InstrumentState.SETTLING,
    **dict.fromkeys(
        ("delivered", "settled", "closed", "archivized", "terminated"), InstrumentState.EXPIRED
    ),
}
"""Two vocabularies are documented, and which one is spoken is not. The last ones are final."""
_KINDS: Final = {
    "future": InstrumentKind.FUTURE,
    "option": InstrumentKind.OPTION,
    "spot": InstrumentKind.SPOT,
}

_decode_listed = msgspec.json.Decoder(Listed).decode
_decode_kind = msgspec.json.Decoder(Kind).decode
_rows = RowReader(Instrument, "instrument_name")


def parse_instruments(body: bytes) -> Listing:
    """Instruments by name, without combinations of them: their prices may be zero and below."""
    listed = _decode_listed(body)
    rows = [row for row in listed.result if not _is_combo(row)]
    return _rows.read(rows, lambda row: _instrument(row, listed.usOut // 1000))


def _is_combo(row: msgspec.Raw) -> bool:
    try:
        return _decode_kind(row).kind.endswith("_combo")
    except BAD_FRAME:
        return False  # whoever reads it whole says what is wrong


def _instrument(row: Instrument, now_ms: int) -> Known:
    """Amounts are in US dollars where a contract is settled in what it is about, else in its base
    currency; never in contracts. Blocks trade on a finer grid than the book has.
    """
    ticks = [row.tick_size, *(step.tick_size for step in row.tick_size_steps)]
    blocks = [row.block_trade_tick_size] if row.block_trade_tick_size else []
    lots = [row.min_trade_amount, row.contract_size]
    is_perpetual = row.settlement_period == "perpetual"
    kind = (
        InstrumentKind.PERPETUAL if is_perpetual else _KINDS.get(row.kind, InstrumentKind.UNKNOWN)
    )
    is_dated = kind in (InstrumentKind.FUTURE, InstrumentKind.OPTION)
    expires_ms = row.expiration_timestamp if is_dated else 0
    status = row.state or ("active" if row.is_active else "inactive")
    return Known(
        venue=VENUE.name,
        symbol=row.instrument_name,
        price_decimals=max(decimals_of(_text("tick_size", each)) for each in [*ticks, *blocks]),
        qty_decimals=max(decimals_of(_text("min_trade_amount", each)) for each in lots),
        base=row.base_currency,
        quote=row.quote_currency,
        tick_size=_text("tick_size", min(ticks)),
        lot_size=_text("min_trade_amount", min(lots)),
        status=status,
        state=_state(status, expires_ms, now_ms),
        kind=kind,
        venue_kind=f"{row.kind} {row.settlement_period}".rstrip(),
        settle=row.settlement_currency or row.quote_currency,
        contract_unit=_unit(row),
        listed_ns=row.creation_timestamp * NS_PER_MS,
        delivery_ns=expires_ms * NS_PER_MS if expires_ms <= TIME_MS_MAX else 0,
    )


def _text(name: str, size: float) -> str:
    """A size that came as a number, written out: 1e-05 is 0.00001."""
    return step_size(name, f"{Decimal(repr(size)).normalize():f}")


def _state(status: str, expires_ms: int, now_ms: int) -> InstrumentState:
    """What ended before its date, or has none, was delisted."""
    state = _STATES.get(status, InstrumentState.UNKNOWN)
    if state is InstrumentState.EXPIRED and not 0 < expires_ms <= now_ms:
        return InstrumentState.DELISTED
    return state


def _unit(row: Instrument) -> SizeUnit:
    """Of amounts. Where the type is not said, as years ago, what is priced in dollars is paid in
    coins.
    """
    is_linear = row.instrument_type == "linear" or row.quote_currency != "USD"
    return SizeUnit.BASE if is_linear or row.kind != "future" else SizeUnit.QUOTE


def _call(method: str, params: Mapping[str, object], number: int) -> bytes:
    said = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return msgspec.json.encode(said)


def _greet(settings: VenueSettings) -> Sequence[bytes]:
    """Ask for heartbeats, without which a quiet socket is closed after a minute, and log in where
    there are credentials.
    """
    beats = {"interval": _HEARTBEAT_S}
    if settings.credentials_file is None:
        return [_call("public/set_heartbeat", beats, GREETING_ID)]
    text = Path(settings.credentials_file).read_text(encoding="utf-8").strip()
    name, _, secret = text.partition(":")
    login = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
    return [
        _call("public/set_heartbeat", beats, OTHER_ID),
        _call("public/auth", login, GREETING_ID),
    ]


def _topic(word: str) -> Callable[[str, VenueSettings], str]:
    return lambda symbol, _: f"{word}.{symbol}.{_PACES[0]}"


def _quotes_topic(symbol: str, _: VenueSettings) -> str:
    return f"quote.{symbol}"


def _book_topic(symbol: str, settings: VenueSettings) -> str:
    return f"book.{symbol}.{settings.book_channel or _PACES[0]}"


VENUE: Final = Venue(
    name="deribit",
    rest_url="https://www.deribit.com",
    ws_url="wss://www.deribit.com",
    groups={
        "ws": SocketGroup(
            path="/ws/api/v2",
            streams_per_connection=_CHANNELS_A_REQUEST,
            topics_per_message=_CHANNELS_A_REQUEST,
            # All sockets of an address share a budget of their own.
            message_interval_s=0.1,
            idle_timeout_s=3.0 * _HEARTBEAT_S,
            lifetime_s=24 * 3600.0,
            refuses_repeats=True,
            greet=_greet,
        )
    },
    channels={
        (StreamKind.TRADES, Transport.WS): Channel(
            "ws", ContiguousTrades, _topic("trades"), 3600.0
        ),
        (StreamKind.L2_BOOK, Transport.WS): Channel(
            # A quiet one says nothing for minutes.
            "ws",
            PushedBook,
            _book_topic,
            600.0,
            book=BookRule(by_previous),
        ),
        (StreamKind.TICKER, Transport.WS): Channel("ws", Quotes, _quotes_topic, 600.0),
        (StreamKind.FUNDING_OPEN_INTEREST, Transport.WS): Channel(
            "ws", FundingOpenInterest, _topic("ticker"), 60.0, note=_NOTE
        ),
        (StreamKind.FUNDING_OPEN_INTEREST, Transport.HTTP_POLL): PollChannel(
            TICKER,
            decode_ticker,
            interval_s=5.0,
            stale_after_s=30.0,
            call=RestCall("GET", "/api/v2/public/ticker?instrument_name={symbol}", weight=1),
            note=_NOTE,
        ),
        (StreamKind.LIQUIDATIONS, Transport.WS): Channel(
            "ws", Liquidations, _topic("trades"), math.inf, note="the trades that liquidations made"
        ),
    },
    limits=(
        # Of whoever is logged in; what an address may do without is not published.
        Limit(REST_WEIGHT, 1200, 60.0),
        Limit(_LISTINGS, 60, 60.0),
        Limit(CONNECTS, 60, 60.0),
        # A subscription costs 3000 of a pool of 30,000 that grows by 10,000 a second.
        Limit(MESSAGES, 200, 60.0),
        # 32, calls under way among them.
        Places(SOCKETS, 24),
    ),
    too_often=(b"too_many_requests",),
    subscribe=lambda topics, number: [_call("public/subscribe", {"channels": topics}, number)],
    unsubscribe=lambda topics, number: [_call("public/unsubscribe", {"channels": topics}, number)],
    open_decoder=open_decoder,
    tag="params.channel",
    shapes=SHAPES,
    listing=ListingCalls(
        RestCall(
            "GET",
            "/api/v2/public/get_instruments?currency=any&expired=false",
            weight=1,
            pool=_LISTINGS,
        ),
        parse_instruments,
    ),
    examples=("BTC-PERPETUAL", "ETH-PERPETUAL"),
    takes_credentials=True,
    options={"book_channel": _PACES},
)
