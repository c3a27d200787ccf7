"""Books that nothing proves whole: what may be missing is declared, and mended by a snapshot."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from engine.data.flags import Flag, GapReason, GapState
from engine.data.names import StreamKind
from engine.messages.streams import StreamState
from shards.feeds.book_rows import BookEvent
from shards.feeds.declared.unreadable import UNKNOWN, Unreadable
from shards.feeds.handover import Handover
from shards.feeds.pushed import books, timed
from shards.feeds.pushed.rules import BookRule, by_previous
from shards.feeds.pushed.timed import UnchainedBook
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.feeds.test_books import replay

_US = 1_700_000_000_000_000
NOW_NS = (_US + 900_000) * 1000


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late enough that a topic may be asked for at once."""
    clock = iter(range(1000, 10**9, 1000))
    for module in (books, timed):
        monkeypatch.setattr(module, "monotonic_s", lambda: float(next(clock)))


class Rig:
    """A book on memory rings, and how often it asked for its topic."""

    def __init__(self) -> None:
        self.double = MemoryRings(gap_capacity=1024)
        self.asked: list[object] = []
        rings = self.double.rings
        spec = spec_of(kind=StreamKind.L2_BOOK)
        self.feed = UnchainedBook(
            spec, rings["book"], self.double.gaps, None, BookRule(by_previous), self.asked.append
        )
        self.feed.subscribed()

    def send(self, *events: BookEvent) -> None:
        for event in events:
            self.feed.on_event(event)

    def gaps(self) -> list[tuple[int, ...]]:
        """(reason, state, from_seq, to_seq) of each."""
        names = ["reason", "state", "from_seq", "to_seq"]
        return [tuple(int(each) for each in row) for row in self.double.rows("gap")[names]]

    def events(self) -> list[tuple[int, ...]]:
        """(time in us, seq, prev_seq) of each that is stored, in order."""
        rows = self.double.rows("book")
        firsts = rows[(rows["flags"] & Flag.FIRST_IN_EVENT) != 0]
        named = firsts[["ts_event", "seq", "prev_seq"]].tolist()
        return [(at // 1000, seq, prev_seq) for at, seq, prev_seq in named]

    def seqs(self) -> list[int]:
        """Of the events stored, in order."""
        return [seq for _, seq, _ in self.events()]


def whole(seq: int, at: int | None = None) -> BookEvent:
    """A snapshot; of 0 it says no time, and has that of receipt."""
    ts_event = (_US + (seq if at is None else at)) * 1000
    seq = seq and _US + seq
    return BookEvent(seq, 0, ts_event, ts_event, [(1.0, 1.0)], [(9.0, 9.0)], is_snapshot=True)


def delta(seq: int, previous: int) -> BookEvent:
    """One that follows what its socket brought at `previous`; 0: a snapshot without a time."""
    prev_seq = previous and _US + previous
    return BookEvent(_US + seq, prev_seq, (_US + seq) * 1000, 1, [(1.0, float(seq))], ())


def test_a_snapshot_without_a_time_is_of_the_moment_of_the_first_change() -> None:
    """Who orders by time and number, as readers do, finds it in front of that change; its receipt
    was later.
    """
    rig = Rig()
    rig.send(whole(0, at=5))
    assert rig.seqs() == []
    assert not rig.feed.is_synced
    assert "first change" in rig.feed.reason
    rig.send(delta(3, 0), delta(8, 3))
    assert rig.feed.state is StreamState.LIVE
    assert rig.feed.is_synced
    assert rig.events() == [
        (_US + 3, _US + 2, 0), (_US + 3, _US + 3, _US + 2), (_US + 8, _US + 8, _US + 3),
    ]  # fmt: skip
    assert rig.gaps() == []
    assert rig.asked == []


def test_a_snapshot_is_stored_though_nothing_changes() -> None:
    """As of its receipt, once no change can be on its way any more; but what came while nobody
    looked is read before that.
    """
    rig = Rig()
    rig.send(whole(0, at=5))
    rig.feed.tick(NOW_NS)
    assert rig.seqs() == [], "a change may have come meanwhile"
    rig.feed.tick(NOW_NS)
    assert rig.events() == [(_US + 5, 0, 0)]
    assert rig.feed.state is StreamState.LIVE
    rig.feed.tick(NOW_NS)
    rig.send(delta(90, 0))
    assert rig.seqs() == [0, _US + 90]
    assert rig.gaps() == []
    assert rig.asked == []


def test_snapshots_that_nobody_asked_for_say_nothing_new_of_a_book_that_is_known() -> None:
    """But that something may have been missed."""
    rig = Rig()
    rig.send(whole(0, at=5), delta(3, 0))
    rig.send(whole(0, at=5), whole(0, at=6))
    assert rig.feed.state is StreamState.LIVE
    rig.send(delta(4, 0))
    assert rig.feed.is_synced
    assert rig.seqs() == [_US + seq for seq in (2, 3, 4)]
    assert rig.gaps() == []
    rig.send(whole(0, at=7), delta(9, 0))
    assert rig.seqs() == [_US + seq for seq in (2, 3, 4, 8, 9)]
    assert rig.gaps() == [(GapReason.RESYNC, GapState.UNPROVABLE, 0, 0)]


def test_the_next_socket_begins_behind_a_gap_of_time() -> None:
    rig = Rig()
    rig.send(whole(0, at=1), delta(3, 0))
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.send(whole(0, at=40), delta(30, 0))
    (gap,) = rig.double.rows("gap")
    assert rig.gaps() == [(GapReason.RECONNECT, GapState.UNPROVABLE, 0, 0)]
    assert gap["to_ts"] == (_US + 30) * 1000, "what it holds may be of the very moment of the next"
    assert rig.seqs() == [_US + seq for seq in (2, 3, 29, 30)]
    assert rig.feed.is_synced


def test_a_snapshot_that_no_change_has_followed_ends_with_its_socket() -> None:
    rig = Rig()
    rig.send(whole(0, at=1), delta(3, 0))
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.send(whole(0, at=10))
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.send(delta(20, 15))
    assert not rig.feed.is_synced
    rig.send(whole(0, at=26), delta(30, 0))
    assert rig.seqs() == [_US + seq for seq in (2, 3, 20, 29, 30)]
    assert rig.gaps()[0][0] == GapReason.RECONNECT
    assert rig.feed.is_synced


def test_a_next_socket_that_lies_behind_begins_where_the_last_one_ended() -> None:
    rig = Rig()
    rig.send(whole(0, at=1), delta(3, 0), delta(7, 3))
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.send(whole(0, at=9), delta(5, 0), delta(7, 5), delta(8, 7))
    moments = [(at - _US, seq - _US) for at, seq, _ in rig.events()]
    assert moments == [(3, 2), (3, 3), (7, 7), (7, 8), (8, 8)], "the book as of the last change"
    assert rig.gaps() == []
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


@pytest.mark.parametrize("is_dated", [True, False])
@given(script=st.lists(st.sampled_from(["event", "lose", "bad", "cut", "answer"]), max_size=60))
@settings(deadline=None, max_examples=60)
def test_a_book_that_is_said_to_be_known_is_the_venues(script: list[str], is_dated: bool) -> None:
    """Also to who reads it in the order of time; snapshots without one come late."""
    rig = Rig()
    truth: dict[float, float] = {1.0: 1.0}
    at = 10

    def begin() -> int:
        snapshot = whole(at) if is_dated else whole(0, at + 15)
        rig.send(replace(snapshot, bids=list(truth.items())))
        return at if is_dated else 0

    last = begin()
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
            last = begin()
        if rig.feed.is_synced:
            rows = rig.double.rows("book")
            book = replay(rows[np.argsort(rows[["ts_event", "seq"]], kind="stable")])[0]
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
