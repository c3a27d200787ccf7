"""The one judge of silence."""

import math

import pytest

from shards.feeds.feed import Feed
from shards.transport.watch import Remedy, judge
from tests.shards.doubles import MemoryRings, spec_of

LIMIT_S = 10.0


@pytest.fixture
def feed() -> Feed:
    double = MemoryRings()
    made = Feed(spec_of(), double.rings["trade"], double.gaps, None)
    made.subscribed()
    return made


def after(feed: Feed, seconds: float, false_alarms: int = 0, limit_s: float = LIMIT_S) -> Remedy:
    return judge(feed, limit_s, false_alarms, feed.subscribed_s + seconds)


def test_a_silent_stream_is_asked_for_again_once_and_then_elsewhere(feed: Feed) -> None:
    assert after(feed, 9.9) is Remedy.HEARD
    assert after(feed, 10.1) is Remedy.RESUBSCRIBE
    feed.fell_silent("silent")
    assert after(feed, 19.9) is Remedy.NONE
    assert after(feed, 20.1) is Remedy.ASK_ELSEWHERE


@pytest.mark.parametrize(("alarms", "limits"), [(0, 2), (1, 4), (2, 8), (3, 16), (4, 16), (99, 16)])
def test_false_alarms_make_patient_up_to_a_point(feed: Feed, alarms: int, limits: int) -> None:
    feed.fell_silent("silent")
    assert after(feed, limits * LIMIT_S - 0.1, alarms) is Remedy.NONE
    assert after(feed, limits * LIMIT_S + 0.1, alarms) is Remedy.ASK_ELSEWHERE


def test_a_new_row_ends_a_silence_whatever_the_clock_said(feed: Feed) -> None:
    feed.last_recv_ns = 5
    assert after(feed, 100.0) is Remedy.HEARD
    assert after(feed, 111.0) is Remedy.RESUBSCRIBE
    feed.last_recv_ns = 4  # the clock was set back
    assert after(feed, 112.0) is Remedy.HEARD


def test_silence_that_is_normal_or_of_a_cut_socket_proves_nothing(feed: Feed) -> None:
    assert after(feed, 1e9, limit_s=math.inf) is Remedy.NONE
    feed.cut("cut")
    assert after(feed, 1e9) is Remedy.NONE
