"""Kraken as it was recorded: a session of futures of 2021, single messages of both since."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.data.flags import Flag, Side
from engine.data.names import StreamKind
from shards.venues import kraken_futures, kraken_spot
from shards.venues.kraken_futures import messages as futures
from shards.venues.kraken_spot import messages as spot
from tests.shards.venues.recordings.sessions import (
    CAPTURES,
    Heard,
    assert_books_are_in_order,
    hear,
    ignored,
    messages,
    names_in,
    needs_captures,
    session,
    taken,
)

pytestmark = needs_captures

SESSION = "kraken_futures/KRAKEN_FUTURES.ws.1.0"
LISTING = "kraken_futures/KRAKEN_FUTURES.0"
SYMBOLS = (
    "FI_BCHUSD_210730", "FI_BCHUSD_210924", "FI_ETHUSD_210730", "FI_ETHUSD_211231",
    "FI_XBTUSD_210730", "FI_XBTUSD_210924", "FI_XRPUSD_210924", "PI_ETHUSD", "PI_LTCUSD",
    "PI_XRPUSD",
)  # fmt: skip
TS_RECV = 1_800_000_000_000_000_000
SPOT_TYPES = (
    spot.Trades, spot.Books, spot.Ticker, spot.Status, spot.Heartbeat, spot.Reply, spot.AssetPairs,
    spot.Pair,
)  # fmt: skip
FUTURES_TYPES = (
    futures.Trade, futures.TradeSnapshot, futures.BookSnapshot, futures.BookChange, futures.Ticker,
    futures.Event, futures.Instruments, futures.Contract,
)  # fmt: skip
NOT_CALLED = {
    "http_server_time.json", "http_ticker.json", "http_trades.json",
    "http_futures_historical_funding_rates.json", "http_futures_orderbook.json",
    "http_futures_tickers.json",
}  # fmt: skip
"""Answers to calls that are not made."""


@pytest.fixture(scope="module")
def heard() -> Heard:
    kinds = (StreamKind.TRADES, StreamKind.L2_BOOK)
    return hear("kraken_futures", SYMBOLS, kinds, session(SESSION))


def one(venue: str, symbol: str, kind: StreamKind, path: str) -> Heard:
    return hear(venue, [symbol], [kind], [(TS_RECV, frame) for frame in messages(path)])


def test_the_session_is_read_whole(heard: Heard) -> None:
    """But for `ticker_lite`, a feed that is not subscribed here."""
    assert Counter(heard.bad) == {"schema": 28}
    assert len(heard.double.rows("trade")) == 10 * 100 + 2
    assert len(heard.double.rows("book")) == 1467 + _levels_of_snapshots()
    assert len(heard.double.rows("gap")) == 0, "no chain is broken"
    assert_books_are_in_order(heard)
    assert Counter(word for word, *_ in heard.talk.words) == {"acknowledged": 30}


def _levels_of_snapshots() -> int:
    said = [json.loads(frame) for _, frame in session(SESSION)]
    whole = [each for each in said if each.get("feed") == "book_snapshot"]
    assert len(whole) == len(SYMBOLS)
    return sum(level["qty"] > 0 for each in whole for level in each["bids"] + each["asks"])


def test_repeated_trades_are_the_past_and_pushed_ones_are_not(heard: Heard) -> None:
    rows = heard.double.rows("trade")
    live = rows[rows["flags"] & int(Flag.BACKFILLED) == 0]
    assert live[["trade_id", "side", "ts_event", "price", "qty"]].tolist() == [
        (5956, int(Side.BUY), 1626994929946000000, 119.44, 320.0),
        (1488, int(Side.BUY), 1626994933519000000, 439.5, 50.0),
    ]
    for slot in set(rows["stream"].tolist()):
        ids = rows["trade_id"][rows["stream"] == slot]
        assert (np.diff(ids) == 1).all()


def test_books_of_the_session_never_cross(heard: Heard) -> None:
    rows = heard.double.rows("book")
    for slot in set(rows["stream"].tolist()):
        bids: dict[float, float] = {}
        asks: dict[float, float] = {}
        for row in rows[rows["stream"] == slot]:
            side = bids if chr(row["side"]) == "b" else asks
            if row["qty"]:
                side[float(row["price"])] = float(row["qty"])
            else:
                side.pop(float(row["price"]), None)
            if row["flags"] & int(Flag.LAST_IN_EVENT) and bids and asks:
                assert max(bids) < min(asks)


def test_a_level_without_quantity_in_a_snapshot_is_none() -> None:
    path = "kraken_futures/ws_futures_book_snapshot_with_zero_qty.json"
    found = one("kraken_futures", "PI_XBTUSD", StreamKind.L2_BOOK, path)
    rows = found.double.rows("book")
    assert rows[["seq", "price", "qty"]].tolist() == [
        (326072249, 34892.5, 6385.0), (326072249, 34891.5, 100.0), (326072249, 34912.0, 2300.0),
    ]  # fmt: skip


def test_a_ticker_has_quote_funding_and_open_interest() -> None:
    path = "kraken_futures/ws_futures_ticker.json"
    kinds = (StreamKind.TICKER, StreamKind.FUNDING_OPEN_INTEREST)
    found = hear("kraken_futures", ["PI_XBTUSD"], kinds, [(TS_RECV, messages(path)[0])])
    (quote,) = found.double.rows("quote")
    assert [quote[n] for n in ("bid", "bid_qty", "ask", "ask_qty")] == [
        21978.5, 2536.0, 21987.0, 13948.0,
    ]  # fmt: skip
    (funding,) = found.double.rows("funding")
    assert funding["rate"] == -0.000001380384722, "15 decimals of -1.380384722222e-6"
    assert funding["flags"] & int(Flag.INEXACT)
    assert (funding["mark"], funding["index"]) == (21979.6864153471, 21984.54)
    assert (funding["next_ts"], funding["interval_s"]) == (1676394000000000000, 3600)
    (interest,) = found.double.rows("open_interest")
    assert (interest["qty"], interest["ts_event"]) == (30072580.0, 1676393235406000000)


def test_trades_of_spot() -> None:
    found = one("kraken_spot", "BTC/USD", StreamKind.TRADES, "kraken_spot/ws_trade_update.json")
    assert found.bad == []
    rows = found.double.rows("trade")
    assert rows[["trade_id", "side", "ts_event", "price", "qty"]].tolist() == [
        (10218208, int(Side.BUY), 1696613755440295000, 105944.2, 0.00027625),
        (10218209, int(Side.SELL), 1696613756123456000, 105910.5, 0.0001246),
    ]


def test_a_book_and_a_quote_of_spot() -> None:
    said = [messages(f"kraken_spot/ws_book_{form}.json")[0] for form in ("snapshot", "update")]
    frames = [(TS_RECV, frame) for frame in said]
    found = hear("kraken_spot", ["BTC/USD"], [StreamKind.L2_BOOK], frames)
    assert found.bad == []
    assert found.double.rows("book")[["side", "price", "qty"]].tolist() == [
        (98, 105944.2, 0.136), (98, 105935.4, 0.024), (98, 105920.1, 0.052),
        (97, 105944.3, 0.136), (97, 105946.9, 0.095), (97, 105955.8, 0.003),
        (98, 105944.2, 0.25),
    ]  # fmt: skip
    path = "kraken_spot/ws_ticker_snapshot.json"
    (quote,) = one("kraken_spot", "BTC/USD", StreamKind.TICKER, path).double.rows("quote")
    assert [quote[n] for n in ("bid", "bid_qty", "ask", "ask_qty", "ts_event")] == [
        105944.2, 2.5, 105944.3, 3.2, 1671960659123456000,
    ]  # fmt: skip


def test_replies_of_spot_are_understood() -> None:
    for path, words in (("ws_pong", []), ("ws_subscribe_response", [["acknowledged", 1]])):
        found = one("kraken_spot", "BTC/USD", StreamKind.TRADES, f"kraken_spot/{path}.json")
        assert (found.bad, found.talk.words) == ([], words)


def test_listings() -> None:
    body = (CAPTURES / "kraken_spot/http_asset_pairs.json").read_bytes()
    listing = kraken_spot.VENUE.listing.parse(body)
    assert (listing.unreadable, listing.nameless) == ({}, 0)
    pair = listing.known["BTC/USDT"]
    assert (pair.price_decimals, pair.qty_decimals, pair.tick_size) == (1, 8, "0.1")
    body = (CAPTURES / "kraken_futures/http_futures_instruments.json").read_bytes()
    listing = kraken_futures.VENUE.listing.parse(body)
    assert (listing.unreadable, listing.nameless) == ({}, 0)
    pepe = listing.known["PF_PEPEUSD"]
    assert (pepe.price_decimals, pepe.tick_size, pepe.lot_size) == (10, "1e-10", "1000")


def test_the_listing_of_2021_has_contracts_and_indexes() -> None:
    text = (CAPTURES / LISTING).read_text(encoding="utf-8").partition(": ")[2]
    listing = kraken_futures.VENUE.listing.parse(text.encode())
    assert (listing.unreadable, listing.nameless) == ({}, 0)
    assert len(listing.known) == 17, "ten more are indexes"
    assert listing.known["fi_xbtusd_210924"].delivery_ns == 1632495600_000_000_000


@pytest.mark.parametrize(
    ("venue", "types"), [("kraken_spot", SPOT_TYPES), ("kraken_futures", FUTURES_TYPES)]
)
def test_every_recorded_field_is_taken_or_left_for_a_reason(
    venue: str, types: tuple[type, ...]
) -> None:
    found = set()
    for path in sorted((CAPTURES / venue).glob("*.json")):
        if path.name not in NOT_CALLED:
            found |= names_in(_without_names(path))
    if venue == "kraken_futures":
        found |= {name for _, frame in session(SESSION) for name in names_in(json.loads(frame))}
    assert found - taken(*types) - ignored("kraken") == set()


def _without_names(path: Path) -> object:
    """The pairs of a listing of spot are members by name."""
    said = json.loads(path.read_text(encoding="utf-8"))
    return list(said["result"].values()) if path.name == "http_asset_pairs.json" else said
