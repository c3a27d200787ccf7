"""What Binance's markets list (`…/exchangeInfo`), and the limits that come with it."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.binance.messages import ExchangeInfo, RateLimit, RateLimits
from shards.venues.digits import decimals_of
from shards.venues.kit import REST_WEIGHT, Limit
from shards.venues.listing import Listing, RowReader, step_size
from shards.venues.wire import NS_PER_MS, Date, Word


class ListedSymbol(Struct, kw_only=True):
    """What every market says of a symbol. Of its filters only two matter here."""

    symbol: str
    baseAsset: Word
    quoteAsset: Word
    filters: list[dict[str, Any]]


class SpotPair(ListedSymbol, kw_only=True):
    """A symbol of spot."""

    status: Word


class ListedContract(ListedSymbol, kw_only=True):
    """A contract of futures. A `deliveryDate` of the year 2100 is that of a perpetual."""

    contractType: Word = ""
    marginAsset: Word = ""
    onboardDate: Date = 0
    deliveryDate: Date = 0


class LinearContract(ListedContract, kw_only=True):
    """One contract is one unit of the base asset."""

    status: Word


class InverseContract(ListedContract, kw_only=True):
    """One contract is `contractSize` of the quote asset, USD. Its state may move to the member that
    linear has, since both markets are run as one.
    """

    contractSize: Annotated[int, Meta(ge=1, le=10**9)]
    contractStatus: Word = ""
    status: Word = ""


_decode_exchange_info = msgspec.json.Decoder(ExchangeInfo).decode
_decode_rate_limits = msgspec.json.Decoder(RateLimits).decode
_decode_rate_limit = msgspec.json.Decoder(RateLimit).decode
_spot_rows = RowReader(SpotPair, "symbol")
_linear_rows = RowReader(LinearContract, "symbol")
_inverse_rows = RowReader(InverseContract, "symbol")
_STATES: Final[Mapping[str, InstrumentState]] = {
    "PENDING_TRADING": InstrumentState.ANNOUNCED,
    "TRADING": InstrumentState.TRADING,
    "END_OF_DAY": InstrumentState.HALTED,
    "HALT": InstrumentState.HALTED,
    "BREAK": InstrumentState.HALTED,
    "CANCEL_ONLY": InstrumentState.HALTED,
    "PRE_SETTLE": InstrumentState.SETTLING,
    "SETTLING": InstrumentState.SETTLING,
    "PRE_DELIVERING": InstrumentState.SETTLING,
    "DELIVERING": InstrumentState.SETTLING,
    "DELIVERED": InstrumentState.EXPIRED,
    "CLOSE": InstrumentState.DELISTED,
}
_SECONDS: Final = {"SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0, "DAY": 86_400.0}


def parse_spot(body: bytes) -> Listing:
    """Pairs by symbol."""
    return _spot_rows.read(_decode_exchange_info(body).symbols, _spot)


def parse_linear(body: bytes) -> Listing:
    """Contracts by symbol. `pricePrecision` is not the tick: the filters are."""
    return _linear_rows.read(_decode_exchange_info(body).symbols, _linear)


def parse_inverse(body: bytes) -> Listing:
    """The same of those that are settled in coin."""
    return _inverse_rows.read(_decode_exchange_info(body).symbols, _inverse)


def _spot(row: SpotPair) -> Instrument:
    return Instrument(
        **_usual("binance_spot", row, row.status),
        kind=InstrumentKind.SPOT,
        settle=row.quoteAsset,
        contract_unit=SizeUnit.BASE,
    )


def _linear(row: LinearContract) -> Instrument:
    return Instrument(
        **_usual("binance_linear", row, row.status),
        **_terms(row),
        contract_unit=SizeUnit.BASE,
    )


def _inverse(row: InverseContract) -> Instrument:
    return Instrument(
        **_usual("binance_inverse", row, row.contractStatus or row.status),
        **_terms(row),
        contract_size=str(row.contractSize),
        contract_unit=SizeUnit.QUOTE,
    )


def _usual(venue: str, row: ListedSymbol, status: str) -> dict[str, Any]:
    """What is known of anything that is listed."""
    tick = _size(row.filters, "PRICE_FILTER", "tickSize")
    lot = _size(row.filters, "LOT_SIZE", "stepSize")
    return {
        "venue": venue,
        "symbol": row.symbol,
        "price_decimals": decimals_of(tick),
        "qty_decimals": decimals_of(lot),
        "base": row.baseAsset,
        "quote": row.quoteAsset,
        "tick_size": tick,
        "lot_size": lot,
        "status": status,
        "state": _STATES.get(status, InstrumentState.UNKNOWN),
    }


def _terms(row: ListedContract) -> dict[str, Any]:
    """What is known of a contract besides."""
    kind = _kind(row.contractType)
    return {
        "kind": kind,
        "venue_kind": row.contractType,
        "settle": row.marginAsset,
        "listed_ns": row.onboardDate * NS_PER_MS,
        "delivery_ns": row.deliveryDate * NS_PER_MS if kind is InstrumentKind.FUTURE else 0,
    }


def _kind(contract_type: str) -> InstrumentKind:
    """By the venue's word, which says more (`TRADIFI_PERPETUAL`, `CURRENT_QUARTER DELIVERING`)."""
    if "PERPETUAL" in contract_type:
        return InstrumentKind.PERPETUAL
    is_dated = "QUARTER" in contract_type or "MONTH" in contract_type
    return InstrumentKind.FUTURE if is_dated else InstrumentKind.UNKNOWN


def _size(filters: Sequence[dict[str, Any]], kind: str, name: str) -> str:
    found = next((each for each in filters if each.get("filterType") == kind), None)
    if found is None:
        raise ValueError(f"filters: no {kind}")
    return step_size(f"filters: {kind}.{name}", found.get(name))


def parse_limits(body: bytes) -> list[Limit]:
    """Limits on weight that `exchangeInfo` announces, as far as they can be read."""
    limits = []
    for raw in _decode_rate_limits(body).rateLimits:
        with contextlib.suppress(*BAD_FRAME):
            each = _decode_rate_limit(raw)
            if each.rateLimitType == "REQUEST_WEIGHT" and each.interval in _SECONDS:
                window_s = each.intervalNum * _SECONDS[each.interval]
                limits.append(Limit(REST_WEIGHT, each.limit, window_s))
    return limits
