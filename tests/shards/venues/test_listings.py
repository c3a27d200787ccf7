"""One odd row of a listing costs its own symbol and nobody else's: every field, every oddity."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.base.errors import VenueError
from engine.data.instrument import Instrument
from engine.data.names import StreamKind, Transport
from shards.venues import VENUES
from shards.venues.kit import REST_WEIGHT, Limit
from shards.venues.listing import Listing, Readings, usable
from tests.shards.fake_venue import binance_symbol, coin, exchange_info
from tests.shards.venues.recorded import TS_RECV, Bench

_BINANCE, _HYPERLIQUID = VENUES["binance_linear"], VENUES["hyperliquid_perp"]
_NAUGHTY: list[Any] = [
    ...,
    None,
    7,
    1.5,
    True,
    "",
    "\x00",
    "\x1b[31m",
    "x" * 5000,
    [],
    {},
    [[]],
    {"a": None},
]
"""In place of a field: missing, null, wrong types, absurd texts."""
_SIZES: list[Any] = [
    ...,
    None,
    0.1,
    "0",
    "0.000",
    "-0.1",
    "NaN",
    "Infinity",
    "1e400",
    "abc",
    "",
    "0x1",
    "1_0",
    [],
]
"""In place of a step size."""


def _filters(**changes: Any) -> list[Any]:
    tick = {"filterType": "PRICE_FILTER", "tickSize": changes.get("tickSize", "0.1")}
    lot = {"filterType": "LOT_SIZE", "stepSize": changes.get("stepSize", "0.001")}
    rows = [{k: v for k, v in row.items() if v is not ...} for row in (tick, lot)]
    return [*rows, {"filterType": "MAX_NUM_ORDERS", "limit": None}]


def _binance_rows() -> list[tuple[str, dict[str, Any]]]:
    fields = ("status", "baseAsset", "quoteAsset", "filters")
    fine = {("status", ""), ("baseAsset", ""), ("quoteAsset", "")}
    rows = [
        (name, binance_symbol("ODDUSDT", **{name: odd}))
        for name in fields
        for odd in _NAUGHTY
        if not (isinstance(odd, str) and (name, odd) in fine)
    ]
    for name in ("tickSize", "stepSize"):
        rows += [
            (name, binance_symbol("ODDUSDT", filters=_filters(**{name: odd}))) for odd in _SIZES
        ]
    return rows


def _coin_rows() -> list[tuple[str, dict[str, Any]]]:
    sizes = [*_NAUGHTY, -1, 7 + 1, 1 << 70]
    rows = [("szDecimals", coin("ODD", szDecimals=odd)) for odd in sizes if odd != 7]
    flags = [odd for odd in _NAUGHTY if odd not in (..., True, None)]
    return rows + [("isDelisted", coin("ODD", isDelisted=odd)) for odd in flags]


def _check(listing: Listing, field: str, odd: str, good: list[str]) -> None:
    assert list(listing.known) == good
    assert listing.nameless == 0
    ((symbol, why),) = listing.unreadable.items()
    assert symbol == odd
    assert field in why
    assert len(why) <= 120
    assert why.isprintable()


@pytest.mark.fault("N04")
@pytest.mark.parametrize(("field", "row"), _binance_rows())
def test_an_odd_field_of_a_symbol_costs_that_symbol(field: str, row: dict[str, Any]) -> None:
    good = [binance_symbol("BTCUSDT"), binance_symbol("ETHUSDT")]
    body = exchange_info(good[0], row, good[1])
    _check(_BINANCE.listing.parse(body), field, "ODDUSDT", ["BTCUSDT", "ETHUSDT"])


@pytest.mark.fault("N04")
@pytest.mark.parametrize(("field", "row"), _coin_rows())
def test_an_odd_field_of_a_coin_costs_that_coin(field: str, row: dict[str, Any]) -> None:
    body = json.dumps({"universe": [coin("BTC"), row, coin("ETH")]}).encode()
    _check(_HYPERLIQUID.listing.parse(body), field, "ODD", ["BTC", "ETH"])


def _info(rows: list[Any]) -> Readings[int]:
    assert _BINANCE.funding_intervals is not None
    return _BINANCE.funding_intervals.parse(json.dumps(rows).encode())


@pytest.mark.fault("N04")
@pytest.mark.parametrize("odd", [each for each in _NAUGHTY if each != 7] + [0, -8, 169, 1 << 70])
def test_an_odd_funding_interval_costs_that_symbol(odd: Any) -> None:
    row = {"symbol": "ODDUSDT", "fundingIntervalHours": odd}
    good = {"symbol": "BTCUSDT", "fundingIntervalHours": 4}
    found = _info([{k: v for k, v in row.items() if v is not ...}, good])
    assert found.known == {"BTCUSDT": 4 * 3600}
    assert found.unreadable.keys() == {"ODDUSDT"}


@pytest.mark.fault("N04")
@pytest.mark.parametrize("odd", _NAUGHTY)
@pytest.mark.parametrize("parse", ["symbol", "name", "info"])
def test_a_row_without_a_name_is_counted_and_never_shown_raw(parse: str, odd: Any) -> None:
    rows: dict[str, Callable[[], Readings[Any]]] = {
        "symbol": lambda: _BINANCE.listing.parse(
            exchange_info(binance_symbol("BTCUSDT"), binance_symbol("X", symbol=odd))
        ),
        "name": lambda: _HYPERLIQUID.listing.parse(
            json.dumps({"universe": [coin("BTC"), coin("X", name=odd)]}).encode()
        ),
        "info": lambda: _info(
            [{"symbol": "BTC", "fundingIntervalHours": 4},
             {"fundingIntervalHours": 8} | ({} if odd is ... else {"symbol": odd})]
        ),
    }  # fmt: skip
    found = rows[parse]()
    assert len(found.known) == 1
    assert len(found.unreadable) + found.nameless == 1
    assert all(name.isprintable() and len(name) < 400 for name in found.unreadable)


@pytest.mark.fault("N04")
@pytest.mark.parametrize(
    "row", [b"null", b"7", b"[]", b'"BTC"', b"{}", b'{"symbol":"\xff"}', b'{"symbol":1e999}']
)
def test_a_row_that_is_no_row_costs_nobody(row: bytes) -> None:
    good = json.dumps(binance_symbol("BTCUSDT")).encode()
    found = _BINANCE.listing.parse(b'{"symbols":[%b,%b]}' % (row, good))
    assert list(found.known) == ["BTCUSDT"]
    assert len(found.unreadable) + found.nameless == 1


@pytest.mark.fault("N04")
@pytest.mark.parametrize("odd", _NAUGHTY)
def test_a_coin_nobody_can_name_keeps_its_place(odd: Any) -> None:
    """States come in the order of the coins, so one that cannot be read still takes its state."""
    bench = Bench(_HYPERLIQUID, "ETH", StreamKind.FUNDING_OPEN_INTEREST, Transport.HTTP_POLL)
    universe = [coin("BTC"), coin("X", name=odd), coin("ETH")]
    states = [
        {"funding": "0.0001", "openInterest": size, "oraclePx": "10", "markPx": "10"}
        for size in ("1", "2", "3")
    ]
    bench.decode(json.dumps([{"universe": universe}, states]).encode(), TS_RECV)
    (row,) = [each for each in bench.rows() if each["kind"] == "open_interest"]
    assert row["qty"] == 3.0


@pytest.mark.fault("N04")
@pytest.mark.parametrize("odd", [None, 7, {"limit": None}, {"rateLimitType": "ORDERS"}])
def test_an_odd_limit_hides_no_other(odd: Any) -> None:
    limit = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": 900,
    }
    assert _BINANCE.parse_limits is not None
    body = json.dumps({"rateLimits": [odd, limit, odd], "symbols": []}).encode()
    assert _BINANCE.parse_limits(body) == [Limit(REST_WEIGHT, 900, 60.0)]


def test_a_listing_in_which_nothing_can_be_read_is_no_listing() -> None:
    assert usable("here", Readings({"A": Instrument("here", "A", 2, 3)})) is not None
    with pytest.raises(VenueError, match="here lists nothing"):
        usable("here", Readings({}))
    with pytest.raises(VenueError, match=r"none of 3 rows .*\(e\.g\. A: status: required\)"):
        usable("here", Readings({}, {"A": "status: required"}, 2))
