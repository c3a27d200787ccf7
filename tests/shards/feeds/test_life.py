"""The table of a stream's life: every event in every state, and what is blamed for the next gap."""

import logging
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from engine.data.flags import CoverageEnd, CoverageMark, GapReason
from engine.data.kinds import COVERAGE
from engine.data.positions import Position
from engine.messages.streams import StreamState
from shards.feeds.declared.coverage import CoverageLedger
from shards.feeds.life import UNFORESEEN, Life
from tests.shards.doubles import MemoryRings, spec_of

STATES = {
    "wish": StreamState.PENDING,
    "conn": StreamState.CONNECTING,
    "sync": StreamState.SYNCING,
    "live": StreamState.LIVE,
    "stale": StreamState.STALE,
    "back": StreamState.BACKOFF,
    "fail": StreamState.FAILED,
    "stop": StreamState.STOPPED,
}
WORDS = {state: word for word, state in STATES.items()}
TABLE = {
    #                wish  conn  sync  live  stale back  fail  stop
    "waits":        "conn  conn  -     -     -     conn  conn  -",
    "subscribed":   "sync  sync  sync  sync  sync  sync  sync  -",
    "accepted":     "-     -     live  live  live  live  -     -",
    "lacks":        "-     -     sync  sync  sync  sync  -     -",
    "fell_silent":  "-     -     stale stale stale -     -     -",
    "heard":        "-     -     -     -     live  -     -     -",
    "cut":          "back  back  back  back  back  back  fail  stop",
    "poll_failed":  "back  back  back  back  back  back  -     -",
    "failed":       "fail  fail  fail  fail  fail  fail  fail  -",
    "ended":        "stop  stop  stop  stop  stop  stop  stop  stop",
    "wanted_again": "-     -     -     -     -     -     -     wish",
}  # fmt: skip
WHY = "because"


class Steady(Life):
    """A stream whose silence no id explains."""

    silence_is_loss = True


class Bench(NamedTuple):
    double: MemoryRings
    stream: Life

    def do(self, event: str) -> None:
        events: dict[str, Callable[[], None]] = {
            "waits": lambda: self.stream.waits(WHY),
            "subscribed": self.stream.subscribed,
            "accepted": lambda: self.stream.accepted(1000),
            "lacks": lambda: self.stream.lacks(WHY),
            "fell_silent": lambda: self.stream.fell_silent(WHY),
            "heard": self.stream.heard,
            "cut": lambda: self.stream.cut(WHY),
            "poll_failed": lambda: self.stream.poll_failed(WHY),
            "failed": lambda: self.stream.failed(WHY),
            "ended": lambda: self.stream.ended(WHY),
            "wanted_again": lambda: self.stream.wanted_again(spec_of(9)),
        }
        events[event]()

    def marks(self) -> list[tuple[int, int]]:
        """Beginnings and ends that are on record."""
        self.stream.coverage.flush()
        rows = self.double.rows(COVERAGE.name)
        return [(int(row["mark"]), int(row["end"])) for row in rows]


def bench(kind: type[Life] = Life, last: Position | None = None) -> Bench:
    double = MemoryRings()
    stream = kind(spec_of(), last)
    stream.coverage = CoverageLedger(double.rings[COVERAGE.name])
    return Bench(double, stream)


def after(event: str, state: StreamState) -> StreamState | None:
    """What the table says; None for what is not foreseen."""
    return STATES.get(TABLE[event].split()[list(STATES).index(WORDS[state])])


@pytest.mark.parametrize("kind", [Life, Steady])
@pytest.mark.parametrize("seed", range(10))
def test_random_events_lead_where_the_table_says(kind: type[Life], seed: int) -> None:
    """And a stream is on record as listened to if, and only if, it has been live since its socket
    was lost, it fell silent for good or somebody ended it.
    """
    draws = random.Random(seed)
    rig = bench(kind, Position(0, 1, 1000, 1000) if seed % 2 else None)
    stream, is_heard = rig.stream, False
    for _ in range(2_000):
        state, reason, blame = stream.state, stream.reason, stream.blame
        event = draws.choice([each for each in TABLE if after(each, state)])
        rig.do(event)
        assert stream.state is after(event, state), (event, state)
        is_kept = event == "cut" and state in (StreamState.FAILED, StreamState.STOPPED)
        said = {"accepted": "", "heard": "", "wanted_again": "", "subscribed": stream.reason}
        assert stream.reason == (reason if is_kept else said.get(event, WHY)), event
        ends = event in ("cut", "failed", "ended")
        lost = event == "fell_silent" and kind is Steady
        assert stream.blame is blamed(event, blame, is_heard, lost=lost), (event, blame)
        if event in ("accepted", "subscribed"):
            assert stream.has_data is (event == "accepted")
        is_heard = event == "accepted" or (is_heard and not ends and not lost)
        assert stream.is_heard is is_heard, event
    assert not UNFORESEEN


def blamed(event: str, before: GapReason, is_heard: bool, *, lost: bool) -> GapReason:
    """What the next gap is put down to: the first cause since rows flowed."""
    if event == "accepted":
        return GapReason.SEQUENCE
    if event == "ended" and (is_heard or before is GapReason.SEQUENCE):
        return GapReason.STOPPED
    if before is not GapReason.SEQUENCE:
        return before
    return GapReason.RECONNECT if event == "cut" else GapReason.SILENCE if lost else before


def test_what_the_table_lacks_is_said_and_takes_effect(caplog: pytest.LogCaptureFixture) -> None:
    """Rows that flow must not stay out of sight, whatever was thought before."""
    UNFORESEEN.clear()
    for event, cells in TABLE.items():
        for state in StreamState:
            rig = bench()
            rig.stream.state = state
            rig.do(event)
            if after(event, state) is None:
                assert UNFORESEEN.pop((event, state)) == 1
                assert WORDS[rig.stream.state] in cells.split()
            assert not UNFORESEEN
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        stream = bench().stream
        for _ in range(5):
            stream.state = StreamState.PENDING
            stream.accepted(1000)
    assert caplog.text.count("unforeseen") == 3, "the 1st, 2nd and 4th"
    UNFORESEEN.clear()


def test_a_poll_that_was_missed_keeps_the_state_and_is_blamed() -> None:
    rig = bench(Steady)
    rig.stream.subscribed("polled every 5 s")
    rig.stream.accepted(1000)
    rig.stream.poll_missed()
    assert (rig.stream.state, rig.stream.has_data) == (StreamState.LIVE, False)
    assert rig.stream.blame is GapReason.POLL_MISSED
    assert rig.marks()[-1] == (CoverageMark.ENDED, CoverageEnd.SILENCE)


def test_a_cause_that_is_known_counts_more_than_the_first() -> None:
    rig = bench(last=Position(0, 1, 1000, 1000))
    rig.stream.subscribed()
    rig.stream.cut("deaf", blame=GapReason.SILENCE)
    assert rig.stream.blame is GapReason.SILENCE


@pytest.mark.parametrize("in_order", [True, False])
def test_who_ends_out_of_order_has_lost_its_socket(in_order: bool) -> None:
    rig = bench()
    rig.stream.subscribed()
    rig.stream.accepted(1000)
    rig.stream.ended("stopped", in_order=in_order)
    assert rig.stream.blame is (GapReason.STOPPED if in_order else GapReason.RECONNECT)
    end = CoverageEnd.STOPPED if in_order else CoverageEnd.RECONNECT
    assert rig.marks()[-1] == (CoverageMark.ENDED, end)
