"""Deribit as it was recorded: a session of 2021, ten options on one socket, and single messages of
2019 to 2026.
"""

import json
from collections.abc import Iterator

import pytest

from engine.data.flags import Flag, Side
from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from shards.venues import VENUES
from shards.venues.deribit.messages import (
    Book,
    Head,
    Listed,
    Notification,
    Quote,
    Said,
    Ticker,
    Trade,
)
from shards.venues.deribit.messages import Instrument as Row
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

NAME, FOLDER = "deribit", "deribit"
SESSION = f"{FOLDER}/DERIBIT.ws.1.0"
KINDS = tuple(kind for kind, transport in VENUES[NAME].channels if transport == "Ws")
TS_RECV = 1_800_000_000_000_000_000
NOT_OURS = {
    "ws_volatility_index": "a channel that no kind of stream is on",
    "ws_book_grouped_snapshot": "levels without a word, of a channel that is not subscribed",
}
"""Messages that are refused, and why."""
NEVER_ASKED = ("http_get_combos", "http_get_expirations", "http_get_last_trades")
"""Answers of calls that are not made."""


def data_of(frame: bytes) -> tuple[str, str] | None:
    """Kind and instrument of a notification."""
    channel = json.loads(frame).get("params", {}).get("channel")
    return tuple(channel.split(".")[:2]) if channel else None


@pytest.fixture(scope="module")
def heard() -> Heard:
    frames = list(session(SESSION))
    symbols = {found[1] for _, frame in frames if (found := data_of(frame))}
    return hear(NAME, sorted(symbols), KINDS, frames)


def single(name: str) -> Heard:
    """A file of single messages, heard by streams of the instruments that it names."""
    frames = messages(f"{FOLDER}/{name}.json")
    symbols = {found[1] for frame in frames if (found := data_of(frame))} or {"BTC-PERPETUAL"}
    return hear(NAME, sorted(symbols), KINDS, [(TS_RECV, frame) for frame in frames])


SINGLE = sorted(path.stem for path in (CAPTURES / FOLDER).glob("ws_*.json"))


def test_every_message_of_the_session_is_read(heard: Heard) -> None:
    rows = {kind: len(heard.double.rows(kind)) for kind in ("book", "funding", "open_interest")}
    assert heard.bad == []
    assert rows == {"book": 150, "funding": 89, "open_interest": 89}  # 149 levels, one empty book
    assert [len(heard.double.rows(kind)) for kind in ("trade", "quote", "liquidation")] == [0] * 3
    ((word, number, *topics),) = heard.talk.words
    assert (word, number, len(topics)) == ("acknowledged", 0, 30)


def test_books_chain_without_a_hole(heard: Heard) -> None:
    """10 snapshots and 36 changes, each of which names the one before."""
    assert len(heard.double.rows("gap")) == 0
    rows = heard.double.rows("book")
    begins = rows[rows["flags"] & Flag.FIRST_IN_EVENT > 0]
    assert len(begins) == 46
    for stream in set(begins["stream"].tolist()):
        first, *rest = begins[begins["stream"] == stream]
        assert first["flags"] & Flag.SNAPSHOT
        assert not any(each["flags"] & Flag.SNAPSHOT for each in rest)
        seqs = [first["seq"], *(each["seq"] for each in rest)]
        assert [each["prev_seq"] for each in rest] == seqs[:-1]
    assert_books_are_in_order(heard)


def test_some_values_of_the_session_are_those_of_the_text(heard: Heard) -> None:
    book = heard.double.rows("book")
    event = book[book["seq"] == 13169031288]
    values = ("prev_seq", "side", "price", "qty", "ts_event")
    assert event[list(values)].tolist() == [
        (13169025645, int(Side.BID), 0.0015, 4737.0, 1626993725864000000)
    ]
    funding = heard.double.rows("funding")
    first = funding[funding["ts_event"] == 1626993723632000000][0]
    assert (first["mark"], first["index"], first["rate"]) == (0.001972, 2006.72, 0.0)
    assert first["flags"] & Flag.NO_RATE, "an option"
    assert heard.double.rows("open_interest")["qty"][0] == 12685.0


@pytest.mark.parametrize("name", SINGLE)
def test_single_messages_are_read_but_those_of_other_channels(name: str) -> None:
    assert single(name).bad == (["schema"] if name in NOT_OURS else [])


def test_trades_and_the_liquidations_among_them() -> None:
    trade = ["trade_id", "side", "price", "qty", "ts_event"]
    assert single("ws_trades").double.rows("trade")[trade].tolist() == [
        (271252854, int(Side.SELL), 92294.5, 10.0, 1765531356452000000),
        (271252855, int(Side.SELL), 92288.5, 750.0, 1765531356452000000),
    ]
    found = single("ws_trades_liquidation").double
    assert found.rows("trade")[trade].tolist() == [
        (40781986, int(Side.SELL), 4469.5, 1120.0, 1584058044032000000),
        (40782080, int(Side.BUY), 4458.5, 2500.0, 1584058067675000000),
    ]
    order = ["side", "price", "avg_price", "qty", "filled_qty", "ts_event"]
    assert found.rows("liquidation")[order].tolist() == [
        (int(Side.SELL), 4469.5, 4469.5, 1120.0, 1120.0, 1584058044032000000),  # the taker's
        (int(Side.SELL), 4458.5, 4458.5, 2500.0, 2500.0, 1584058067675000000),  # the maker's
    ]


def test_a_perpetual_has_a_rate_of_eight_hours() -> None:
    found = single("ws_ticker").double
    values = ["rate", "mark", "index", "interval_s", "flags", "ts_event"]
    assert found.rows("funding")[values].tolist() == [
        (0.0, 92281.78, 92263.55, 28800, 0, 1765541474086000000)
    ]
    assert found.rows("open_interest")["qty"].tolist() == [1132329370.0]


def test_a_quote() -> None:
    values = ["bid", "bid_qty", "ask", "ask_qty", "ts_event"]
    assert single("ws_quote").double.rows("quote")[values].tolist() == [
        (92288.0, 133440.0, 92288.5, 99470.0, 1765541767174000000)
    ]


def test_odd_books_begin_whole() -> None:
    """A snapshot that names one before it, one side of it empty; a first change that follows
    nothing.
    """
    for name in ("ws_book_snapshot", "ws_book_snapshot_with_prev", "ws_book_change_prev_zero"):
        rows = single(name).double.rows("book")
        assert (rows["flags"] & Flag.SNAPSHOT).all(), name


def test_what_is_said_beside_data() -> None:
    assert single("ws_error").talk.words == [["refused", "too_many_requests (10028)", 1]]
    (answer,) = single("ws_test_request").talk.words
    assert answer[0] == "answer"


def listings() -> Iterator[tuple[str, dict[str, Instrument]]]:
    """Each recorded listing, by where it is."""
    bodies = [
        line.partition(": ")[2]
        for line in (CAPTURES / FOLDER / "DERIBIT.0").read_text("utf-8").splitlines()
    ]
    bodies += [
        (CAPTURES / FOLDER / f"http_get_instruments{more}.json").read_text("utf-8")
        for more in ("", "_option_combo")
    ]
    for number, body in enumerate(bodies):
        found = VENUES[NAME].listing.parse(body.encode())
        assert (found.unreadable, found.nameless) == ({}, 0)
        yield str(number), dict(found.known)


def test_listings_are_read() -> None:
    found = dict(listings())
    assert [len(each) for each in found.values()] == [40, 40, 40, 16, 3, 0]  # combinations are not
    of_2025 = found["4"]
    perpetual, future, option = of_2025.values()
    assert (perpetual.symbol, perpetual.kind) == ("BTC-PERPETUAL", InstrumentKind.PERPETUAL)
    assert (perpetual.contract_unit, perpetual.contract_size) == (SizeUnit.QUOTE, "1")
    assert (perpetual.price_decimals, perpetual.tick_size, perpetual.lot_size) == (2, "0.5", "10")
    assert perpetual.delivery_ns == 0
    assert (future.kind, future.delivery_ns) == (InstrumentKind.FUTURE, 1735300800000000000)
    assert (option.kind, option.contract_unit) == (InstrumentKind.OPTION, SizeUnit.BASE)
    states = {each.state for listing in found.values() for each in listing.values()}
    assert states == {InstrumentState.TRADING}
    linear = found["3"]["SOL_USDC-PERPETUAL"]
    assert (linear.contract_unit, linear.settle) == (SizeUnit.BASE, "USDC")


def test_every_field_is_taken_or_left_for_a_reason() -> None:
    said = {name for _, frame in session(SESSION) for name in names_in(json.loads(frame))}
    for path in (CAPTURES / FOLDER).glob("*.json"):
        if path.stem not in NOT_OURS and not path.stem.startswith(NEVER_ASKED):
            said |= names_in(json.loads(path.read_text("utf-8")))
    for line in (CAPTURES / FOLDER / "DERIBIT.0").read_text("utf-8").splitlines():
        said |= names_in(json.loads(line.partition(": ")[2]))
    types = [Notification[list[Trade]], Notification[Book], Notification[Quote]]
    known = taken(*types, Notification[Ticker], Head, Said, Listed, Row)
    assert said - known - ignored(NAME) == set()
    assert ignored(NAME) - said == set(), "the page names what no message has"
    assert ignored(NAME) & known == set(), "the page says that it is left, and it is taken"
