"""Rows that are older than the newest: copies are dropped, a clock that was set back loses none."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.data.flags import Flag, GapReason, GapState
from engine.data.names import StreamKind
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import SnapshotBook
from shards.feeds.contracts import FundingRates, FundingRow
from shards.feeds.declared import late
from shards.feeds.quotes import Quotes
from tests.shards.doubles import MemoryRings, spec_of

S = 1_000_000_000
T = 1_795_000_000 * S


class Feed:
    """One stream, and the clock by which it waits."""

    def __init__(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind = kind
        self.now_s = 100.0
        monkeypatch.setattr(late, "monotonic_s", lambda: self.now_s)
        self.double = MemoryRings()
        make: Any = {"book": SnapshotBook, "quote": Quotes, "funding": FundingRates}[kind]
        name = {"book": StreamKind.L2_BOOK, "quote": StreamKind.TICKER}.get(
            kind, StreamKind.FUNDING
        )
        ring = self.double.rings[kind]
        self.stream = make(spec_of(kind=name), ring, self.double.gaps, None)
        self.stream.subscribed()

    def say(self, at_s: float) -> None:
        """The venue sends one row of that time (s after T), and time goes on by 0.1 s."""
        ts, price = T + round(at_s * S), 1.0 + at_s
        recv = T + round(self.now_s * S)
        if self.kind == "book":
            self.stream.on_book(BookEvent(ts // 10**6, 0, ts, recv, [(price, 1.0)], []))
        elif self.kind == "quote":
            self.stream.on_quote(ts // 10**6, ts, recv, (price, 1.0, price + 1, 1.0))
        else:
            self.stream.on_funding(ts, recv, FundingRow(0.1, price, price))
        self.now_s += 0.1
        self.stream.tick(recv)

    @property
    def stored(self) -> list[float]:
        """Times of the rows (s after T)."""
        return [round((ts - T) / S, 1) for ts in self.double.rows(self.kind)["ts_event"].tolist()]

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Their times; all are of the one reason."""
        rows = self.double.rows("gap")
        assert set(rows["reason"].tolist()) <= {GapReason.RENUMBERED}
        assert set(rows["state"].tolist()) <= {GapState.UNPROVABLE}
        spans = rows[["from_ts", "to_ts"]].tolist()
        return [(round((a - T) / S, 1), round((b - T) / S, 1)) for a, b in spans]


MakeFeed = Callable[[str], Feed]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> MakeFeed:
    return lambda kind: Feed(kind, monkeypatch)


def tenths(begin: int, end: int) -> list[float]:
    return [each / 10 for each in range(begin, end)]


KINDS = pytest.mark.parametrize("kind", ["book", "quote", "funding"])


@KINDS
@pytest.mark.fault("X17")
@pytest.mark.parametrize("ahead_s", [0.5, 5, 30, 59])
def test_what_one_row_of_the_future_makes_old_is_stored_or_declared(
    make: MakeFeed, kind: str, ahead_s: float
) -> None:
    feed = make(kind)
    sent = tenths(0, 50) + tenths(50, 150)
    for at_s in sent:
        feed.say(at_s)
        if at_s == 4.9:
            feed.say(at_s + ahead_s)
    lost = set(sent) - set(feed.stored)
    assert all(any(a <= each <= b for a, b in feed.gaps) for each in lost)
    assert len(feed.gaps) == 1, "declared once"
    assert len(lost) <= 22, "and it goes on after two seconds"
    assert feed.stored.count(14.9) == 1
    assert (feed.double.rows(kind)["flags"] & Flag.AFTER_GAP).any()


@KINDS
@pytest.mark.fault("X17")
def test_late_rows_that_end_with_the_market_are_declared(make: MakeFeed, kind: str) -> None:
    """Nothing new comes that would follow the gap."""
    feed = make(kind)
    for at_s in (0.0, 30.0, 0.1, 0.2, 0.3):
        feed.say(at_s)
    assert feed.stream.has_undeclared
    feed.now_s += 3.0
    feed.stream.tick(T)
    assert feed.gaps == [(0.1, 0.3)]
    assert not feed.stream.has_undeclared


@KINDS
@pytest.mark.fault("X13")
def test_a_late_copy_and_a_socket_behind_the_last_one_are_no_gaps(
    make: MakeFeed, kind: str
) -> None:
    feed = make(kind)
    for at_s in (1.0, 2.0, 1.0, 3.0):
        feed.say(at_s)
    feed.stream.handed_over(T)
    for at_s in (*tenths(0, 40), 4.0):
        feed.say(at_s)
    assert feed.stored == [1.0, 2.0, 3.0, *tenths(31, 41)]
    assert feed.gaps == []


@KINDS
@pytest.mark.fault("X17")
def test_a_socket_that_stays_behind_is_believed(make: MakeFeed, kind: str) -> None:
    """The last row before it was of the future."""
    feed = make(kind)
    for at_s in (1.0, 50.0):
        feed.say(at_s)
    feed.stream.handed_over(T)
    for at_s in tenths(11, 150):
        feed.say(at_s)
    assert feed.stored[-1] == 14.9
    assert feed.gaps == [(1.1, feed.stored[2])]
