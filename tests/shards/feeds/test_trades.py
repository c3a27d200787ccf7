"""Trades: every missing id is declared, no id is stored twice, whatever the wire does."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from engine.base.clock import wall_ns
from engine.data.flags import Flag, GapReason, GapState, Side
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.positions import Position
from engine.messages.streams import StreamState
from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.trades import ContiguousTrades, HistoryTrades, TradeRow
from tests.shards.doubles import MemoryRings, spec_of

MS = 1_000_000


def covered(gaps: RecordArray) -> set[int]:
    ids: set[int] = set()
    for gap in gaps:
        ids.update(range(int(gap["from_seq"]), int(gap["to_seq"]) + 1))
    return ids


@given(
    script=st.lists(
        st.sampled_from(
            ["trade", "trade", "trade", "lose", "repeat", "reconnect", "past", "full", "room"]
        ),
        max_size=120,
    )
)
@settings(deadline=None)
def test_sent_equals_stored_once_plus_declared(script: list[str]) -> None:
    double = MemoryRings(capacity=64)
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    next_id = 100
    stored: list[int] = []
    sent: list[int] = []
    for step in script:
        ts = next_id * MS
        if step == "trade":
            sent.append(next_id)
            feed.on_trade(next_id, Side.BUY, ts, ts, 1.0, 1.0)
            next_id += 1
        elif step == "lose" and sent:
            sent.append(next_id)
            next_id += 1
        elif step == "repeat" and feed.has_data:
            feed.on_trade(sent[0], Side.BUY, sent[0] * MS, ts, 1.0, 1.0)
        elif step == "reconnect":
            feed.cut("cut")
            feed.subscribed()
        elif step == "past":
            feed.cut("cut")
            feed.subscribed()
            for each in sent[-5:]:
                feed.on_past_trade(each, Side.BUY, each * MS, ts, 1.0, 1.0)
        elif step == "room":
            stored += double.rows("trade")["trade_id"].tolist()[len(stored) :]
    # The last trade closes every open question.
    sent.append(next_id)
    feed.on_trade(next_id, Side.BUY, next_id * MS, 1, 1.0, 1.0)
    feed.tick(1)
    ids = double.rows("trade")["trade_id"].tolist()
    assert len(ids) == len(set(ids))
    assert set(ids) | covered(double.rows("gap")) == set(sent)
    assert not set(ids) & covered(double.rows("gap"))


@pytest.mark.fault("S07")
def test_full_ring_drops_the_newest_and_declares_exactly_those() -> None:
    double = MemoryRings(capacity=8)
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    for trade_id in range(1, 13):
        feed.on_trade(trade_id, Side.SELL, trade_id * MS, trade_id, 2.0, 1.0)
    assert double.rows("trade")["trade_id"].tolist() == list(range(1, 9))
    feed.tick(99)
    assert len(double.rows("gap")) == 0, "no space has returned yet"
    double.release("trade")
    feed.on_trade(13, Side.SELL, 13 * MS, 13, 2.0, 1.0)
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"], gap["missing"]) == (9, 12, 4)
    assert gap["reason"] == GapReason.RING_FULL
    assert double.rings[TRADE.name].dropped_count == 4


def test_ids_that_jump_while_the_ring_is_full_are_a_gap_of_their_own() -> None:
    double = MemoryRings(capacity=8)
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    for trade_id in (*range(1, 12), *range(21, 24)):
        feed.on_trade(trade_id, Side.SELL, trade_id * MS, trade_id, 2.0, 1.0)
    double.release("trade")
    feed.tick(99)
    gaps = double.rows("gap")
    assert gaps[["from_seq", "to_seq", "missing"]].tolist() == [
        (9, 11, 3),
        (12, 20, 9),
        (21, 23, 3),
    ]
    assert gaps["reason"].tolist() == [
        GapReason.RING_FULL, GapReason.SEQUENCE, GapReason.RING_FULL,
    ]  # fmt: skip


def test_quiet_stream_declares_its_drops_on_the_tick() -> None:
    double = MemoryRings(capacity=8)
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    for trade_id in range(1, 11):
        feed.on_trade(trade_id, Side.SELL, trade_id * MS, trade_id, 2.0, 1.0)
    double.release("trade")
    feed.tick(99)
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"]) == (9, 10)
    feed.on_trade(11, Side.SELL, 11 * MS, 11, 2.0, 1.0)
    double.rings.publish()
    assert double.rings[TRADE.name].head == 9


def test_restart_continues_from_the_last_stored_id() -> None:
    double = MemoryRings()
    last = Position(id_hi=0, id=500, ts_event=5 * MS, ts_recv=6 * MS)
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, last)
    feed.subscribed()
    feed.on_trade(504, Side.BUY, 9 * MS, 10, 1.0, 1.0)
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"], gap["missing"]) == (501, 503, 3)
    assert gap["reason"] == GapReason.RESTART
    assert (gap["from_ts"], gap["to_ts"]) == (5 * MS, 9 * MS)
    assert double.rows("trade")["flags"][0] & Flag.AFTER_GAP


def test_ids_that_start_anew_are_a_declared_break_and_not_a_silent_drop() -> None:
    double = MemoryRings()
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    feed.on_trade(10_000, Side.BUY, 1_000 * MS, 1, 1.0, 1.0)
    feed.on_trade(5, Side.BUY, 9_000 * MS, 2, 1.0, 1.0)
    feed.on_trade(6, Side.BUY, 9_001 * MS, 3, 1.0, 1.0)
    assert double.rows("trade")["trade_id"].tolist() == [10_000, 5, 6]
    (gap,) = double.rows("gap")
    assert gap["reason"] == GapReason.RENUMBERED
    assert gap["state"] == GapState.UNPROVABLE


def reconnected(double: MemoryRings, past: range) -> ContiguousTrades:
    """A stream that had trades 1 to 3, on a socket that began with these."""
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    for each in (1, 2, 3):
        feed.on_trade(each, Side.BUY, each * MS, 10 * MS, 1.0, 1.0)
    feed.cut("cut")
    feed.subscribed()
    for each in past:
        feed.on_past_trade(each, Side.BUY, each * MS, 20 * MS, 1.0, 1.0)
    return feed


def test_repeated_trades_fill_what_was_missed_and_their_age_is_no_latency() -> None:
    double = MemoryRings()
    feed = reconnected(double, range(2, 6))
    assert feed.clocks_ns is None
    feed.on_trade(6, Side.BUY, 6 * MS, 21 * MS, 1.0, 1.0)
    assert feed.clocks_ns == 15 * MS
    rows = double.rows("trade")
    assert rows["trade_id"].tolist() == [1, 2, 3, 4, 5, 6]
    backfilled = int(Flag.BACKFILLED)
    assert (rows["flags"] & backfilled).tolist() == [0, 0, 0, backfilled, backfilled, 0]
    assert len(double.rows("gap")) == 0


def test_repeated_trades_that_do_not_reach_back_leave_an_exact_gap() -> None:
    double = MemoryRings()
    reconnected(double, range(6, 8))
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"], gap["reason"]) == (4, 5, GapReason.RECONNECT)
    assert double.rows("trade")["trade_id"].tolist() == [1, 2, 3, 6, 7]


def test_a_quiet_stream_is_live_by_the_trade_that_is_repeated() -> None:
    feed = reconnected(MemoryRings(), range(1, 4))
    assert feed.state is StreamState.LIVE
    assert feed.duplicate_count == 3


def history(*ids: int) -> list[TradeRow]:
    return [TradeRow(i, Side.SELL, (1000 + i // 2) * MS, 10.0, 1.0) for i in ids]


def make_history_feed(double: MemoryRings, last: Position | None = None) -> HistoryTrades:
    feed = HistoryTrades(
        spec_of(venue="hyperliquid_perp"), double.rings[TRADE.name], double.gaps, last
    )
    feed.subscribed()
    return feed


def test_history_that_reaches_back_proves_that_nothing_is_missing() -> None:
    double = MemoryRings()
    feed = make_history_feed(double)
    feed.on_trades(history(1, 2, 3), 1)
    feed.cut("cut")
    feed.subscribed()
    feed.on_trades(history(6, 5, 4, 3, 2), 2)
    assert sorted(double.rows("trade")["trade_id"].tolist()) == [1, 2, 3, 4, 5, 6]
    assert len(double.rows("gap")) == 0
    assert feed.duplicate_count == 2


@pytest.mark.fault("N28")
def test_what_the_venue_replays_is_told_apart_from_what_is_live() -> None:
    double = MemoryRings()
    feed = make_history_feed(double)
    feed.on_trades(history(1, 2, 3), 1)
    feed.on_trades(history(4), 2)
    feed.cut("cut")
    feed.subscribed()
    feed.on_trades(history(6, 5, 4, 3, 2), 3)
    feed.on_trades(history(7), 4)
    rows = double.rows("trade")
    replayed = rows["trade_id"][rows["flags"] & Flag.BACKFILLED != 0]
    assert sorted(replayed.tolist()) == [1, 2, 3, 5, 6]


def test_history_that_falls_short_is_an_unprovable_gap() -> None:
    double = MemoryRings()
    feed = make_history_feed(double)
    feed.on_trades(history(1, 2), 1)
    feed.cut("cut")
    feed.subscribed()
    feed.on_trades(history(40, 41), 2)
    assert double.rows("trade")["trade_id"].tolist() == [1, 2, 40, 41]
    (gap,) = double.rows("gap")
    assert gap["state"] == GapState.UNPROVABLE
    assert gap["reason"] == GapReason.RECONNECT
    assert gap["missing"] == -1
    assert (gap["from_ts"], gap["to_ts"]) == (1001 * MS, 1020 * MS)


def test_history_after_a_restart_is_joined_by_the_stored_position() -> None:
    double = MemoryRings()
    last = Position(id_hi=0, id=5, ts_event=1002 * MS, ts_recv=1)
    feed = make_history_feed(double, last)
    feed.on_trades(history(3, 4, 5, 6, 7), 2)
    assert double.rows("trade")["trade_id"].tolist() == [6, 7]
    assert len(double.rows("gap")) == 0


@pytest.mark.fault("X13")
@pytest.mark.parametrize("stored_id", [7, 40], ids=["known", "unknown"])
def test_history_after_a_restart_may_come_once_more(stored_id: int) -> None:
    double = MemoryRings()
    last = Position(id_hi=0, id=stored_id, ts_event=(1000 + stored_id // 2) * MS, ts_recv=1)
    feed = make_history_feed(double, last)
    feed.on_trades(history(3, 4, 5, 6, 7), 2)
    feed.on_trades(history(7), 3)
    feed.on_trades(history(3, 4, 5, 6, 7), 4)
    assert not len(double.rows("trade"))


@pytest.mark.fault("X13")
@pytest.mark.parametrize("order", [(3, 4, 5, 6, 7), (7, 6, 5, 4, 3), (3, 5, 4, 7, 6)])
def test_trades_of_one_block_are_joined_in_whatever_order_they_are_repeated(
    order: tuple[int, ...],
) -> None:
    """Trades 4 and 5 are of one millisecond, and came in one frame."""
    double = MemoryRings()
    feed = make_history_feed(double, Position(id_hi=0, id=5, ts_event=1002 * MS, ts_recv=1))
    feed.on_trades(history(*order), 2)
    assert sorted(double.rows("trade")["trade_id"].tolist()) == [6, 7]
    assert len(double.rows("gap")) == 0
    assert feed.duplicate_count == 3


def test_a_frame_from_newest_to_oldest_leaves_the_newest_as_the_last() -> None:
    double = MemoryRings()
    feed = make_history_feed(double)
    feed.on_trades(history(1), 1)
    feed.on_trades(history(9, 7, 5, 3), 2)
    assert double.rows("trade")["trade_id"].tolist() == [1, 3, 5, 7, 9]


@pytest.mark.fault("X14")
def test_a_trade_of_the_last_millisecond_that_was_missed_is_found_in_the_history() -> None:
    double = MemoryRings()
    feed = make_history_feed(double)
    feed.on_trades(history(3, 5), 1)
    feed.cut("cut")
    feed.subscribed()
    feed.on_trades(history(3, 4, 5, 6), 2)
    assert sorted(double.rows("trade")["trade_id"].tolist()) == [3, 4, 5, 6]


@given(frames=st.lists(st.lists(st.integers(0, 40), max_size=8), max_size=30))
@settings(deadline=None)
def test_no_history_trade_is_stored_twice(frames: list[list[int]]) -> None:
    double = MemoryRings()
    feed = make_history_feed(double)
    for frame in frames:
        feed.on_trades(history(*frame), 1)
    ids = double.rows("trade")["trade_id"].tolist()
    assert len(ids) == len(set(ids))
    assert set(ids) == {i for frame in frames for i in frame}


@pytest.mark.fault("N03")
def test_history_that_repeats_what_cannot_be_read_declares_it_once() -> None:
    double = MemoryRings()
    feed = HistoryTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    for _ in range(2):
        feed.on_unreadable(Unreadable(wall_ns(), ts_event=5, mark=77))
        feed.on_trades([TradeRow(9, 66, 6, 1.0, 1.0)], wall_ns())
        feed.cut("cut")
        feed.subscribed()
    assert feed.refused_count == 1
    assert double.rows("gap")["reason"].tolist() == [GapReason.UNREADABLE]


def test_what_the_venue_says_was_its_last_trade_is_missing_if_it_is_not_here() -> None:
    double = MemoryRings()
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    feed.complete_to(7, 7 * MS, 7 * MS)
    feed.on_trade(10, Side.BUY, 10 * MS, 10 * MS, 1.0, 1.0)
    feed.complete_to(10, 11 * MS, 11 * MS)
    assert double.rows("gap").size == 0, "nothing is known of what was before the first"
    feed.complete_to(12, 13 * MS, 13 * MS)
    feed.complete_to(12, 14 * MS, 14 * MS)
    assert covered(double.rows("gap")) == {11, 12}
    feed.on_trade(12, Side.BUY, 12 * MS, 15 * MS, 1.0, 1.0)
    feed.on_trade(13, Side.BUY, 13 * MS, 15 * MS, 1.0, 1.0)
    rows = double.rows("trade")
    assert rows["trade_id"].tolist() == [10, 13], "what is declared is not stored as well"
    assert rows["flags"].tolist() == [0, Flag.AFTER_GAP]
    assert len(double.rows("gap")) == 1


def test_what_could_not_be_read_is_named_by_the_last_id_as_well() -> None:
    double = MemoryRings()
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    feed.on_trade(10, Side.BUY, 10 * MS, 10 * MS, 1.0, 1.0)
    feed.on_unreadable(Unreadable(11 * MS, seq=11))
    feed.complete_to(11, 12 * MS, 12 * MS)
    assert double.rows("gap")[["reason", "from_seq", "to_seq", "missing"]].tolist() == [
        (GapReason.UNREADABLE, 11, 11, 1)
    ]


@pytest.mark.fault("N03")
def test_what_could_not_be_read_between_two_trades_of_a_message_is_named_once() -> None:
    """It is told before both of them."""
    double = MemoryRings()
    feed = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    feed.subscribed()
    feed.on_trade(1, Side.BUY, 1 * MS, 1 * MS, 1.0, 1.0)
    feed.on_unreadable(Unreadable(4 * MS, seq=3))
    for trade_id in (2, 4):
        feed.on_trade(trade_id, Side.BUY, trade_id * MS, 4 * MS, 1.0, 1.0)
    feed.declare_pending(5 * MS)
    assert double.rows("gap")[["reason", "from_seq", "to_seq", "missing"]].tolist() == [
        (GapReason.UNREADABLE, 3, 3, 1)
    ]
    assert double.rows("trade")["flags"].tolist()[-1] == Flag.AFTER_GAP
    feed.on_unreadable(Unreadable(6 * MS, seq=5))
    feed.declare_pending(7 * MS)
    assert len(double.rows("gap")) == 2, "nobody looks after it any more"
