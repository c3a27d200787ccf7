"""Recorded sessions and messages of Binance's three markets."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest

from engine.data.names import StreamKind, Transport
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook
from shards.venues import VENUES
from shards.venues.binance import instruments as listed
from shards.venues.binance import messages as wire
from shards.venues.kit import Feeds, PollChannel
from tests.shards.doubles import MemoryRings, Said, spec_of
from tests.shards.venues.recordings.sessions import (
    CAPTURES,
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

LINEAR = "binance_linear/BINANCE_FUTURES"
INVERSE = "binance_inverse/BINANCE_DELIVERY"
SPOT = "binance_spot/BINANCE"
VENUE_OF = {LINEAR: "binance_linear", INVERSE: "binance_inverse", SPOT: "binance_spot"}
PUSHED = (StreamKind.TRADES, StreamKind.L2_BOOK, StreamKind.TICKER)
_ANSWER = re.compile(r"https?://\S+ -> (\d+\.\d+): (.*)", re.DOTALL)
_ASKED = re.compile(r"symbol=(\w+)")
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def frames(path: str) -> list[tuple[int, bytes]]:
    """A session without the wrapper of combined sockets, as ours bring it."""
    return [(ts_recv, bytes(_raw(frame)["data"])) for ts_recv, frame in session(f"{path}.ws.1.0")]


def pushed(path: str) -> list[bytes]:
    """Single messages without it."""
    return [bytes(_raw(frame)["data"]) for frame in messages(path)]


def answers(path: str) -> Iterator[tuple[int, str, bytes]]:
    """Answers: when they came, the symbol that was asked for, the body."""
    for line in (CAPTURES / path).read_text(encoding="utf-8").splitlines():
        if match := _ANSWER.match(line):
            asked = _ASKED.search(line.partition(" -> ")[0])
            yield int(float(match[1]) * 1e9), asked[1] if asked else "", match[2].encode()


def symbols_in(recorded: Iterable[tuple[int, bytes]]) -> list[str]:
    return sorted({json.loads(frame)["s"] for _, frame in recorded})


@pytest.mark.parametrize(
    ("path", "counts", "klines"),
    [
        (LINEAR, {"trade": 91, "quote": 613, "events": 764}, 67),
        (INVERSE, {"trade": 28, "quote": 1000, "events": 540}, 14),
        (SPOT, {"trade": 2, "quote": 84, "events": 177}, 2),
    ],
)
def test_a_session_is_read_whole_but_for_candles(
    path: str, counts: dict[str, int], klines: int
) -> None:
    recorded = frames(path)
    heard = hear(VENUE_OF[path], symbols_in(recorded), PUSHED, recorded)
    assert heard.bad == ["schema"] * klines, "candles, which nobody subscribes"
    books = heard.double.rows("book")
    found = {kind: len(heard.double.rows(kind)) for kind in ("trade", "quote")}
    assert found | {"events": int((books["flags"] & 2 > 0).sum())} == counts
    assert len(heard.double.rows("gap")) == 0, "ids grow by one, and every depth event follows"
    levels = (json.loads(frame) for _, frame in recorded)
    said = sum(
        len(each["b"]) + len(each["a"]) or 1 for each in levels if each.get("e") == "depthUpdate"
    )
    assert len(books) == said
    assert_books_are_in_order(heard)


def test_values_of_a_session_by_hand() -> None:
    spot = hear("binance_spot", ["NKNUSDT"], PUSHED, frames(SPOT)[:40])
    first = spot.double.rows("book")[0]
    names = ["seq", "prev_seq", "side", "price", "qty", "ts_event"]
    assert first[names].item() == (
        499869752, 499869749, ord("b"), 0.3513, 6195.0, 1633998512068000000,
    )  # fmt: skip
    inverse = hear("binance_inverse", ["BCHUSD_PERP"], PUSHED, frames(INVERSE)[:40])
    quote = inverse.double.rows("quote")[0]
    assert quote[["seq", "bid", "bid_qty", "ask", "ask_qty", "ts_event"]].item() == (
        167006084895, 427.84, 24.0, 427.9, 669.0, 1626916403864000000,
    )  # fmt: skip


@pytest.mark.parametrize("path", [LINEAR, INVERSE, SPOT])
def test_snapshots_taken_meanwhile_join_the_events(path: str) -> None:
    venue, recorded = VENUES[VENUE_OF[path]], frames(path)
    feeds, double = Feeds(), MemoryRings(1 << 16)
    books: dict[str, DeltaBook] = {}
    for slot, symbol in enumerate(symbols_in(recorded), 1):
        book = double.feed(spec_of(slot, venue.name, symbol, StreamKind.L2_BOOK), venue)
        assert isinstance(book, DeltaBook)
        book.subscribed()
        feeds.add(book)
        books[symbol] = book
    decode = venue.open_decoder(feeds, Said())
    depths = [frame for frame in recorded if b'"depthUpdate"' in frame[1]]
    snapshots = list(answers(f"{path}.http.0.0"))
    for ts_recv, symbol, body in sorted(
        [(ts_recv, "", frame) for ts_recv, frame in depths] + snapshots
    ):
        if not symbol:
            decode(body, ts_recv)
            continue
        assert venue.parse_book_snapshot is not None
        said = venue.parse_book_snapshot(body)
        at = said.ts_event or ts_recv
        books[symbol].on_snapshot(
            BookEvent(said.seq, 0, at, ts_recv, said.bids, said.asks, is_snapshot=True)
        )
    assert snapshots
    assert {symbol for _, symbol, _ in snapshots} == {
        symbol for symbol, book in books.items() if book.is_synced
    }
    assert len(double.rows("gap")) == 0


def polled(venue: str, symbol: str, kind: StreamKind, body: bytes) -> MemoryRings:
    """What an answer for one symbol makes."""
    channel = VENUES[venue].channels[kind, Transport.HTTP_POLL]
    assert isinstance(channel, PollChannel)
    double, feeds = MemoryRings(), Feeds()
    stream = double.feed(spec_of(1, venue, symbol, kind, Transport.HTTP_POLL), VENUES[venue])
    stream.subscribed()
    feeds.add(stream)
    channel.decode(body, feeds, 1_800_000_000_000_000_000, _no_bad_frame)
    return double


def _no_bad_frame(error: Exception, part: bytes) -> None:
    raise AssertionError(part) from error


def test_single_messages_by_hand() -> None:
    symbol = "BTCUSD_200925"
    kinds = (*PUSHED, StreamKind.FUNDING, StreamKind.LIQUIDATIONS)
    said = [
        (1, frame)
        for name in ("ws_mark_price_dated", "ws_force_order")
        for frame in pushed(f"binance_inverse/{name}.json")
    ]
    heard = hear("binance_inverse", [symbol], kinds, said)
    assert heard.bad == []
    (mark,), (order,) = (heard.double.rows(kind) for kind in ("funding", "liquidation"))
    assert mark[["mark", "index", "rate", "next_ts", "flags"]].item() == (
        9501.15723333, 0.0, 0.0, 0, 64,
    )  # fmt: skip
    assert order[["side", "price", "avg_price", "qty", "filled_qty"]].item() == (
        ord("S"), 9314.5, 9352.7, 3.0, 3.0,
    )  # fmt: skip
    body = (CAPTURES / "binance_inverse/http_open_interest.json").read_bytes()
    (interest,) = polled(
        "binance_inverse", symbol, StreamKind.OPEN_INTEREST, body
    ).rows("open_interest")  # fmt: skip
    assert interest[["qty", "ts_event"]].item() == (15279.0, 1592265372706000000)
    body = (CAPTURES / "binance_inverse/http_premium_index.json").read_bytes()
    rows = {row["symbol"]: row for row in json.loads(body)}
    for symbol, row in rows.items():
        (state,) = polled("binance_inverse", symbol, StreamKind.FUNDING, body).rows("funding")
        assert state["mark"] == float(row["markPrice"])
        assert bool(state["flags"] & 64) is (row["lastFundingRate"] == "")


def test_instruments_of_recorded_answers() -> None:
    found: dict[str, Counter[tuple[str, str, str]]] = {}
    for path, venue in VENUE_OF.items():
        ((_, _, body),) = answers(f"{path}.0")
        listing = VENUES[venue].listing.parse(body)
        assert (listing.unreadable, listing.nameless) == ({}, 0)
        assert len(listing.known) == len(json.loads(body)["symbols"])
        found[venue] = Counter(
            (each.kind, each.contract_size, each.contract_unit) for each in listing.known.values()
        )
    assert found["binance_spot"].keys() == {("spot", "1", "base")}
    assert {facts for facts in found["binance_linear"] if facts[1:] != ("1", "base")} == set()
    assert found["binance_inverse"].keys() == {
        (kind, size, "quote") for kind in ("perpetual", "future") for size in ("10", "100")
    }


COLLECTED = [
    wire.AggTrade, wire.DepthUpdate, wire.SpotDepthUpdate, wire.BookTicker, wire.SpotBookTicker,
    wire.MarkPriceUpdate, wire.ForceOrder, wire.Reply, wire.Depth, wire.ExchangeInfo,
    wire.RateLimits, wire.RateLimit, wire.PremiumIndex, wire.OpenInterest, wire.FundingInfo,
    wire.SettledRate, listed.SpotPair, listed.LinearContract, listed.InverseContract,
]  # fmt: skip
NOT_CALLED = {"http_agg_trades.json", "http_trades.json", "http_book_ticker.json"}
"""Answers to calls that are not made."""


def everything() -> Iterator[Any]:
    """Every recorded message of what is collected."""
    for venue in VENUE_OF.values():
        for path in sorted((CAPTURES / venue).iterdir()):
            name = f"{venue}/{path.name}"
            if path.suffix == ".json":
                found = messages(name) if path.name not in NOT_CALLED else []
            elif ".ws." in path.name:
                found = [frame for _, frame in session(name)]
            else:
                found = [body for _, _, body in answers(name)]
            yield from map(json.loads, found)


def test_every_field_is_taken_or_left_for_a_reason() -> None:
    left = ignored("binance")
    known = taken(*COLLECTED) | left
    unknown: set[str] = set()
    for message in everything():
        kind = message.get("data", message).get("e") if isinstance(message, dict) else None
        if kind not in left:
            unknown |= names_in(message) - known
    assert unknown == set()
