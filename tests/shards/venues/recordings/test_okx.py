"""What OKX was recorded to say: a session of 2022, and single messages of 2021 to 2026."""

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import pytest

from engine.data.flags import Flag
from engine.data.instrument import Instrument, InstrumentKind, SizeUnit
from engine.data.names import StreamKind
from shards.venues import VENUES
from shards.venues.okx import messages as wire
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

SESSION: Final = "okx/OKX.ws.1.0"
SYMBOLS: Final = ("BTC-USD-220527", "UNI-USD-SWAP", "BTC-USDT")
SUMMED_LEVELS: Final = 25
TS_RECV: Final = 1_800_000_000_000_000_000
CHANNELS: Final = (
    wire.Trades, wire.Books, wire.Quotes, wire.FundingRates, wire.MarkPrices, wire.IndexTickers,
    wire.OpenInterests, wire.LiquidationOrders, wire.Event, wire.Instruments, wire.Instrument,
)  # fmt: skip


def numbered() -> Iterator[tuple[int, bytes]]:
    """The session, with the ids that messages of books have today: in 2022 they had none."""
    last: Counter[str] = Counter()
    for ts_recv, frame in session(SESSION):
        said = json.loads(frame)
        if said["arg"]["channel"] == "books" and "data" in said:
            (book,), symbol = said["data"], said["arg"]["instId"]
            book["prevSeqId"] = last[symbol] if said["action"] == "update" else -1
            last[symbol] = book["seqId"] = last[symbol] + 1
        yield ts_recv, json.dumps(said).encode()


def of_channel(channel: str) -> list[dict[str, Any]]:
    """What the session brought on a channel."""
    said = [json.loads(frame) for _, frame in session(SESSION)]
    return [each for each in said if each["arg"]["channel"] == channel and "data" in each]


@pytest.fixture(scope="module", name="heard")
def heard_in_the_session() -> Heard:
    return hear("okx", SYMBOLS, [StreamKind.TRADES, StreamKind.L2_BOOK], numbered())


def slot_of(symbol: str, kind: StreamKind) -> int:
    """As `hear` gives them."""
    return 1 + 2 * SYMBOLS.index(symbol) + (kind is StreamKind.L2_BOOK)


def test_every_trade_is_a_row_with_what_it_said(heard: Heard) -> None:
    rows, said = heard.double.rows("trade"), of_channel("trades")
    assert len(rows) == len(said) == 74
    for row, message in zip(rows, said, strict=True):
        (trade,), symbol = message["data"], message["arg"]["instId"]
        assert row["stream"] == slot_of(symbol, StreamKind.TRADES)
        assert row["trade_id"] == int(trade["tradeId"])
        assert (text(row["price"]), text(row["qty"])) == (trade["px"], trade["sz"])
        assert chr(row["side"]) == {"buy": "B", "sell": "S"}[trade["side"]]
        assert row["ts_event"] == int(trade["ts"]) * 1_000_000


def test_only_a_channel_that_nobody_collects_is_refused(heard: Heard) -> None:
    assert heard.bad == ["schema"] * len(of_channel("tickers"))
    assert heard.talk.words == [["acknowledged", None]] * 18


def test_every_checksum_is_that_of_the_rows_stored_so_far(heard: Heard) -> None:
    rows = heard.double.rows("book")
    known: dict[str, dict[str, dict[float, float]]] = {}
    seq: Counter[str] = Counter()
    for message in of_channel("books"):
        (said,), symbol = message["data"], message["arg"]["instId"]
        if message["action"] == "snapshot":
            known[symbol] = {"b": {}, "a": {}}
        seq[symbol] += 1
        book, slot = known[symbol], slot_of(symbol, StreamKind.L2_BOOK)
        event = rows[(rows["stream"] == slot) & (rows["seq"] == seq[symbol])]
        assert len(event) == len(said["bids"]) + len(said["asks"])
        for side, price, qty in event[["side", "price", "qty"]].tolist():
            book[chr(side)][price] = qty
        for side in book:
            book[side] = {price: qty for price, qty in book[side].items() if qty}
        assert checksum(book["b"], book["a"]) == said["checksum"]
    assert sum(seq.values()) == 290


def test_no_chain_is_broken(heard: Heard) -> None:
    books = [slot_of(symbol, StreamKind.L2_BOOK) for symbol in SYMBOLS]
    gaps = heard.double.rows("gap")
    assert [gap for gap in gaps["stream"].tolist() if gap in books] == []
    assert_books_are_in_order(heard)


def text(number: float) -> str:
    """As the venue writes it: no digit more than it has."""
    return f"{Decimal(repr(float(number))).normalize():f}"


def checksum(bids: dict[float, float], asks: dict[float, float]) -> int:
    """The venue's rule of that time."""
    sides = [sorted(bids.items(), reverse=True), sorted(asks.items())]
    words = [
        f"{text(price)}:{text(qty)}"
        for place in range(SUMMED_LEVELS)
        for side in sides
        for price, qty in side[place : place + 1]
    ]
    value = zlib.crc32(":".join(words).encode())
    return value - (1 << 32) if value >= 1 << 31 else value


def rows_of(symbol: str, kind: StreamKind, *files: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What a stream stores of single messages, and reasons of those that were refused."""
    frames = [(TS_RECV, frame) for file in files for frame in messages(f"okx/{file}.json")]
    heard = hear("okx", [symbol], [kind], frames)
    names = {
        StreamKind.TRADES: "trade", StreamKind.TICKER: "quote", StreamKind.FUNDING: "funding",
        StreamKind.OPEN_INTEREST: "open_interest", StreamKind.LIQUIDATIONS: "liquidation",
        StreamKind.L2_BOOK: "book",
    }  # fmt: skip
    rows = heard.double.rows(names[kind])
    return [{name: row[name].item() for name in row.dtype.names} for row in rows], heard.bad


SINGLE: Final[Sequence[tuple[str, StreamKind, str, dict[str, Any]]]] = (
    (
        "BTC-USD", StreamKind.TRADES, "ws_trades",
        {"trade_id": 130639474, "price": 42219.9, "qty": 0.12060306, "side": ord("B")},
    ),
    (
        "FIL-USD-220325", StreamKind.TRADES, "ws_trades_futures",
        {"trade_id": 1271987, "price": 36.239, "qty": 11.0, "ts_event": 1640131185600000000},
    ),
    (
        "BTC-USD-211224-56000-C", StreamKind.TRADES, "ws_trades_option_2021",
        {"trade_id": 376, "price": 0.0005, "qty": 1.0},
    ),
    (
        "BTC-USDT", StreamKind.TICKER, "ws_bbo_tbt",
        {"seq": 123456, "bid": 8476.97, "bid_qty": 256.0, "ask": 8476.98, "ask_qty": 415.0},
    ),
    (
        "FIL-USDT-220325", StreamKind.OPEN_INTEREST, "ws_open_interest_futures",
        {"qty": 236870.0, "ts_event": 1640131202886000000},
    ),
    (
        "XRP-USD-230929", StreamKind.LIQUIDATIONS, "ws_liquidation_orders_futures",
        {"side": ord("B"), "price": 0.55205, "qty": 39.0, "ts_event": 1680173247614000000},
    ),
)  # fmt: skip


@pytest.mark.parametrize(("symbol", "kind", "file", "facts"), SINGLE)
def test_a_single_message_becomes_this_row(
    symbol: str, kind: StreamKind, file: str, facts: dict[str, Any]
) -> None:
    (row,), bad = rows_of(symbol, kind, file)
    assert {name: row[name] for name in facts} == facts
    assert bad == []


def test_a_dated_future_has_a_mark_price_an_index_and_no_rate() -> None:
    files = ("ws_index_tickers_futures", "ws_mark_price_futures")
    (row,), bad = rows_of("FIL-USDT-220325", StreamKind.FUNDING, *files)
    assert (row["mark"], row["index"], row["interval_s"]) == (36.232, 35.583, 0)
    assert row["flags"] & int(Flag.NO_RATE)
    assert bad == []


def test_a_future_that_never_ends_pays_funding() -> None:
    """Its rate has more digits than a row: it is marked."""
    symbol = "BTC-USD_UM_XPERP-310404"
    (rate,) = messages("okx/ws_funding_rate_xperp.json")
    mark = {
        "arg": {"channel": "mark-price", "instId": symbol},
        "data": [{"instId": symbol, "markPx": "64000.1", "ts": "1785870855700"}],
    }
    frames = [(TS_RECV, rate), (TS_RECV, json.dumps(mark).encode())]
    heard = hear("okx", [symbol], [StreamKind.FUNDING], frames)
    (row,) = heard.double.rows("funding")
    assert row["rate"] == pytest.approx(-0.0004270396398519)
    assert row["next_ts"] == 1785888000000 * 1_000_000
    assert row["interval_s"] == 8 * 3600
    assert row["flags"] & int(Flag.INEXACT)


@pytest.mark.parametrize("kind", ["spot", "swap", "futures", "option"])
def test_instruments_of_today_are_read(kind: str) -> None:
    body = (CAPTURES / f"okx/http_get_instruments_{kind}.json").read_bytes()
    listing = VENUES["okx"].listing.parse(body)
    assert (listing.unreadable, listing.nameless) == ({}, 0)
    assert len(listing.known) == len(json.loads(body)["data"])


def test_contracts_have_their_size_and_its_unit() -> None:
    found: dict[str, Instrument] = {}
    for kind in ("swap", "futures", "spot", "option"):
        body = (CAPTURES / f"okx/http_get_instruments_{kind}.json").read_bytes()
        found |= VENUES["okx"].listing.parse(body).known
    facts = {
        symbol: (each.kind, each.contract_size, each.contract_unit, each.settle, each.delivery_ns)
        for symbol, each in found.items()
    }
    kinds, units = InstrumentKind, SizeUnit
    assert facts["BTC-USD-SWAP"] == (kinds.PERPETUAL, "100", units.QUOTE, "BTC", 0)
    assert facts["ETH-USDT-SWAP"] == (kinds.PERPETUAL, "0.1", units.BASE, "USDT", 0)
    assert facts["BTC-USD"] == (kinds.SPOT, "1", units.BASE, "USD", 0)
    delivery_ns = 1734681600000 * 1_000_000
    assert facts["BTC-USD-241220"] == (kinds.FUTURE, "100", units.QUOTE, "BTC", delivery_ns)
    assert facts["BTC-USD-241217-92000-C"] == (
        kinds.OPTION, "0.01", units.BASE, "BTC", 1734422400000 * 1_000_000,
    )  # fmt: skip


def test_the_recorded_listing_is_read_whole() -> None:
    for line in (CAPTURES / "okx/OKX.0").read_text(encoding="utf-8").splitlines():
        body = line[line.index("{") :].encode()
        listing = VENUES["okx"].listing.parse(body)
        assert (dict(listing.unreadable), listing.nameless) == ({}, 0)
        assert listing.known.keys() == {row["instId"] for row in json.loads(body)["data"]}


def recorded() -> Iterator[tuple[str, Any]]:
    """Every message and answer, with its file."""
    for path in sorted((CAPTURES / "okx").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for each in found if isinstance(found, list) else [found]:
            yield path.stem, each
    for _, frame in session(SESSION):
        yield "session", json.loads(frame)


def test_every_field_is_taken_or_said_to_be_left() -> None:
    known = taken(*CHANNELS) | ignored("okx")
    for file, said in recorded():
        channel = said.get("arg", {}).get("channel", "")
        left = {channel} if channel in ignored("okx") else names_in(said)
        assert left <= known, (file, left - known)
