"""Quotes: numbers never go back, repetitions are dropped, and nothing else is."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from engine.data.flags import Flag, GapReason, GapState
from engine.data.kinds import QUOTE
from engine.data.names import StreamKind
from engine.data.positions import Position
from engine.messages.streams import StreamState
from shards.feeds.quotes import Quotes
from tests.shards.doubles import MemoryRings, spec_of

MS = 1_000_000
A, B = (10.0, 1.0, 11.0, 2.0), (10.5, 1.0, 11.0, 2.0)


def make_feed(double: MemoryRings, last: Position | None = None) -> Quotes:
    feed = Quotes(spec_of(kind=StreamKind.TICKER), double.rings[QUOTE.name], double.gaps, last)
    feed.subscribed()
    return feed


def seqs(double: MemoryRings) -> list[int]:
    found: list[int] = double.rows("quote")["seq"].tolist()
    return found


def test_older_quotes_are_ignored_and_jumps_mean_nothing() -> None:
    double = MemoryRings()
    feed = make_feed(double)
    for seq in (10, 17, 16, 17, 40):
        feed.on_quote(seq, seq * MS, 1, A)
    assert seqs(double) == [10, 17, 40]
    assert feed.duplicate_count == 2
    assert feed.frame_count == 5
    assert len(double.rows("gap")) == 0
    assert feed.state is StreamState.LIVE


def test_another_quote_of_the_same_moment_is_kept() -> None:
    """Hyperliquid's number is a time in ms: two quotes may share it."""
    double = MemoryRings()
    feed = make_feed(double)
    for content in (A, B, B):
        feed.on_quote(10, 10 * MS, 1, content)
    assert double.rows("quote")["bid"].tolist() == [10.0, 10.5]
    assert feed.duplicate_count == 1


def test_a_row_carries_all_four_numbers() -> None:
    double = MemoryRings()
    make_feed(double).on_quote(7, 8 * MS, 9, (1.5, 2.5, 3.5, 4.5))
    (row,) = double.rows("quote").tolist()
    assert row == (3, 0, 0, 8 * MS, 9, 7, 1.5, 2.5, 3.5, 4.5)


@pytest.mark.parametrize("cause", [GapReason.RECONNECT, GapReason.RESTART])
def test_what_was_quoted_while_away_is_an_unprovable_gap(cause: GapReason) -> None:
    double = MemoryRings()
    if cause is GapReason.RESTART:
        feed = make_feed(double, Position(0, 10, 10 * MS, 1))
    else:
        feed = make_feed(double)
        feed.on_quote(10, 10 * MS, 1, A)
        feed.cut("cut")
        feed.subscribed()
    feed.on_quote(50, 50 * MS, 2, B)
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"], gap["missing"]) == (cause, GapState.UNPROVABLE, -1)
    assert (gap["from_ts"], gap["to_ts"]) == (10 * MS, 50 * MS)
    assert (gap["from_seq"], gap["to_seq"]) == (10, 50), "others of these numbers may be missing"
    assert double.rows("quote")["flags"][-1] == Flag.AFTER_GAP


def test_another_quote_of_the_same_moment_after_a_reconnect_is_a_gap_of_that_moment() -> None:
    double = MemoryRings()
    feed = make_feed(double)
    feed.on_quote(10, 10 * MS, 1, A)
    feed.cut("cut")
    feed.subscribed()
    feed.on_quote(10, 10 * MS, 2, B)
    assert seqs(double) == [10, 10]
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"]) == (10, 10)


def test_the_same_quote_after_a_reconnect_proves_that_nothing_changed() -> None:
    double = MemoryRings()
    feed = make_feed(double)
    feed.on_quote(10, 10 * MS, 1, A)
    feed.cut("cut")
    feed.subscribed()
    feed.on_quote(10, 10 * MS, 2, A)
    feed.on_quote(11, 11 * MS, 3, B)
    assert seqs(double) == [10, 11]
    assert len(double.rows("gap")) == 0
    assert feed.state is StreamState.LIVE


def test_numbers_that_start_anew_are_a_declared_break() -> None:
    double = MemoryRings()
    feed = make_feed(double)
    feed.on_quote(10_000, 1_000 * MS, 1, A)
    feed.on_quote(5, 9_000 * MS, 2, B)
    assert seqs(double) == [10_000, 5]
    assert double.rows("gap")["reason"].tolist() == [GapReason.RENUMBERED]


@pytest.mark.fault("S07")
def test_a_full_ring_drops_the_newest_and_counts_them() -> None:
    double = MemoryRings(capacity=8)
    feed = make_feed(double)
    for seq in range(1, 12):
        feed.on_quote(seq, seq * MS, seq, A)
    assert seqs(double) == list(range(1, 9))
    double.release("quote")
    feed.tick(99)
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["missing"]) == (GapReason.RING_FULL, 3)
    assert (gap["from_seq"], gap["to_seq"]) == (9, 11)


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([A, B])), max_size=60))
@settings(deadline=None)
def test_numbers_never_go_back_and_no_quote_repeats_its_predecessor(
    quotes: list[tuple[int, tuple[float, float, float, float]]],
) -> None:
    double = MemoryRings()
    feed = make_feed(double)
    for seq, content in quotes:
        feed.on_quote(seq, seq * MS, 1, content)
    stored = double.rows("quote")[["seq", "bid"]].tolist()
    assert stored == sorted(stored, key=lambda row: row[0])
    assert all(one != other for one, other in pairwise(stored))
    assert len(stored) + feed.duplicate_count == len(quotes)


@pytest.mark.fault("X17")
def test_one_quote_from_the_future_does_not_make_all_others_old() -> None:
    """Hyperliquid's number is its time: both are far ahead, and then back."""
    double = MemoryRings()
    feed = make_feed(double)
    for ms in (100_000, 4_000_000_000, 100_001, 99_999, 100_002):
        feed.on_quote(ms, ms * MS, 1, A)
    assert seqs(double) == [100_000, 4_000_000_000, 100_001, 100_002]
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"]) == (GapReason.RENUMBERED, GapState.UNPROVABLE)
