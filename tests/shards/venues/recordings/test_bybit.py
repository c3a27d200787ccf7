"""Bybit's recorded messages, each through the production decoder.

Those of options are left out, which are no venue here, and so are answers to calls nobody makes.
"""

from typing import Any, NamedTuple

import msgspec
import pytest

from engine.data.names import StreamKind
from shards.venues import VENUES
from shards.venues.bybit import messages as said
from tests.shards.venues.recordings.sessions import (
    CAPTURES,
    Heard,
    hear,
    ignored,
    messages,
    names_in,
    needs_captures,
    taken,
)

pytestmark = needs_captures

MS = 1_000_000
RECV = 1_800_000_000_000 * MS
LINEAR, INVERSE, SPOT = "bybit_linear", "bybit_inverse", "bybit_spot"
BOTH_KINDS = ["funding", "open_interest"]


class Recorded(NamedTuple):
    """A file, of which venue and symbol it is, and what comes of it."""

    file: str
    venue: str
    symbol: str
    kind: StreamKind
    rows: int
    bad: list[str]


FILES = [
    Recorded("ws_public_trade_inverse", INVERSE, "BTCUSD", StreamKind.TRADES, 3, []),
    Recorded("ws_public_trade_spot", SPOT, "BTCUSDT", StreamKind.TRADES, 4, []),
    Recorded("ws_orderbook_spot_depth50", SPOT, "BTCUSDT", StreamKind.L2_BOOK, 5, []),
    Recorded("ws_orderbook_spot_depth1", SPOT, "BTCUSDT", StreamKind.TICKER, 2, []),
    Recorded("ws_orderbook_snapshot", LINEAR, "BTCUSDT", StreamKind.TICKER, 1, []),
    Recorded("ws_ticker_linear", LINEAR, "BTCUSDT", StreamKind.FUNDING_OPEN_INTEREST, 2, []),
    Recorded("ws_ticker_inverse", INVERSE, "BTCUSD", StreamKind.FUNDING_OPEN_INTEREST, 4, []),
    Recorded("ws_all_liquidation", LINEAR, "PIPPINUSDT", StreamKind.LIQUIDATIONS, 1, []),
    # Of a dated contract's delta no field is used: prices of the touch, and the basis.
    Recorded(
        "ws_ticker_inverse_dated", INVERSE, "BTCUSDU23", StreamKind.FUNDING_OPEN_INTEREST, 2, []
    ),
    # A delta that leaves one side unknown, before any snapshot.
    Recorded("ws_orderbook_delta", LINEAR, "BTCUSDT", StreamKind.TICKER, 0, []),
    # The topic is none of this protocol: what is in it looks as documented.
    Recorded("ws_public_trade", LINEAR, "BTCUSDT", StreamKind.TRADES, 0, ["schema"]),
    # No kind of row here.
    Recorded("ws_ticker_spot", SPOT, "BTCUSDT", StreamKind.TRADES, 0, ["not_subscribed"]),
    Recorded("ws_kline", LINEAR, "BTCUSDT", StreamKind.TRADES, 0, ["schema"]),
    Recorded("ws_subscription_ack", LINEAR, "BTCUSDT", StreamKind.TRADES, 0, []),
    Recorded("ws_subscription_failure", LINEAR, "BTCUSDT", StreamKind.TRADES, 0, []),
]
QUOTES_OF_TWO_SOCKETS = "ws_orderbook_linear_depth1"
LISTINGS = {
    "http_get_instruments_linear": LINEAR,
    "http_get_instruments_inverse": INVERSE,
    "http_get_instruments_spot": SPOT,
}
UNUSED = {
    "http_get_funding_history": "history is not collected",
    "http_get_orderbook": "books begin with a pushed snapshot",
    "http_get_trades_recent": "trades are pushed",
}


def played(each: Recorded) -> Heard:
    frames = [(RECV + at, frame) for at, frame in enumerate(messages(f"bybit/{each.file}.json"))]
    return hear(each.venue, [each.symbol], [each.kind], frames)


def named(file: str) -> Heard:
    return played(next(each for each in FILES if each.file == file))


def values(heard: Heard, kind: str, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in heard.double.rows(kind)[list(fields)].tolist()]


def test_every_recorded_file_is_looked_at() -> None:
    found = {path.stem for path in (CAPTURES / "bybit").glob("*.json")}
    known = {each.file for each in FILES} | LISTINGS.keys() | UNUSED.keys()
    assert {name for name in found - known if "option" not in name} == {QUOTES_OF_TWO_SOCKETS}


@pytest.mark.parametrize("each", FILES, ids=lambda each: each.file)
def test_every_message_makes_its_rows(each: Recorded) -> None:
    heard = played(each)
    kinds = ("trade", "book", "quote", "funding", "open_interest", "liquidation")
    assert sum(len(heard.double.rows(kind)) for kind in kinds) == each.rows
    assert heard.bad == each.bad
    assert len(heard.double.rows("gap")) == 0


def test_trades_have_the_takers_side_and_their_ids() -> None:
    first, second, _ = values(
        named("ws_public_trade_inverse"), "trade",
        "ts_event", "side", "price", "qty", "trade_id_hi", "trade_id",
    )  # fmt: skip
    upper, lower = 0x0CBF2330952D5D03, 0xA4624BF826C867AF - (1 << 64)
    assert first == (1680673823564 * MS, ord("B"), 28560.5, 5823.0, upper, lower)
    assert second[2:4] == (28560.5, 3.0)
    spot = values(named("ws_public_trade_spot"), "trade", "trade_id_hi", "trade_id", "side", "qty")
    assert spot[0] == (0, 2290000000050703789, ord("S"), 0.041732)
    assert [each[1] for each in spot] == list(range(2290000000050703789, 2290000000050703793))


def test_a_book_is_a_snapshot_and_what_follows_it() -> None:
    rows = values(named("ws_orderbook_spot_depth50"), "book", "seq", "prev_seq", "price", "qty")
    assert rows == [
        (59438060, 0, 28162.57, 0.07562),
        (59438060, 0, 28162.58, 0.506829),
        (59438061, 59438060, 28161.04, 0.177474),
        (59438061, 59438060, 28145.71, 0.0),
        (59438061, 59438060, 28184.33, 0.0),
    ]


def test_a_side_that_a_delta_does_not_name_has_not_changed() -> None:
    names = ("seq", "bid", "bid_qty", "ask", "ask_qty")
    assert values(named("ws_orderbook_spot_depth1"), "quote", *names) == [
        (20404754, 28165.07, 0.175231, 28165.08, 0.996816),
        (20404755, 28165.07, 0.166754, 28165.08, 0.996816),
    ]
    *one, other = messages(f"bybit/{QUOTES_OF_TWO_SOCKETS}.json")
    for frames, quotes in (
        (one, [(7003305, 28552.0, 0.047, 28552.1, 25.433), (7003306, 28552.0, 0.012, 28552.1,
                                                            25.433)]),
        ([other], [(1188472, 27991.7, 0.777, 27994.4, 0.058)]),
    ):  # fmt: skip
        stamped = [(RECV, frame) for frame in frames]
        heard = hear(LINEAR, ["BTCUSDT"], [StreamKind.TICKER], stamped)
        assert heard.bad == []
        assert values(heard, "quote", *names) == quotes


def test_a_delta_of_a_ticker_leaves_what_it_does_not_name() -> None:
    heard = named("ws_ticker_inverse")
    next_ts = 1680681600000 * MS
    assert values(heard, "funding", "ts_event", "rate", "mark", "index", "next_ts") == [
        (1680673822577 * MS, 0.0001, 28560.0, 28566.94, next_ts),
        (1680673822776 * MS, 0.0001, 28560.0, 28566.94, next_ts),
    ]
    assert values(heard, "open_interest", "qty") == [(449736676.0,), (449736674.0,)]
    linear = values(named("ws_ticker_linear"), "funding", "rate", "mark", "index", "interval_s")
    assert linear == [(-0.000212, 17217.33, 17227.36, 8 * 3600)]
    dated = values(named("ws_ticker_inverse_dated"), "funding", "rate", "mark", "next_ts")
    assert dated == [(0.0, 29023.6, 0)]


def test_the_side_of_a_liquidation_is_that_of_the_order() -> None:
    heard = named("ws_all_liquidation")
    short = values(heard, "liquidation", "ts_event", "side", "price", "qty", "avg_price")
    assert short == [(1740480207110 * MS, ord("B"), 0.02456, 2846.0, 0.0)]


def test_replies_are_understood() -> None:
    assert named("ws_subscription_ack").talk.words == [["acknowledged", None]]
    text = "Invalid topic: invalid.topic.BTCUSDT"
    assert named("ws_subscription_failure").talk.words == [["refused", text, None]]


@pytest.mark.parametrize("file", LISTINGS)
def test_listings_are_read(file: str) -> None:
    venue = VENUES[LISTINGS[file]]
    (body,) = messages(f"bybit/{file}.json")
    listing = venue.listing.parse(body)
    assert (listing.unreadable, listing.nameless) == ({}, 0)
    assert listing.known.keys() == {
        row["symbol"] for row in msgspec.json.decode(body)["result"]["list"]
    }
    assert venue.listing.next(body) is None
    for each in listing.known.values():
        assert (each.state, each.status) == ("trading", "Trading")


def test_every_field_is_taken_or_listed_as_left() -> None:
    files = [each.file for each in FILES if each.file != "ws_kline"]
    files += [QUOTES_OF_TWO_SOCKETS, *LISTINGS]
    found = {
        name
        for file in files
        for message in messages(f"bybit/{file}.json")
        for name in names_in(msgspec.json.decode(message))
    }
    types = (
        said.Head, said.Trades, said.BookFrame, said.TickerFrame, said.Liquidations, said.Answer,
        said.Rows, said.ContractTicker, said.InstrumentInfo,
    )  # fmt: skip
    known, left = taken(*types), ignored("bybit")
    assert found - known - left == set()
    assert left & known == set(), "left, and taken all the same"
