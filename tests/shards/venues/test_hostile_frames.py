"""What no venue should say: a frame is used whole or refused with an error a connection skips.

Recorded frames and answers of every channel, poll and call are damaged in ways a network, a venue
or an attacker might: bytes flipped, lost and repeated, values swapped for what looks like a number
and is none. Hypothesis chooses which and how; one example is some hundred damaged frames, so that
30,000 of a venue are tried in a few seconds, others every time.
"""

import re
from collections.abc import Callable
from itertools import product
from random import Random
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from engine.data.flags import Side
from engine.data.kinds import FUNDING, KINDS, LIQUIDATION, TRADE
from engine.data.names import StreamKind, Transport
from shards.venues.bad_frames import BAD_FRAME, reason_of
from shards.venues.kit import Feeds, PollChannel, Venue, capabilities
from shards.venues.salvage import Salvage
from tests.shards.doubles import MemoryRings, Said, spec_of
from tests.shards.venues.recorded import (
    DATA,
    TS_RECV,
    UNDER_TEST,
    cases_of,
    frames_of,
    parsers,
    symbol_of,
)

pytestmark = pytest.mark.whole

FRAMES_PER_EXAMPLE = 300
EXAMPLES = 100
REASONS = {
    "schema",
    "json",
    "utf8",
    "depth",
    "value",
    "not_subscribed",
    "mixed_coins",
    "uneven_lists",
}
NUMBERS = ("price", "qty", "bid", "bid_qty", "ask", "ask_qty", "mark", "index", "avg_price",
           "filled_qty")  # fmt: skip

TOKEN = re.compile(
    rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|[\[\]{}:,]'
)
HOSTILE = [
    b"NaN", b'"NaN"', b'"nan"', b'"-nan"', b"Infinity", b'"Infinity"', b'"-inf"', b'"inf"',
    b"1e400", b'"1e400"', b'"-1e400"', b'"1e308"', b'"1e-400"', b"-1", b'"-1"', b'"-0.001"', b"-0",
    b'"-0"', b"0", b'"0"', b'""', b"null", b"true", b"false", b"[]", b"{}", b"[[]]", b"1.5",
    b'"1.5"', b"9" * 400, b'"' + b"9" * 400 + b'"', b"0." + b"0" * 400 + b"1",
    b"18446744073709551616", b"9223372036854775807", b"-9223372036854775808",
    b"253402300799999", b"4102444800000",
    b'" 1"', b'"1 "', b'"+1"', b'"1_0"', b'"0x10"', b'"1,5"', b'"1."', b'".5"', b'"1e"',
    b'"\xd9\xa3"', b'"\xef\xbc\x91"', b'"\\ud800"', b'"\\u0000"', b'"\xff\xfe"', b'"\xed\xa0\x80"',
    b"[" * 3000, b'{"a":' * 3000, b'"' + b"x" * 5000 + b'"', b'"BUY"', b'"B"',
    b'"BTCUSDT"', b'"BTC"',
]  # fmt: skip
SPLINTERS = [
    b"9" * 40,
    b"[" * 50,
    b'"',
    b"null",
    b"1e999",
    b"\x00",
    b"\xff",
    b",",
    b"}",
    b"]",
    b"\\",
]


def damaged(frame: bytes, spans: list[tuple[int, int]], random: Random) -> bytes:
    """One to three things done to a frame. `spans` are its tokens."""
    broken = bytearray(frame)
    chance = random.random()
    if chance < 0.15 and len(spans) > 3:
        return rearranged(frame, spans, random)
    if chance < 0.6:
        for begin, end in sorted(random.sample(spans, min(len(spans), random.choice((1, 1, 2)))))[
            ::-1
        ]:
            broken[begin:end] = random.choice(HOSTILE)
        return bytes(broken)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(broken) + 1)
        to = min(at + random.randrange(1, 40), len(broken))
        match random.randrange(5):
            case 0:
                broken[at:to] = random.randbytes(min(to - at, 1))
            case 1:
                del broken[at:]
            case 2:
                broken[at:at] = random.choice(SPLINTERS)
            case 3:
                del broken[at:to]
            case _:
                broken[at:at] = broken[at:to]
    return bytes(broken)


def rearranged(frame: bytes, spans: list[tuple[int, int]], random: Random) -> bytes:
    """Still JSON as a rule: two values exchanged, a name given to two values, one value wrapped or
    repeated.
    """
    pairs = [
        (span, spans[at + 2])
        for at, span in enumerate(spans[:-2])
        if frame[slice(*spans[at + 1])] == b":"
    ]
    if len(pairs) < 2:
        return frame + frame
    (begin, end), (value, after) = random.choice(pairs)
    match random.randrange(4):
        case 0:
            values = [each for _, each in random.sample(pairs, 2)]
            (first, until), (second, stop) = sorted(values)
            moved = frame[second:stop] + frame[until:second] + frame[first:until]
            return frame[:first] + moved + frame[stop:]
        case 1:
            twice = frame[begin:end] + b":" + random.choice(HOSTILE) + b","
            return frame[:begin] + twice + frame[begin:]
        case 2:
            depth = random.choice((1, 2, 2000))
            wrapped = b"[" * depth + frame[value:after] + b"]" * depth
            return frame[:value] + wrapped + frame[after:]
        case _:
            brackets = [at for at, _ in spans if frame[at] in b"{["]
            at = random.choice(brackets or [0])
            return frame[:at] + b"[]," * random.choice((1, 3, 500)) + frame[at:]


Read = Callable[[bytes], None]


class Target:
    """One venue with a stream of every kind it offers, behind one decoder a way of delivery."""

    def __init__(self, venue: Venue) -> None:
        self.double = MemoryRings(gap_capacity=1 << 14)
        self.bad_frames: list[Exception] = []
        self.streams = []
        everything = Feeds()
        decode = venue.open_decoder(everything, Said())
        frames = self._frames(decode)
        self._salvage = Salvage(venue, everything, decode, self._note)
        self._pushed = frames
        self.reader_of: dict[tuple[StreamKind, Transport], Read] = {}
        for slot, (kind, transport) in enumerate(capabilities(venue)):
            stream = self.double.feed(
                spec_of(slot, venue.name, symbol_of(venue.name), kind, transport), venue
            )
            stream.subscribed()
            self.streams.append(stream)
            channel = venue.channels[kind, transport]
            if isinstance(channel, PollChannel):
                feeds = Feeds()
                feeds.add(stream)
                self.reader_of[kind, transport] = self._answers(channel, feeds)
            else:
                everything.add(stream)
                self.reader_of[kind, transport] = frames
        self.readers = list(dict.fromkeys(self.reader_of.values()))
        self.producers = [self.double.rings[kind] for kind in KINDS]

    def _frames(self, decode: Callable[[bytes, int], None]) -> Read:
        return lambda frame: decode(frame, TS_RECV)

    def _answers(self, channel: PollChannel, feeds: Feeds) -> Read:
        return lambda body: channel.decode(
            body, feeds, TS_RECV, lambda error, _: self.bad_frames.append(error)
        )

    def _note(self, error: Exception, _: bytes) -> None:
        self.bad_frames.append(error)

    def contents(self) -> tuple[int, ...]:
        """How much is in the rings, and held back for a snapshot."""
        held = (len(getattr(stream, "_buffer", ())) for stream in self.streams)
        return (*(ring.next_seq for ring in self.producers), *held)

    def take(self, read: Read, frame: bytes, *, is_salvaged: bool = False) -> None:
        """Deliver a frame as a connection or a poller would, with the slow way of what is refused
        if `is_salvaged`.
        """
        before = self.contents()
        try:
            read(frame)
        except BAD_FRAME as error:
            assert reason_of(error) in REASONS
            assert self.contents() == before, "something of a refused frame was stored"
            if read is self._pushed and is_salvaged:
                self._salvage.take(frame, TS_RECV, error)

    def check_rows(self) -> None:
        """Everything stored is what a market can mean. Frees the rings."""
        for kind in KINDS:
            rows = self.double.rows(kind)
            self.double.release(kind)
            for name in set(NUMBERS) & set(rows.dtype.names or ()):
                assert ((rows[name] >= 0) & (rows[name] <= 1e15)).all(), (kind, name)
            assert (rows["ts_event"] >= 0).all()
            if kind == FUNDING.name:
                assert (np.abs(rows["rate"]) <= 1e3).all()
            if kind in (TRADE.name, LIQUIDATION.name):
                assert np.isin(rows["side"], [int(Side.BUY), int(Side.SELL)]).all()


class Recording(NamedTuple):
    """A frame or answer that can be used, with the places of its tokens."""

    kind: StreamKind
    transport: Transport
    frame: bytes
    spans: list[tuple[int, int]]


def recorded(venue: str) -> list[Recording]:
    """All of a venue."""
    return [
        Recording(
            StreamKind(case["kind"]),
            Transport(case.get("transport", "Ws")),
            frame := case["frame"].encode(),
            spans_of(frame),
        )
        for case in cases_of(venue)
        if "error" not in case
    ]


def spans_of(frame: bytes) -> list[tuple[int, int]]:
    return [found.span() for found in TOKEN.finditer(frame)]


RECORDED = {name: recorded(name) for name in UNDER_TEST}


@pytest.mark.fault("X11")
@pytest.mark.parametrize("name", list(UNDER_TEST))
@given(seed=st.integers(0, 2**64))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_damaged_frame_is_used_whole_or_refused(name: str, seed: int) -> None:
    random = Random(seed)
    target = Target(UNDER_TEST[name])
    for _ in range(FRAMES_PER_EXAMPLE):
        recording = random.choice(RECORDED[name])
        usual = target.reader_of[recording.kind, recording.transport]
        read = usual if random.random() < 0.8 else random.choice(target.readers)
        frame = damaged(recording.frame, recording.spans, random)
        target.take(read, frame, is_salvaged=random.random() < 0.1)
    target.check_rows()
    assert {reason_of(error) for error in target.bad_frames} <= REASONS


@pytest.mark.fault("X11")
@pytest.mark.parametrize(
    ("name", "call"), [(name, call) for name in UNDER_TEST for call in parsers(name)]
)
@given(seed=st.integers(0, 2**64))
@settings(max_examples=20, deadline=None)
def test_a_damaged_answer_is_read_or_refused(name: str, call: str, seed: int) -> None:
    random, parse = Random(seed), parsers(name)[call]
    body = (DATA / name / f"{call}.json").read_bytes()
    spans = spans_of(body)
    for _ in range(100):
        try:
            parse(damaged(body, spans, random))
        except BAD_FRAME as error:
            assert reason_of(error) in REASONS


DEEP = [b"[" * 100_000, b'{"a":' * 100_000]


@pytest.mark.fault("X11")
@pytest.mark.parametrize("name", list(UNDER_TEST))
@pytest.mark.parametrize("deep", DEEP, ids=["lists", "objects"])
def test_nothing_nested_too_deep_gets_through(name: str, deep: bytes) -> None:
    """Alone, and in place of any value of any frame: also of a field nobody reads."""
    target = Target(UNDER_TEST[name])
    for read in target.readers:
        before = target.contents()
        with pytest.raises(BAD_FRAME):
            read(deep)
        assert target.contents() == before
    for kind, transport, frame, spans in RECORDED[name]:
        begin, end = spans[len(spans) // 2] if spans else (0, 0)
        target.take(target.reader_of[kind, transport], frame[:begin] + deep + frame[end:])
    for parse in parsers(name).values():
        with pytest.raises(BAD_FRAME):
            parse(deep)


@pytest.mark.fault("X11")
@pytest.mark.parametrize("name", list(UNDER_TEST))
@pytest.mark.parametrize(
    "frame",
    [
        b"", b" ", b"null", b"1", b'"text"', b"{}", b"NaN", b"[[]]", b"[null]", b"\xff\xfe\x00",
        b'{"e":1}', b'{"e":"aggTrade","s":"\xff\xfe"}', b'{"channel":null}',
        b'{"channel":"error","data":"\xff"}', b'\xef\xbb\xbf{"result":null,"id":1}',
    ],
)  # fmt: skip
def test_a_hostile_frame_is_one_of_the_expected_errors(name: str, frame: bytes) -> None:
    target = Target(UNDER_TEST[name])
    read, *answers = target.readers
    before = target.contents()
    with pytest.raises(BAD_FRAME):
        read(frame)
    for each in answers:
        target.take(each, frame)
    assert target.contents() == before


def first_case(name: str, kind: StreamKind, transport: Transport) -> dict[str, Any]:
    return next(
        case for case in cases_of(name)
        if case.get("rows") and case["kind"] == kind and case["symbol"] == symbol_of(name)
        and case.get("transport", "Ws") == transport
    )  # fmt: skip


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_an_undamaged_frame_of_every_kind_is_stored_by_the_same_target(name: str) -> None:
    """The test of the tests: these targets do store what is right."""
    target = Target(UNDER_TEST[name])
    for stream in target.streams:
        case = first_case(name, stream.key.kind, stream.key.transport)
        before = target.contents()
        for read, frame in product(target.readers, frames_of(case)):
            target.take(read, frame)
        assert target.contents() != before, stream.key
