"""What a venue sends and nobody can read: frames given byte by byte, over a real socket."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
import uvloop
from picows import ws_create_server

from engine.base.clock import wall_ns
from engine.data.flags import Flag, GapReason, GapState
from engine.data.kind import RecordArray
from engine.data.kinds import GAP, KINDS
from engine.data.names import StreamKind
from engine.messages.settings import VenueSettings
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook
from shards.feeds.feed import Feed
from shards.transport.connection import Connection
from shards.venues import VENUES, salvage
from shards.venues.kit import Channel
from tests.shards.doubles import MemoryRings, Open, spec_of
from tests.shards.transport.test_connection import Server

BINANCE, HYPERLIQUID = "binance_linear", "hyperliquid_perp"
T = 1_795_000_000_000
MS = 1_000_000


class Heard:
    """What one stream made of the frames."""

    def __init__(self, stream: Feed, double: MemoryRings) -> None:
        self.stream = stream
        self.gaps: RecordArray = double.rows("gap")
        rows = {kind: double.rows(kind) for kind in KINDS if kind != GAP.name}
        self.rows = {kind: found for kind, found in rows.items() if len(found)}
        self.reasons = dict[str, int]()


def hear(
    venue: str, symbol: str, kind: StreamKind, frames: Sequence[bytes], neighbours: int = 0
) -> Heard:
    """Send frames to a stream on a socket of its own, or with streams of other symbols on it."""
    return uvloop.run(_hear(venue, symbol, kind, frames, neighbours))


async def _hear(
    venue: str, symbol: str, kind: StreamKind, frames: Sequence[bytes], neighbours: int
) -> Heard:
    sockets: asyncio.Queue[Server] = asyncio.Queue()
    server = await ws_create_server(lambda _: Server(sockets), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    double = MemoryRings(1 << 10)
    channel = VENUES[venue].channels[kind, spec_of(kind=kind).key.transport]
    assert isinstance(channel, Channel)
    symbols = [symbol, *(f"OTHER{number}" for number in range(neighbours))]
    streams = {
        channel.topic(each, VenueSettings()): double.feed(
            spec_of(slot, venue, each, kind), VENUES[venue]
        )
        for slot, each in enumerate(symbols)
    }  # fmt: skip
    stream = next(iter(streams.values()))
    connection = Connection(
        VENUES[venue], VENUES[venue].groups[channel.group], f"ws://127.0.0.1:{port}/",
        streams.items(), double.rings.publish, Open(), lifetime_s=3600.0,
    )  # fmt: skip
    running = asyncio.create_task(connection.run())
    peer = await asyncio.wait_for(sockets.get(), 10)
    await asyncio.wait_for(peer.received.get(), 10)
    for frame in frames:
        peer.send(frame)
    peer.transport.send_ping(b"")
    await asyncio.wait_for(peer.pongs.get(), 10)
    if isinstance(stream, DeltaBook):
        _join(stream)
    stream.tick(wall_ns())
    assert not running.done()
    assert connection.connect_count == 1, "the connection stays"
    heard = Heard(stream, double)
    heard.reasons = dict(connection.malformed_by_reason)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    server.close()
    await server.wait_closed()
    return heard


def _join(book: DeltaBook) -> None:
    level = [(10.0, 1.0)]
    book.on_snapshot(BookEvent(104, 0, T * MS, T * MS, level, level, is_snapshot=True))


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


def trades(*sizes: str | None) -> bytes:
    rows = [
        {"coin": "BTC", "side": "B", "px": "10.5", "sz": size, "time": T + n, "tid": 100 + n}
        for n, size in enumerate(sizes)
    ]
    for row in rows:
        if row["sz"] is None:
            del row["sz"]
    return written({"channel": "trades", "data": rows})


def bbo(n: int, px: str = "10.5") -> bytes:
    side = {"px": px, "sz": "1", "n": 1}
    data = {"coin": "BTC", "time": T + n, "bbo": [side, {"px": "11", "sz": "1", "n": 1}]}
    return written({"channel": "bbo", "data": data})


def ctx(mark: str | None, interest: str = "7") -> bytes:
    state = {"funding": "0.0001", "openInterest": interest, "oraclePx": "10", "markPx": mark}
    return written({"channel": "activeAssetCtx", "data": {"coin": "BTC", "ctx": state}})


def ticker(n: int, qty: str = "1") -> bytes:
    return written({"e": "bookTicker", "u": 100 + n, "s": "BTCUSDT", "b": "10", "B": "1",
                    "a": "11", "A": qty, "T": T + n, "E": T + n})  # fmt: skip


def mark(n: int, price: str | None = "10") -> bytes:
    return written({"e": "markPriceUpdate", "E": T + n, "s": "BTCUSDT", "p": price, "i": "10",
                    "r": "0.0001", "T": T})  # fmt: skip


def order(n: int, average: str = "10") -> bytes:
    said = {"s": "BTCUSDT", "S": "SELL", "q": "1", "p": "10", "ap": average, "z": "1", "T": T + n}
    return written({"e": "forceOrder", "E": T + n, "o": said})


def agg_trade(n: int, price: str = "10.5", number: object = None) -> bytes:
    return written({"e": "aggTrade", "E": T + n, "s": "BTCUSDT",
                    "a": 100 + n if number is None else number, "p": price, "q": "1",
                    "T": T + n, "m": False})  # fmt: skip


def depth(n: int, *levels: tuple[str, str]) -> bytes:
    return written({"e": "depthUpdate", "E": T + n, "s": "BTCUSDT", "T": T + n, "U": 100 + n,
                    "u": 100 + n, "pu": 99 + n, "b": levels or [("10", "1")],
                    "a": [("11", "1")]})  # fmt: skip


def whole(n: int, size: str = "1") -> bytes:
    levels = [[{"px": "10", "sz": size, "n": 1}], [{"px": "11", "sz": "1", "n": 1}]]
    return written({"channel": "l2Book", "data": {"coin": "BTC", "time": T + n, "levels": levels}})


Case = tuple[str, str, StreamKind, list[bytes], str, int, int]
CASES: dict[str, Case] = {
    "trade of nothing": (
        HYPERLIQUID, "BTC", StreamKind.TRADES, [trades("1", "0.0", "2")], "trade", 2, 1,
    ),
    "trade without size": (
        HYPERLIQUID, "BTC", StreamKind.TRADES, [trades("1", None, "2")], "trade", 2, 1,
    ),
    "negative bid": (
        HYPERLIQUID, "BTC", StreamKind.TICKER, [bbo(1), bbo(2, "-1"), bbo(3)], "quote", 2, 1,
    ),
    "infinite interest": (
        HYPERLIQUID, "BTC", StreamKind.FUNDING_OPEN_INTEREST,
        [ctx("10"), ctx("10", "inf"), ctx("11")], "open_interest", 2, 2,
    ),
    "level of an unknown price": (
        HYPERLIQUID, "BTC", StreamKind.L2_BOOK, [whole(1), whole(2, "x"), whole(3)], "book", 4, 2,
    ),
    "absurd quantity": (
        BINANCE, "BTCUSDT", StreamKind.TICKER, [ticker(1), ticker(2, "1e30"), ticker(3)],
        "quote", 2, 1,
    ),
    "no number": (
        BINANCE, "BTCUSDT", StreamKind.FUNDING, [mark(1), mark(2, "NaN"), mark(3)],
        "funding", 2, 1,
    ),
    "empty average": (
        BINANCE, "BTCUSDT", StreamKind.LIQUIDATIONS, [order(1), order(2, ""), order(3)],
        "liquidation", 2, 1,
    ),
    "microseconds": (
        BINANCE, "BTCUSDT", StreamKind.TICKER,
        [ticker(1), ticker(2).replace(b"%d" % T, b"%d" % (T * 1000)).replace(
            b"%d" % (T + 2), b"%d" % ((T + 2) * 1000)), ticker(3)],
        "quote", 2, 1,
    ),
}  # fmt: skip


@pytest.mark.fault("N03")
@pytest.mark.fault("N13")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_its_neighbours_are_stored_and_it_is_declared(case: Case) -> None:
    venue, symbol, kind, frames, table, stored, refused = case
    heard = hear(venue, symbol, kind, frames)
    assert len(heard.rows[table]) == stored
    assert heard.stream.refused_count == refused
    assert sum(heard.reasons.values()) == 1
    (gap,) = heard.gaps
    assert (gap["reason"], gap["missing"]) == (GapReason.UNREADABLE, refused)
    at = heard.rows[table]["ts_event"]
    if kind is not StreamKind.TRADES:
        assert gap["from_ts"] <= at[-1]
        assert at[0] <= gap["to_ts"]
    assert heard.stream.status().refused_count == refused


@pytest.mark.fault("N03")
def test_a_null_that_the_venue_means_is_no_refusal() -> None:
    heard = hear(HYPERLIQUID, "BTC", StreamKind.FUNDING_OPEN_INTEREST, [ctx(None)])
    assert heard.rows["funding"]["mark"].tolist() == [0.0]
    assert len(heard.rows["open_interest"]) == 1
    heard = hear(BINANCE, "BTCUSDT", StreamKind.FUNDING, [mark(1, None)])
    assert heard.rows["funding"]["mark"].tolist() == [0.0]
    assert heard.stream.refused_count == len(heard.gaps) == 0


@pytest.mark.fault("N03")
@pytest.mark.parametrize("number", [None, "x"], ids=["its id is read", "its id is not"])
def test_one_gap_names_the_id_of_a_trade_that_cannot_be_read(number: str | None) -> None:
    frames = [agg_trade(1), agg_trade(2, "NaN", number), agg_trade(3), agg_trade(6)]
    heard = hear(BINANCE, "BTCUSDT", StreamKind.TRADES, frames)
    assert heard.rows["trade"]["trade_id"].tolist() == [101, 103, 106]
    named = heard.gaps[["reason", "state", "from_seq", "to_seq", "missing"]].tolist()
    assert named == [
        (GapReason.UNREADABLE, GapState.UNRECOVERABLE, 102, 102, 1),
        (GapReason.SEQUENCE, GapState.UNRECOVERABLE, 104, 105, 2),
    ]


@pytest.mark.fault("N03")
def test_an_id_of_nonsense_moves_no_sequence() -> None:
    """Whose other fields cannot be read is not believed its id either."""
    frames = [agg_trade(1), agg_trade(2, "NaN", 4_200_000_000), agg_trade(3)]
    heard = hear(BINANCE, "BTCUSDT", StreamKind.TRADES, frames)
    assert heard.rows["trade"]["trade_id"].tolist() == [101, 103]
    (gap,) = heard.gaps
    assert (gap["reason"], gap["from_seq"], gap["to_seq"]) == (GapReason.UNREADABLE, 102, 102)


@pytest.mark.fault("N03")
def test_a_trade_that_was_stored_and_comes_again_unreadably_is_a_repetition() -> None:
    frames = [agg_trade(1), agg_trade(2), agg_trade(1, "NaN"), agg_trade(3)]
    heard = hear(BINANCE, "BTCUSDT", StreamKind.TRADES, frames)
    assert len(heard.gaps) == heard.stream.refused_count == 0
    assert heard.stream.duplicate_count == 1


@pytest.mark.fault("N03")
def test_a_book_starts_anew_after_an_event_that_cannot_be_read() -> None:
    """Its other level is not applied: the book would be one that never was."""
    frames = [depth(1), depth(2, ("10", "1"), ("NaN", "1")), depth(3), depth(4)]
    heard = hear(BINANCE, "BTCUSDT", StreamKind.L2_BOOK, frames)
    (gap,) = heard.gaps
    assert (gap["reason"], gap["from_seq"], gap["to_seq"]) == (GapReason.UNREADABLE, 102, 102)
    assert gap["missing"] == heard.stream.refused_count == 3
    rows = heard.rows["book"]
    assert 102 not in rows["seq"]
    first = rows[rows["seq"] == 103][0]
    assert first["flags"] & Flag.AFTER_GAP
    assert (rows["flags"] & Flag.SNAPSHOT).any(), "the book has started anew"


@pytest.mark.fault("N03")
@pytest.mark.parametrize("damage", [b"1.5", b'"\xff"', b'"NOPE"', b"null"])
def test_what_names_nobody_may_have_been_anybodys(damage: bytes) -> None:
    """Two streams it can have been meant for: each says that it may miss something there."""
    nameless = ticker(2).replace(b'"BTCUSDT"', damage)
    heard = hear(BINANCE, "BTCUSDT", StreamKind.TICKER, [ticker(1), nameless, ticker(3)], 1)
    assert len(heard.rows["quote"]) == 2
    assert heard.stream.refused_count == 0, "whose it was is not known"
    (gap,) = heard.gaps
    assert (gap["reason"], gap["state"], gap["missing"]) == (
        GapReason.UNREADABLE, GapState.UNPROVABLE, -1,
    )  # fmt: skip
    assert gap["from_ts"] <= (T + 2) * MS <= gap["to_ts"]


@pytest.mark.fault("N03")
@pytest.mark.parametrize(
    "frame",
    [b'{"e":"bookTi', b'{"e":null,"x":1}', ticker(2).replace(b'"e"', b'"E"'),
     ticker(2).replace(b'"bookTicker"', b'"bookTicker","zz":"' + b"x" * (5 << 20) + b'\xff"')[:-1]],
    ids=["cut off", "null", "missing", "too long to be looked at"],
)  # fmt: skip
def test_a_message_whose_type_cannot_be_read_may_have_been_any(frame: bytes) -> None:
    heard = hear(BINANCE, "BTCUSDT", StreamKind.TICKER, [ticker(1), frame, ticker(3)])
    assert len(heard.rows["quote"]) == 2
    (gap,) = heard.gaps
    assert (gap["reason"], gap["missing"]) == (GapReason.UNREADABLE, -1)


@pytest.mark.fault("N03")
def test_what_is_no_message_of_ours_is_only_counted() -> None:
    garbage = [b"", b"17", b"[" * 100_000, b"\xff\xfe", b'{"e":"kline","s":"BTCUSDT"}', b'{"x":1}']
    heard = hear(BINANCE, "BTCUSDT", StreamKind.TICKER, [ticker(1), *garbage, ticker(2)])
    assert len(heard.rows["quote"]) == 2
    assert len(heard.gaps) == 0
    assert sum(heard.reasons.values()) >= len(garbage)


@pytest.mark.fault("N03")
def test_one_bad_element_among_thousands_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements that are compared with each other take half a minute in a message of 4 MB."""

    def compared(*_: object) -> bool:
        raise AssertionError("parts are compared with each other")

    monkeypatch.setattr(salvage._Part, "__eq__", compared)
    sizes = ["1"] * 400 + ["NaN"] + ["1"] * 400
    heard = hear(HYPERLIQUID, "BTC", StreamKind.TRADES, [trades("1"), trades(*sizes)])
    assert len(heard.rows["trade"]) == 800
    assert heard.stream.refused_count == sum(heard.gaps["missing"]) == 1


@pytest.mark.fault("N03")
def test_a_flood_of_what_can_be_no_elements_is_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two million of them fit a message: one by one they hold up everybody for minutes."""
    monkeypatch.setattr(salvage, "_ELEMENTS_MAX", 100)
    nothing = b'{"channel":"trades","data":[%b]}' % b",".join([b"0"] * 101)
    frames = [trades("1"), nothing, trades("1", "2")]
    heard = hear(HYPERLIQUID, "BTC", StreamKind.TRADES, frames)
    assert len(heard.rows["trade"]) == 2
    assert heard.reasons == {"schema": 1}
    (gap,) = heard.gaps
    assert (gap["reason"], gap["missing"]) == (GapReason.UNREADABLE, -1)


@pytest.mark.fault("N03")
def test_many_elements_that_name_nobody_are_told_to_all_streams_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand nameless elements times hundreds of streams is work for minutes."""
    told: list[int] = []
    monkeypatch.setattr(salvage, "suspect", lambda feeds, _: told.append(len(feeds)))
    nameless = b'{"channel":"trades","data":[%b]}' % b",".join([b"{}"] * 1000)
    heard = hear(HYPERLIQUID, "BTC", StreamKind.TRADES, [nameless], 2)
    assert heard.reasons == {"schema": 1000}
    assert told == [3]
