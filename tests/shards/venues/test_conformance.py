"""One suite for every venue: its folder in `tests/data/` holds frames and what they mean.

A line of `frames.jsonl` is a frame, or with `transport` HttpPoll the body of an answer, with
either its `rows`, its `control` meaning, or the `error` it must be skipped for. An answer for
several symbols may have rows and a part that is `unusable`, which names the reason.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from engine.catalog import StreamKind, Transport
from engine.commands import StreamState
from engine.records import RecordKind
from engine.settings import VenueSettings
from shards.feeds import make_stream
from shards.unusable import UNUSABLE_FRAME, reason_of
from shards.venues import VENUES, preferred_transport
from shards.venues.spec import (
    Channel,
    Control,
    Feeds,
    FrameDecoder,
    PollChannel,
    Venue,
    capabilities,
    decimals_of,
)
from tests.shards.doubles import MemoryRings, spec_of

DATA = Path(__file__).parents[2] / "data"
TS_RECV = 1_800_000_000_000_000_000


def cases(*wanted: str) -> list[Any]:
    found = []
    for name in VENUES:
        lines = (DATA / name / "frames.jsonl").read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            case = json.loads(line)
            if any(key in case for key in wanted):
                found.append(pytest.param(name, case, id=f"{name}-{number}"))
    return found


class Bench:
    """A venue's decoder with one stream behind it."""

    def __init__(
        self, venue: Venue, symbol: str, kind: StreamKind, transport: Transport = Transport.WS
    ) -> None:
        self.double = MemoryRings()
        self.controls: list[tuple[Control, str]] = []
        self.unusable: list[str] = []
        self.stream = make_stream(
            spec_of(3, venue.name, symbol, kind, transport), venue, self.double.rings,
            self.double.gaps, Path("/nowhere"), lambda _: None,
        )  # fmt: skip
        self.stream.connected()
        feeds = Feeds()
        feeds.add(self.stream)
        channel = venue.channels[kind, transport]
        self.decode: FrameDecoder
        if isinstance(channel, PollChannel):
            self.decode = lambda body, ts_recv: channel.decode(
                body, feeds, ts_recv, lambda error, _: self.unusable.append(reason_of(error))
            )
        else:
            self.decode = venue.build_decoder(
                feeds, lambda control, text: self.controls.append((control, text))
            )

    def rows(self) -> list[dict[str, Any]]:
        """All rows as plain values. A delta book writes what it holds back when it is cut."""
        self.stream.disconnected("the test is over")
        found = []
        for kind in RecordKind:
            for record in self.double.rows(kind) if kind is not RecordKind.GAP else ():
                names = [n for n in record.dtype.names if not n.startswith("_")]
                row = {name: record[name].item() for name in names}
                if "side" in row:
                    row["side"] = chr(row["side"])
                found.append({**row, "kind": kind.value})
        return found


def bench(name: str, case: dict[str, Any]) -> Bench:
    transport = Transport(case.get("transport", "Ws"))
    return Bench(VENUES[name], case["symbol"], StreamKind(case["kind"]), transport)


@pytest.mark.parametrize(("name", "case"), cases("rows"))
def test_frame_becomes_exactly_these_rows(name: str, case: dict[str, Any]) -> None:
    on = bench(name, case)
    on.decode(case["frame"].encode(), TS_RECV)
    rows = on.rows()
    assert [{key: row[key] for key in want} for row, want in zip(rows, case["rows"], strict=True)
            ] == case["rows"]  # fmt: skip
    assert all(row["ts_recv"] == TS_RECV and row["stream"] == 3 for row in rows)
    assert on.unusable == case.get("unusable", [])


@pytest.mark.parametrize(("name", "case"), cases("rows"))
def test_fields_a_venue_adds_tomorrow_change_nothing(name: str, case: dict[str, Any]) -> None:
    def with_more(value: Any) -> Any:
        if isinstance(value, dict):
            more = {"zz_new": [1, {"deep": None}], "Z9": "text"}
            return {**{key: with_more(item) for key, item in value.items()}, **more}
        if isinstance(value, list):
            return [with_more(item) for item in value]
        return value

    plain, extended = bench(name, case), bench(name, case)
    plain.decode(case["frame"].encode(), TS_RECV)
    extended.decode(json.dumps(with_more(json.loads(case["frame"]))).encode(), TS_RECV)
    assert plain.rows() == extended.rows()


@pytest.mark.parametrize(("name", "case"), cases("control"))
def test_frame_without_data_is_understood(name: str, case: dict[str, Any]) -> None:
    on = bench(name, case)
    on.decode(case["frame"].encode(), TS_RECV)
    assert [[control.value, text] for control, text in on.controls] == [case["control"]]
    assert on.rows() == []


@pytest.mark.fault("X11")
@pytest.mark.parametrize(("name", "case"), cases("error"))
def test_unusable_frame_is_refused_for_the_right_reason(name: str, case: dict[str, Any]) -> None:
    on = bench(name, case)
    with pytest.raises(UNUSABLE_FRAME) as caught:
        on.decode(case["frame"].encode(), TS_RECV)
    assert reason_of(caught.value) == case["error"]
    assert on.rows() == []


@pytest.mark.fault("X11")
@pytest.mark.parametrize("name", list(VENUES))
@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_mutated_frames_never_raise_anything_else(name: str, data: st.DataObject) -> None:
    _, case = data.draw(st.sampled_from([c.values for c in cases("rows") if c.values[0] == name]))
    frame = bytearray(case["frame"].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                frame[position] = data.draw(st.integers(0, 255))
            case 1:
                del frame[position:]
            case 2:
                insert = data.draw(st.sampled_from([b"9" * 40, b"[" * 50, b'"', b"null", b"1e999"]))
                frame[position:position] = insert
            case _:
                del frame[position : position + 9]
        if not frame:
            break
    kind, transport = data.draw(st.sampled_from(capabilities(VENUES[name])))
    on = Bench(VENUES[name], _symbol(name), kind, transport)
    with contextlib.suppress(*UNUSABLE_FRAME):
        on.decode(bytes(frame), TS_RECV)
    for row in on.rows():
        numbers = row.keys() & {"price", "qty", "bid", "bid_qty", "ask", "ask_qty", "mark", "index"}
        assert all(0 <= row[number] <= 1e15 for number in numbers)


@pytest.mark.fault("X11")
@pytest.mark.parametrize("name", list(VENUES))
@pytest.mark.parametrize(
    "frame",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"e":"aggTrade","x":' + b"[" * 100_000,
        b'{"channel":"trades","x":' + b"[" * 100_000,
        b'{"e":"aggTrade","s":"\xff\xfe"}',
        b'{"channel":"error","data":"\xff"}',
        b"\xff\xfe\x00",
        b"null", b"1", b'"text"', b"[]", b"{}", b"NaN",
        b'{"e":1}', b'{"channel":null}',
    ],
)  # fmt: skip
def test_hostile_frame_is_one_of_the_expected_errors(name: str, frame: bytes) -> None:
    on = Bench(VENUES[name], _symbol(name), StreamKind.TRADES)
    with pytest.raises(UNUSABLE_FRAME):
        on.decode(frame, TS_RECV)


@pytest.mark.parametrize("name", list(VENUES))
def test_instruments_are_read_with_their_decimals(name: str) -> None:
    body = (DATA / name / "instruments.json").read_bytes()
    expected = json.loads((DATA / name / "instruments.expected.json").read_text(encoding="utf-8"))
    found = msgspec.to_builtins(dict(VENUES[name].parse_instruments(body)))
    assert found.keys() == expected.keys()
    for symbol, facts in expected.items():
        assert {key: found[symbol][key] for key in facts} == facts
        assert found[symbol]["venue"] == name


@pytest.mark.parametrize("name", list(VENUES))
def test_every_channel_renders_a_subscription_and_has_its_limits(name: str) -> None:
    venue = VENUES[name]
    for kind, channel in venue.channels.items():
        if isinstance(channel, PollChannel):
            assert channel.interval_s > 0
            assert channel.call or channel.batch
            continue
        topic = channel.topic(_symbol(name), VenueSettings())
        (frame,) = venue.subscribe([topic], 7)
        json.loads(frame)
        assert channel.group in venue.groups, kind
    for group in venue.groups.values():
        assert group.streams_per_connection > 0
        assert group.message_interval_s > 0
        assert group.lifetime_s > 0


def test_subscriptions_read_as_the_venues_document_them() -> None:
    binance, hyperliquid = VENUES["binance_linear"], VENUES["hyperliquid_perp"]
    kinds = (StreamKind.L2_BOOK, StreamKind.TICKER, StreamKind.FUNDING, StreamKind.LIQUIDATIONS)
    topics = [topic(binance, kind, "BTCUSDT") for kind in kinds]
    assert binance.subscribe(topics, 11) == [
        b'{"method":"SUBSCRIBE","params":["btcusdt@depth@100ms","btcusdt@bookTicker",'
        b'"btcusdt@markPrice@1s","btcusdt@forceOrder"],"id":11}'
    ]
    topics = [
        topic(hyperliquid, StreamKind.L2_BOOK, "kPEPE"),
        topic(hyperliquid, StreamKind.L2_BOOK, "kPEPE", VenueSettings(book_channel="fast")),
        topic(hyperliquid, StreamKind.TICKER, "kPEPE"),
        topic(hyperliquid, StreamKind.FUNDING_OPEN_INTEREST, "kPEPE"),
    ]
    assert hyperliquid.subscribe(topics, 1) == [
        b'{"method":"subscribe","subscription":{"type":"l2Book","coin":"kPEPE"}}',
        b'{"method":"subscribe","subscription":{"type":"l2Book","coin":"kPEPE","fast":true}}',
        b'{"method":"subscribe","subscription":{"type":"bbo","coin":"kPEPE"}}',
        b'{"method":"subscribe","subscription":{"type":"activeAssetCtx","coin":"kPEPE"}}',
    ]


def topic(
    venue: Venue, kind: StreamKind, symbol: str, settings: VenueSettings | None = None
) -> str:
    channel = venue.channels[kind, Transport.WS]
    assert isinstance(channel, Channel)
    return channel.topic(symbol, settings or VenueSettings())


def test_book_data_and_quotes_have_a_socket_category_of_their_own() -> None:
    groups = {
        kind: channel.group
        for (kind, _), channel in VENUES["binance_linear"].channels.items()
        if isinstance(channel, Channel)
    }
    assert {kind for kind, group in groups.items() if group == "public"} == {
        StreamKind.L2_BOOK, StreamKind.TICKER,
    }  # fmt: skip


def test_what_is_not_offered_is_a_failed_stream_that_says_what_is() -> None:
    double = MemoryRings()
    stream = make_stream(
        spec_of(1, kind=StreamKind.FUNDING_OPEN_INTEREST), VENUES["binance_linear"], double.rings,
        double.gaps, Path("/nowhere"), lambda _: None,
    )  # fmt: skip
    assert stream.state is StreamState.FAILED
    assert stream.reason == (
        "binance_linear has no FundingOpenInterest Ws; it offers Trades Ws, L2Book Ws, Ticker Ws,"
        " Funding Ws, Funding HttpPoll, OpenInterest HttpPoll, Liquidations Ws"
    )


@pytest.mark.parametrize(
    ("venue", "kind", "transport"),
    [
        ("binance_linear", StreamKind.FUNDING, Transport.WS),
        ("binance_linear", StreamKind.OPEN_INTEREST, Transport.HTTP_POLL),
        ("binance_linear", StreamKind.FUNDING_OPEN_INTEREST, Transport.WS),
        ("hyperliquid_perp", StreamKind.FUNDING_OPEN_INTEREST, Transport.WS),
        ("unheard_of", StreamKind.OPEN_INTEREST, Transport.WS),
    ],
)
def test_a_kind_comes_by_socket_where_there_is_one(
    venue: str, kind: StreamKind, transport: Transport
) -> None:
    assert preferred_transport(venue, kind) is transport


@pytest.mark.parametrize(
    ("step", "decimals"),
    [("0.10", 1), ("0.00100", 3), ("1", 0), ("10", 0), ("1e-7", 7), ("0.5", 1), ("1E2", 0)],
)
def test_decimals_of_a_step(step: str, decimals: int) -> None:
    assert decimals_of(step) == decimals


def _symbol(name: str) -> str:
    first: str = cases_of(name)[0]["symbol"]
    return first


def cases_of(name: str) -> list[dict[str, Any]]:
    lines = (DATA / name / "frames.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
