"""Coinbase as it was recorded: a session of the exchange's feed of 2021, and single messages of
Advanced Trade of 2026.
"""

import json
from collections import Counter, defaultdict
from typing import Any, Final

from engine.data.flags import Flag
from engine.data.names import StreamKind
from shards.venues import VENUES
from shards.venues.coinbase import exchange
from shards.venues.coinbase import messages as advanced
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

KINDS: Final = (StreamKind.TRADES, StreamKind.L2_BOOK, StreamKind.TICKER)
SESSION: Final = "coinbase_exchange/COINBASE.ws.28.0"
PRODUCTS: Final = (
    "SKL-USD", "SKL-BTC", "BAND-GBP", "NMR-EUR", "BAND-BTC", "YFI-BTC", "DASH-BTC", "NU-GBP",
    "CRV-EUR", "SKL-GBP",
)  # fmt: skip
NOT_ASKED: Final = {
    "http_product_book.json": "books are pushed",
    "http_ticker.json": "trades are pushed",
}
"""Recorded answers to calls that nobody makes, and why not."""


def values(heard: Heard, kind: str, *names: str) -> list[tuple[Any, ...]]:
    """Fields of the rows of a kind."""
    found: list[tuple[Any, ...]] = heard.double.rows(kind)[list(names)].tolist()
    return found


def test_a_session_of_the_exchange_is_stored_whole() -> None:
    """36 matches and ten last ones, 6,318 updates of a level each, 46 tickers: none is bad. Ids of
    trades have no hole, and a product's book goes on from what came before.
    """
    heard = hear("coinbase_exchange", PRODUCTS, KINDS, session(SESSION))
    assert heard.bad == []
    assert heard.talk.words == [["acknowledged", None]] * 3
    assert len(heard.double.rows("trade")) == 46
    assert len(heard.double.rows("quote")) == 46
    assert heard.double.rows("gap").size == 0
    book = heard.double.rows("book")
    starts = book[(book["flags"] & int(Flag.FIRST_IN_EVENT)) != 0]
    is_whole = (starts["flags"] & int(Flag.SNAPSHOT)) != 0
    assert Counter(is_whole.tolist()) == {True: 10, False: 6318}
    last: dict[int, int] = {}
    for stream, seq, previous in starts[["stream", "seq", "prev_seq"]].tolist():
        assert previous == last.get(stream, 0)
        last[stream] = seq
    assert_books_are_in_order(heard)


def test_values_of_the_session_are_those_that_were_sent() -> None:
    """The maker sold 0.04 at 14.7775: the taker bought. So says the ticker of the same trade."""
    heard = hear("coinbase_exchange", PRODUCTS, KINDS, session(SESSION))
    trade = ("trade_id", "side", "price", "qty", "ts_event")
    assert values(heard, "trade", *trade)[0] == (
        881613, ord("B"), 14.7775, 0.04, 1618677810244075000,
    )  # fmt: skip
    quote = ("seq", "bid", "bid_qty", "ask", "ask_qty", "ts_event")
    assert values(heard, "quote", *quote)[0] == (
        333938798, 14.755, 0.0, 14.806, 0.0, 1618677810244075000,
    )  # fmt: skip
    level = ("side", "price", "qty", "ts_event", "seq")
    delta = (ord("a"), 0.00001306, 660.5, 1618677817075687000, 1618677817075687)
    assert delta in values(heard, "book", *level)


def test_tickers_say_the_taker_where_matches_say_the_maker() -> None:
    """What makes the inversion certain: both are of the same trade."""
    sides: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for _, frame in session(SESSION):
        said = json.loads(frame)
        if "trade_id" in said:
            sides[said["trade_id"]]["ticker" if said["type"] == "ticker" else "match"] = said[
                "side"
            ]
    both = [each for each in sides.values() if len(each) == 2]
    assert len(both) == 46
    assert all(each["ticker"] != each["match"] for each in both)


def test_books_of_the_session_are_never_crossed_at_its_end() -> None:
    heard = hear("coinbase_exchange", PRODUCTS, KINDS, session(SESSION))
    books: defaultdict[int, dict[int, dict[float, float]]] = defaultdict(
        lambda: {ord("b"): {}, ord("a"): {}}
    )
    for stream, side, price, qty in values(heard, "book", "stream", "side", "price", "qty"):
        if qty:
            books[stream][side][price] = qty
        else:
            books[stream][side].pop(price, None)
    assert len(books) == len(PRODUCTS)
    assert all(max(each[ord("b")]) < min(each[ord("a")]) for each in books.values())


def test_products_of_the_exchange_are_listed() -> None:
    text = (CAPTURES / "coinbase_exchange" / "COINBASE.0").read_text(encoding="utf-8")
    body = text[text.index(": [") + 2 :].encode()
    listing = VENUES["coinbase_exchange"].listing.parse(body)
    assert (len(listing.known), listing.unreadable, listing.nameless) == (162, {}, 0)
    skl = listing.known["SKL-EUR"]
    assert (skl.tick_size, skl.lot_size, skl.state) == ("0.0001", "0.1", "trading")


def heard_of(name: str, kind: StreamKind) -> Heard:
    """A message of Advanced Trade, with one stream behind it."""
    frames = [(1, frame) for frame in messages(f"coinbase_advanced/{name}.json")]
    heard = hear("coinbase", ["BTC-USD"], [kind], frames)
    assert heard.bad == []
    return heard


def test_messages_of_advanced_trade_make_these_rows() -> None:
    trade = ("trade_id", "side", "price", "qty", "ts_event")
    assert values(heard_of("ws_market_trades", StreamKind.TRADES), "trade", *trade) == [
        (995098700, ord("S"), 68900.5, 0.0015, 1775572202789012000),
        (995098701, ord("B"), 68900.0, 0.05, 1775572202800000000),
    ]
    quote = ("bid", "bid_qty", "ask", "ask_qty", "ts_event")
    assert values(heard_of("ws_ticker", StreamKind.TICKER), "quote", *quote) == [
        (68900.0, 1.5, 68901.0, 0.5, 1775572203000000000)
    ]
    assert heard_of("ws_heartbeats", StreamKind.TRADES).talk.words == []
    said = heard_of("ws_subscriptions", StreamKind.TRADES).talk.words
    assert said == [["ready"], ["acknowledged", None]]


def test_an_update_of_advanced_trade_goes_on_from_its_snapshot() -> None:
    names = ("ws_l2_data_snapshot", "ws_l2_data_update")
    frames = [(1, each) for name in names for each in messages(f"coinbase_advanced/{name}.json")]
    heard = hear("coinbase", ["BTC-USD"], [StreamKind.L2_BOOK], frames)
    assert (heard.bad, heard.talk.words) == ([], [])
    update_us = 1775572201456789
    snapshot = update_us - 1
    fields = ("seq", "prev_seq", "side", "price", "qty", "ts_event")
    rows = values(heard, "book", *fields)
    assert rows[0] == (snapshot, 0, ord("b"), 68900.0, 1.5, update_us * 1000)
    assert rows[3] == (snapshot, 0, ord("a"), 68901.0, 0.5, update_us * 1000)
    assert rows[6:] == [
        (update_us, snapshot, ord("b"), 68900.0, 2.0, update_us * 1000),
        (update_us, snapshot, ord("a"), 68901.0, 0.0, update_us * 1000),
    ]


def test_an_alias_is_listed_with_what_to_collect_instead() -> None:
    (body,) = messages("coinbase_advanced/http_products.json")
    listing = VENUES["coinbase"].listing.parse(body)
    assert list(listing.known) == ["BTC-USD"]
    assert listing.unreadable == {
        "BTC-USDC": "alias: another name of BTC-USD, under which its data comes"
    }


def test_every_field_of_every_message_is_taken_or_left_for_a_reason() -> None:
    left = ignored("coinbase")
    known = left | taken(
        exchange.Match, exchange.BookSnapshot, exchange.LevelUpdates, exchange.BestPrices,
        exchange.Subscriptions, exchange.Heartbeat, exchange.Product,
    )  # fmt: skip
    for _, frame in session(SESSION):
        assert names_in(json.loads(frame)) <= known
    text = (CAPTURES / "coinbase_exchange" / "COINBASE.0").read_text(encoding="utf-8")
    assert names_in(json.loads(text[text.index(": [") + 2 :])) <= known
    known = left | taken(
        advanced.MarketTrades, advanced.BookMessage, advanced.TickerMessage, advanced.Heartbeats,
        advanced.Subscriptions, advanced.Product, advanced.Products,
    )  # fmt: skip
    channels = {"level2", "market_trades"}  # in what is subscribed they are names of members
    for path in sorted((CAPTURES / "coinbase_advanced").iterdir()):
        if path.name not in NOT_ASKED:
            for frame in messages(f"coinbase_advanced/{path.name}"):
                assert names_in(json.loads(frame)) - channels <= known, path.name
