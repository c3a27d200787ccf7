"""What Bybit's decoder keeps of a socket's life, and how its listing goes on."""

import json
from typing import Any

import pytest

from engine.data.names import StreamKind
from shards.venues import VENUES
from shards.venues.kit import RestCall
from tests.shards.venues.recordings.sessions import Heard, hear

MS = 1_000_000
AT_MS = 1_795_000_000_000
LINEAR = "bybit_linear"
TICKERS = StreamKind.FUNDING_OPEN_INTEREST
FIRST = {
    "markPrice": "10.5", "indexPrice": "10.4", "fundingRate": "0.0001", "openInterest": "200",
    "singleOpenInterest": "100", "nextFundingTime": "1795017600000", "fundingIntervalHour": "8",
}  # fmt: skip


def ticker(form: str, number: int, symbol: str = "BTCUSDT", **fields: object) -> bytes:
    data = {"symbol": symbol, **fields}
    said = {"topic": f"tickers.{symbol}", "type": form, "data": data, "ts": AT_MS + number}
    return json.dumps(said).encode()


def best(form: str, u: int, bids: list[Any], asks: list[Any]) -> bytes:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": u, "seq": u}
    said = {"topic": "orderbook.1.BTCUSDT", "type": form, "ts": AT_MS + u, "data": data}
    return json.dumps(said).encode()


def heard(kind: StreamKind, *frames: bytes, symbols: tuple[str, ...] = ("BTCUSDT",)) -> Heard:
    stamped = ((AT_MS + number) * MS for number in range(10**6))
    return hear(LINEAR, symbols, [kind], zip(stamped, frames, strict=False))


def rows(found: Heard, kind: str, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in found.double.rows(kind)[list(fields)].tolist()]


def test_what_a_delta_does_not_name_is_as_it_was() -> None:
    found = heard(
        TICKERS,
        ticker("snapshot", 1, **FIRST),
        ticker("delta", 2, markPrice="10.6"),
        ticker("delta", 3, bid1Price="10.4"),
        ticker("delta", 4, singleOpenInterest="101", openInterest="202"),
        ticker("delta", 5, fundingIntervalHour="4", nextFundingTime="1795003200000"),
    )
    assert found.bad == []
    next_ts, sooner = 1795017600000 * MS, 1795003200000 * MS
    assert rows(found, "funding", "ts_event", "mark", "index", "next_ts", "interval_s") == [
        ((AT_MS + 1) * MS, 10.5, 10.4, next_ts, 28800),
        ((AT_MS + 2) * MS, 10.6, 10.4, next_ts, 28800),
        ((AT_MS + 4) * MS, 10.6, 10.4, next_ts, 28800),
        ((AT_MS + 5) * MS, 10.6, 10.4, sooner, 14400),
    ]
    assert [qty for (qty,) in rows(found, "open_interest", "qty")] == [100.0, 100.0, 101.0, 101.0]


def test_a_snapshot_leaves_nothing_of_what_was_before() -> None:
    fewer = {name: value for name, value in FIRST.items() if "single" not in name}
    del fewer["fundingIntervalHour"]
    found = heard(TICKERS, ticker("snapshot", 1, **FIRST), ticker("snapshot", 2, **fewer))
    assert rows(found, "open_interest", "qty") == [(100.0,), (200.0,)]
    assert rows(found, "funding", "interval_s") == [(28800,), (0,)]


def test_after_a_change_that_nobody_could_read_nothing_is_written_until_all_is_said() -> None:
    """Else the old value would be given out as the venue's last word."""
    found = heard(
        TICKERS,
        ticker("snapshot", 1, **FIRST),
        ticker("snapshot", 1, "ETHUSDT", **FIRST),
        ticker("delta", 2, fundingRate="NaN"),
        ticker("delta", 3, markPrice="10.6"),
        ticker("delta", 3, "ETHUSDT", markPrice="20.6"),
        ticker("snapshot", 4, **FIRST),
        ticker("delta", 5, markPrice="10.7"),
        symbols=("BTCUSDT", "ETHUSDT"),
    )
    assert found.bad == ["schema"]
    assert [mark for (mark,) in rows(found, "funding", "mark")] == [10.5, 10.5, 20.6, 10.5, 10.7]


@pytest.mark.parametrize("hostile", [b"[" * 100_000, b'"\xff"', b"NaN"])
def test_a_frame_that_is_no_json_is_known_by_its_topic(hostile: bytes) -> None:
    bad = ticker("delta", 2, fundingRate="X").replace(b'"X"', hostile)
    found = heard(
        TICKERS, ticker("snapshot", 1, **FIRST), bad, ticker("delta", 3, markPrice="10.6")
    )
    assert len(found.bad) == 1
    assert len(rows(found, "funding", "mark")) == 1


def test_a_side_of_a_quote_that_is_not_named_has_not_changed() -> None:
    found = heard(
        StreamKind.TICKER,
        best("delta", 1, [["10.0", "1"]], []),
        best("snapshot", 2, [["10.0", "1"]], [["10.2", "2"]]),
        best("delta", 3, [["10.0", "0"], ["10.1", "3"]], []),
        best("delta", 4, [], [["10.2", "0"]]),
        best("delta", 5, [], [["10.3", "4"]]),
    )
    assert found.bad == []
    assert rows(found, "quote", "seq", "bid", "bid_qty", "ask", "ask_qty") == [
        (2, 10.0, 1.0, 10.2, 2.0),
        (3, 10.1, 3.0, 10.2, 2.0),
        (4, 10.1, 3.0, 0.0, 0.0),
        (5, 10.1, 3.0, 10.3, 4.0),
    ]


def page(**result: object) -> bytes:
    return json.dumps({"retCode": 0, "retMsg": "OK", "result": {"list": [], **result}}).encode()


@pytest.mark.parametrize("last", [{}, {"nextPageCursor": ""}, {"nextPageCursor": None}])
def test_a_listing_goes_on_by_its_cursor(last: dict[str, object]) -> None:
    listing = VENUES[LINEAR].listing
    cursor = "first%3DBTC%26last%3DZEC"
    path = "/v5/market/instruments-info?category=linear&limit=1000"
    assert listing.first == RestCall("GET", path, 1)
    assert listing.next(page(nextPageCursor=cursor)) == RestCall(
        "GET", f"{path}&cursor={cursor}", 1
    )
    assert listing.next(page(**last)) is None


@pytest.mark.parametrize("cursor", ["a b", "x&category=spot", "\r\n", "#", "{symbol}", "é"])
def test_a_cursor_that_is_no_part_of_an_address_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="no part of an address"):
        VENUES[LINEAR].listing.next(page(nextPageCursor=cursor))


def test_an_error_in_place_of_an_answer_is_one() -> None:
    body = b'{"retCode":10006,"retMsg":"Too many visits!","result":{},"time":1}'
    for read in (VENUES[LINEAR].listing.parse, VENUES[LINEAR].listing.next):
        with pytest.raises(ValueError, match="retCode 10006: Too many visits!"):
            read(body)


def test_two_liquidations_that_say_the_same_are_two_in_one_message_and_one_in_two() -> None:
    order = {"T": AT_MS, "s": "BTCUSDT", "S": "Buy", "v": "0.5", "p": "81230.0"}
    said = {"topic": "allLiquidation.BTCUSDT", "type": "snapshot", "ts": AT_MS}
    twice, once = (json.dumps({**said, "data": [order] * count}).encode() for count in (2, 1))
    found = heard(StreamKind.LIQUIDATIONS, twice, once, twice)
    assert rows(found, "liquidation", "price", "qty") == [(81230.0, 0.5), (81230.0, 0.5)]
