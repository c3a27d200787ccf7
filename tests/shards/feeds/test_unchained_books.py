"""Books that nothing proves whole: what may be missing is declared, and mended by a snapshot."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from engine.data.flags import Flag, GapReason, GapState
from engine.data.names import StreamKind
from engine.messages.streams import StreamState
from shards.feeds import pushed_books
from shards.feeds.book_rows import BookEvent
from shards.feeds.book_rules import BookRule, Link, by_arrival
from shards.feeds.declared.unreadable import UNKNOWN, Unreadable
from shards.feeds.handover import Handover
from shards.feeds.pushed_books import UnchainedBook
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.feeds.test_books import replay

_US = 1_700_000_000_000_000
NOW_NS = (_US + 900_000) * 1000


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late enough that a topic may be asked for at once."""
    clock = iter(range(1000, 10**9, 1000))
    monkeypatch.setattr(pushed_books, "monotonic_s", lambda: float(next(clock)))


class Rig:
    """A book on memory rings, and how often it asked for its topic."""

    def __init__(self) -> None:
        self.double = MemoryRings(gap_capacity=1024)
        self.asked: list[object] = []
        rings = self.double.rings
        spec = spec_of(kind=StreamKind.L2_BOOK)
        self.feed = UnchainedBook(
            spec, rings["book"], self.double.gaps, None, BookRule(by_arrival), self.asked.append
        )
        self.feed.subscribed()

    def send(self, *events: BookEvent) -> None:
        for event in events:
            self.feed.on_event(event)

    def gaps(self) -> list[tuple[int, ...]]:
        """(reason, state, from_seq, to_seq) of each."""
        names = ["reason", "state", "from_seq", "to_seq"]
        return [tuple(int(each) for each in row) for row in self.double.rows("gap")[names]]

    def seqs(self) -> list[int]:
        """Of the events stored, in order."""
        rows = self.double.rows("book")
        return list(rows["seq"][(rows["flags"] & Flag.FIRST_IN_EVENT) != 0].tolist())


def whole(seq: int, at: int | None = None) -> BookEvent:
    """A snapshot; of 0 it says no time, and has that of receipt."""
    ts_event = (_US + (seq if at is None else at)) * 1000
    seq = seq and _US + seq
    return BookEvent(seq, 0, ts_event, ts_event, [(1.0, 1.0)], [(9.0, 9.0)], is_snapshot=True)


def delta(seq: int, previous: int) -> BookEvent:
    """One that follows what its socket brought at `previous`; 0: a snapshot without a time."""
    prev_seq = previous and _US + previous
    return BookEvent(_US + seq, prev_seq, (_US + seq) * 1000, 1, [(1.0, float(seq))], ())


def test_what_comes_on_one_socket_follows_and_a_snapshot_may_follow_anything() -> None:
    last = _US + 10
    assert by_arrival(last, delta(12, 10)) is Link.FOLLOWS
    assert by_arrival(last, delta(10, 10)) is Link.FOLLOWS, "of the same microsecond"
    assert by_arrival(last, delta(9, 7)) is Link.REPEATS
    assert by_arrival(last, delta(12, 9)) is Link.FOLLOWS, "it reaches back over what is stored"
    assert by_arrival(last, delta(12, 11)) is Link.BROKEN
    assert by_arrival(last, whole(10)) is Link.REPEATS, "nothing has changed since"
    assert by_arrival(last, whole(12)) is Link.BROKEN
    assert by_arrival(last, whole(0)) is Link.BROKEN
    assert by_arrival(0, delta(12, 0)) is Link.FOLLOWS


def test_a_snapshot_without_a_time_begins_a_book() -> None:
    rig = Rig()
    rig.send(whole(0, at=5), delta(3, 0), delta(8, 3))
    assert rig.feed.state is StreamState.LIVE
    assert rig.feed.is_synced
    assert rig.seqs() == [0, _US + 3, _US + 8]
    assert rig.gaps() == []


def test_the_next_socket_begins_behind_a_gap_of_time() -> None:
    rig = Rig()
    rig.send(whole(0, at=1), delta(3, 0))
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.send(whole(0, at=20), delta(30, 0))
    assert rig.gaps() == [(GapReason.RECONNECT, GapState.UNPROVABLE, 0, 0)]
    assert rig.seqs() == [0, _US + 3, 0, _US + 30]
    assert rig.feed.is_synced


def unreadable(rows: int) -> Callable[[Rig], None]:
    return lambda rig: rig.feed.on_unreadable(Unreadable(NOW_NS, rows))


def skipped(rig: Rig) -> None:
    rig.feed.skipped(NOW_NS)


@pytest.mark.fault("N03")
@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (unreadable(2), GapReason.UNREADABLE),
        (unreadable(UNKNOWN), GapReason.UNREADABLE),
        (skipped, GapReason.SEQUENCE),
    ],
    ids=["unreadable", "perhaps its", "lost by the socket"],
)
def test_wherever_something_may_be_lost_the_book_starts_anew(
    lose: Callable[[Rig], None], reason: GapReason
) -> None:
    rig = Rig()
    rig.send(whole(1), delta(3, 1))
    lose(rig)
    rig.feed.tick(NOW_NS)
    assert not rig.feed.is_synced
    assert set(rig.asked) == {rig.feed}, "for a snapshot"
    rig.send(delta(7, 3))
    assert not rig.feed.is_synced, "a change does not make it whole"
    rig.send(whole(9), delta(12, 9))
    assert rig.feed.is_synced
    assert rig.seqs() == [_US + seq for seq in (1, 3, 7, 9, 12)], "what was received is stored"
    first = rig.gaps()[0]
    assert first == (reason, GapState.UNPROVABLE, 0, 0)
    rows = rig.double.rows("book")
    flagged = rows[(rows["flags"] & Flag.AFTER_GAP) != 0]["seq"].tolist()
    assert flagged[0] == _US + 7


def test_what_was_lost_while_nothing_was_whole_changes_nothing() -> None:
    rig = Rig()
    skipped(rig)
    assert rig.asked == []
    assert rig.gaps() == []


def handed(rig: Rig, frames: Sequence[BookEvent]) -> bool:
    """Whether the next socket, which brings these, takes over."""
    over: list[bool] = []
    handover = Handover(rig.feed, over.append, lambda: None)
    for frame in frames:
        (rig.feed if over else handover).on_event(frame)
    return over == [False]


def test_a_snapshot_without_a_time_is_as_new_as_the_change_after_it() -> None:
    """It takes over when what is stored reaches that change, and is not stored itself."""
    rig = Rig()
    rig.send(whole(1), delta(3, 1), delta(5, 3))
    assert not handed(rig, [whole(0, at=4)])
    assert not handed(rig, [whole(0, at=4), delta(6, 0)])
    assert handed(rig, [whole(0, at=4), delta(5, 0), delta(8, 5)])
    assert rig.seqs() == [_US + seq for seq in (1, 3, 5, 8)]
    assert rig.gaps() == []
    assert rig.feed.is_synced


def test_a_snapshot_with_a_time_takes_over_when_that_is_stored() -> None:
    rig = Rig()
    rig.send(whole(1), delta(3, 1), delta(5, 3))
    assert not handed(rig, [whole(6)])
    assert handed(rig, [whole(4), delta(5, 4), delta(8, 5)])
    assert rig.seqs() == [_US + seq for seq in (1, 3, 5, 8)]


@given(st.lists(st.sampled_from(["event", "lose", "bad", "cut", "answer"]), max_size=60))
@settings(deadline=None, max_examples=60)
def test_a_book_that_is_said_to_be_known_is_the_venues(script: list[str]) -> None:
    rig = Rig()
    truth: dict[float, float] = {1.0: 1.0}
    at, last = 10, 10
    rig.send(whole(10))
    for step in script:
        at += 2
        if step in ("lose", "bad", "event"):
            truth[float(at)] = 1.0
        change = replace_levels(delta(at, last), at)
        if step == "event":
            rig.send(change)
            last = at
        elif step == "lose":
            rig.feed.skipped(NOW_NS)
        elif step == "bad":
            rig.feed.on_unreadable(Unreadable(change.ts_event, 1, mark=at))
        elif step == "cut" or rig.asked:
            rig.feed.cut("cut")
            rig.feed.subscribed()
            rig.asked.clear()
            rig.send(replace(whole(at), bids=list(truth.items())))
            last = at
        if rig.feed.is_synced:
            book = replay(rig.double.rows("book"))[0]
            assert book is not None
            assert book["b"] == truth


def replace_levels(event: BookEvent, at: int) -> BookEvent:
    return replace(event, bids=[(float(at), 1.0)])


def test_two_changes_of_one_moment_are_in_order_and_linked() -> None:
    rig = Rig()
    rig.send(whole(0, 3), delta(5, 0), delta(5, 5), delta(5, 5), delta(6, 5), delta(7, 6))
    rows = rig.double.rows("book")
    assert rig.gaps() == []
    assert rows["qty"][2:].tolist() == [5.0, 5.0, 5.0, 6.0, 7.0]
    order = rows[2:][["ts_event", "seq"]].tolist()
    assert all(earlier < later for earlier, later in pairwise(order))
    assert rows["prev_seq"][3:].tolist() == rows["seq"][2:-1].tolist()
    assert rows["seq"][-1] == _US + 7, "a moment of its own is told as it is"
