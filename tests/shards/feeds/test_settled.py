"""Funding that was paid: each payment once, whatever is asked again, and no gap for not asking."""

import pytest

from engine.base.clock import wall_ns
from engine.data.flags import Flag, GapReason
from engine.data.kinds import COVERAGE, FUNDING
from engine.data.names import StreamKind, Transport
from engine.data.positions import Position
from engine.messages.streams import StreamState
from shards.feeds.contracts import Payment, SettledFunding
from shards.feeds.declared.coverage import CoverageLedger
from shards.feeds.declared.unreadable import Unreadable
from tests.shards.doubles import MemoryRings, spec_of

MS = 1_000_000
HOUR = 3_600_000 * MS
BEGAN = wall_ns() // HOUR * HOUR - 8 * HOUR
"""Hours ago, so that all payments of these tests lie in the past."""
PAST = int(Flag.SETTLED | Flag.BACKFILLED)


def make(
    double: MemoryRings, last: Position | None = None, heard: Position | None = None
) -> SettledFunding:
    spec = spec_of(kind=StreamKind.SETTLED_FUNDING, transport=Transport.HTTP_POLL)
    feed = SettledFunding(spec, double.rings[FUNDING.name], double.gaps, last)
    feed.resume(CoverageLedger(double.rings[COVERAGE.name]), heard)
    feed.subscribed("polled every 300 s")
    return feed


def payment(hour: int, rate: float = 0.0001, sort: str = "Regular") -> Payment:
    return Payment(BEGAN + hour * HOUR, sort, rate, 100.5)


def answer(feed: SettledFunding, *payments: Payment) -> None:
    ts_recv = wall_ns()
    for each in payments:
        feed.on_payment(each, ts_recv)
    feed.answered(ts_recv)


def hours(double: MemoryRings) -> list[int]:
    return [(int(ts) - BEGAN) // HOUR for ts in double.rows("funding")["ts_event"]]


def test_each_payment_is_stored_once_and_the_newest_is_asked_for_again() -> None:
    double = MemoryRings()
    feed = make(double)
    answer(feed, payment(0), payment(1, -0.0002))
    assert feed.since_ms == (BEGAN + HOUR) // MS
    answer(feed, payment(1, -0.0002))
    answer(feed, payment(1, -0.0002), payment(2))
    assert hours(double) == [0, 1, 2]
    rows = double.rows("funding")
    assert rows["rate"].tolist() == [0.0001, -0.0002, 0.0001]
    assert rows["mark"].tolist() == [100.5] * 3
    assert rows["flags"].tolist() == [PAST] * 3
    assert feed.duplicate_count == 2
    assert len(double.rows("gap")) == 0


def test_one_that_is_paid_while_it_is_asked_for_is_no_past() -> None:
    double = MemoryRings()
    feed = make(double)
    answer(feed, payment(0)._replace(ts_event=wall_ns()))
    assert double.rows("funding")["flags"].tolist() == [Flag.SETTLED]


def test_what_was_paid_without_an_engine_is_filled_in_without_a_gap() -> None:
    double = MemoryRings()
    last = Position(0, BEGAN, BEGAN, BEGAN)
    feed = make(double, last, Position(0, 7, BEGAN + HOUR // 2, BEGAN))
    assert feed.since_ms == BEGAN // MS, "from the newest that is stored"
    answer(feed, payment(0), *map(payment, range(1, 7)))
    assert hours(double) == [1, 2, 3, 4, 5, 6]
    assert len(double.rows("gap")) == 0
    assert feed.state is StreamState.LIVE
    (began,) = double.rows("coverage")
    assert began["at"] == BEGAN + HOUR // 2, "it is heard as if it had never been away"


def test_payments_of_one_moment_are_told_apart_by_what_they_are() -> None:
    double = MemoryRings()
    feed = make(double)
    answer(feed, payment(0), payment(0), payment(0, sort="Special"))
    answer(feed, payment(0), payment(0, sort="Special"), payment(0, sort="Another"))
    answer(feed, payment(0)._replace(mark_price=0.0))
    assert hours(double) == [0, 0, 0]
    assert feed.duplicate_count == 4


def test_a_contract_that_pays_nothing_is_live_and_asked_from_a_day_ago() -> None:
    double = MemoryRings()
    feed = make(double)
    before_ms = wall_ns() // MS
    answer(feed)
    answer(feed)
    assert feed.state is StreamState.LIVE
    assert feed.frame_count == 2
    assert 0 <= before_ms - 86_400_000 - feed.since_ms < 60_000
    heard = make(double, None, Position(0, 7, BEGAN, BEGAN))
    assert heard.since_ms == BEGAN // MS, "it was heard before, and had no payment"


def test_neither_silence_nor_missed_polls_nor_an_end_make_a_gap() -> None:
    double = MemoryRings()
    feed = make(double)
    answer(feed, payment(0))
    feed.poll_missed()
    feed.fell_silent("no answer for 1800 s")
    feed.poll_failed("HTTP 503")
    feed.tick(wall_ns())
    answer(feed, payment(0), payment(1))
    assert feed.state is StreamState.LIVE
    feed.cut("over")
    feed.subscribed()
    answer(feed, payment(1), payment(2))
    assert hours(double) == [0, 1, 2]
    assert len(double.rows("gap")) == 0


@pytest.mark.fault("N03")
def test_one_that_cannot_be_read_is_declared_once_however_often_it_comes() -> None:
    double = MemoryRings()
    feed = make(double)
    bad = Unreadable(wall_ns(), rows=1, ts_event=BEGAN + HOUR, mark=7)
    for _ in range(3):
        feed.on_payment(payment(0), wall_ns())
        feed.on_unreadable(bad)
        feed.answered(wall_ns())
        feed.tick(wall_ns())
    answer(feed, payment(2))
    assert feed.refused_count == 1
    assert double.rows("gap")["reason"].tolist() == [GapReason.UNREADABLE]
    assert hours(double) == [0, 2]
