"""Funding, open interest, liquidations: times order them, and silence is told from deafness."""

import pytest

from engine.base.clock import wall_ns
from engine.data.flags import Flag, GapReason, GapState, Side
from engine.data.kinds import FUNDING, LIQUIDATION, OPEN_INTEREST
from engine.data.names import StreamKind, Transport
from engine.data.positions import Position
from engine.messages.streams import StreamState
from shards.feeds.contracts import (
    FundingOpenInterest,
    FundingRates,
    FundingRow,
    LiquidationRow,
    Liquidations,
    OpenInterestPoints,
)
from tests.shards.doubles import MemoryRings, spec_of

MS = 1_000_000
S = 1000 * MS
ROW = FundingRow(0.0001, 100.5, 100.25, 28_800 * S, 3600)


def make_funding(double: MemoryRings, last: Position | None = None) -> FundingRates:
    spec = spec_of(kind=StreamKind.FUNDING)
    feed = FundingRates(spec, double.rings[FUNDING.name], double.gaps, last)
    feed.subscribed()
    return feed


def make_points(double: MemoryRings, last: Position | None = None) -> OpenInterestPoints:
    spec = spec_of(kind=StreamKind.OPEN_INTEREST, transport=Transport.HTTP_POLL)
    feed = OpenInterestPoints(spec, double.rings[OPEN_INTEREST.name], double.gaps, last)
    feed.subscribed("polled every 5 s")
    return feed


def make_liquidations(double: MemoryRings, last: Position | None = None) -> Liquidations:
    spec = spec_of(kind=StreamKind.LIQUIDATIONS)
    feed = Liquidations(spec, double.rings[LIQUIDATION.name], double.gaps, last)
    feed.subscribed()
    return feed


def test_a_funding_row_carries_every_number() -> None:
    double = MemoryRings()
    make_funding(double).on_funding(5 * S, 6, ROW)
    (row,) = double.rows("funding").tolist()
    assert row == (3, 0, 0, 5 * S, 6, 0.0001, 100.5, 100.25, 28_800 * S, 3600, 0)


def test_a_contract_without_funding_says_so_in_its_flags() -> None:
    double = MemoryRings()
    feed = make_funding(double, Position(0, S, S, S))
    feed.on_funding(5 * S, 6, ROW._replace(rate=None))
    feed.on_funding(6 * S, 7, ROW)
    rows = double.rows("funding")
    assert rows["flags"].tolist() == [Flag.NO_RATE | Flag.AFTER_GAP, 0]
    assert rows["rate"].tolist() == [0.0, 0.0001]


@pytest.mark.fault("N06")
@pytest.mark.parametrize("kind", [StreamKind.OPEN_INTEREST, StreamKind.FUNDING])
def test_each_poll_is_a_row_whatever_time_the_venue_says(kind: StreamKind) -> None:
    """Sixteen of one time, and one of an older: what was said, each time it was asked."""
    double = MemoryRings()
    seconds = [5] * 16 + [4, 8]
    spec = spec_of(kind=kind, transport=Transport.HTTP_POLL)
    ring = double.rings[kind.replace("I", "_i").lower()]
    if kind is StreamKind.FUNDING:
        funding = FundingRates(spec, ring, double.gaps, None)
        funding.subscribed("polled every 5 s")
        for recv, second in enumerate(seconds):
            funding.on_funding(second * S, recv + 1, ROW)
        assert funding.duplicate_count == 0
    else:
        points = OpenInterestPoints(spec, ring, double.gaps, None)
        points.subscribed("polled every 5 s")
        for recv, second in enumerate(seconds):
            points.on_open_interest(second * S, recv + 1, 10.0)
        assert points.status().state is StreamState.LIVE
    rows = double.rows(ring.spec.name)
    assert rows["ts_event"].tolist() == [second * S for second in seconds]
    assert rows["ts_recv"].tolist() == list(range(1, len(seconds) + 1))
    assert len(double.rows("gap")) == 0


@pytest.mark.fault("N06")
def test_a_repeated_push_is_no_new_row() -> None:
    double = MemoryRings()
    feed = make_funding(double)
    for second in (5, 5, 4, 8):
        feed.on_funding(second * S, 1, ROW)
    assert double.rows("funding")["ts_event"].tolist() == [5 * S, 8 * S]
    assert feed.duplicate_count == 2


@pytest.mark.fault("N06")
def test_the_samples_that_a_restart_missed_are_declared_though_the_venues_time_stood() -> None:
    double = MemoryRings()
    feed = make_points(double, Position(0, 5 * S, 5 * S, 1))
    feed.on_open_interest(5 * S, 2, 10.0)
    feed.on_open_interest(15 * S, 3, 11.0)
    assert double.rows("open_interest")["qty"].tolist() == [10.0, 11.0]
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["from_ts"], gap["to_ts"]) == (GapReason.RESTART, 5 * S, 5 * S)


def test_failed_polls_are_a_gap_only_when_a_sample_was_missed() -> None:
    double = MemoryRings()
    feed = make_points(double)
    feed.on_open_interest(5 * S, 1, 10.0)
    feed.poll_failed("HTTP 500")
    assert feed.status().state is StreamState.BACKOFF
    feed.on_open_interest(10 * S, 2, 11.0)
    assert feed.status().state is StreamState.LIVE
    assert len(double.rows("gap")) == 0
    feed.poll_failed("HTTP 500")
    feed.poll_missed()
    feed.on_open_interest(30 * S, 3, 12.0)
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"]) == (GapReason.POLL_MISSED, GapState.UNPROVABLE)
    assert (gap["from_ts"], gap["to_ts"], gap["missing"]) == (10 * S, 30 * S, -1)
    assert double.rows("open_interest")["flags"].tolist() == [0, 0, Flag.AFTER_GAP]


def make_both(double: MemoryRings, transport: Transport = Transport.WS) -> FundingOpenInterest:
    feed = FundingOpenInterest(
        spec_of(kind=StreamKind.FUNDING_OPEN_INTEREST, transport=transport),
        double.rings[FUNDING.name], double.gaps, None,
        double.rings[OPEN_INTEREST.name],
    )  # fmt: skip
    feed.subscribed()
    return feed


def test_one_message_becomes_a_row_of_each_kind() -> None:
    double = MemoryRings()
    feed = make_both(double)
    feed.on_both(5 * S, 5 * S, ROW, 31000.5)
    feed.cut("cut")
    feed.subscribed()
    feed.on_both(9 * S, 9 * S, ROW, 31000.5)
    for kind in ("funding", "open_interest"):
        rows = double.rows(kind)
        assert rows["ts_event"].tolist() == [5 * S, 9 * S]
        assert rows["flags"].tolist() == [0, Flag.AFTER_GAP]
    assert feed.row_count == 4
    assert len(double.rows("gap")) == 1


@pytest.mark.parametrize(
    ("received_s", "from_s"), [((5.0, 5.9), 5.0), ((1.0, 5.0), 3.0), ((5.0,), 3.0)]
)
def test_what_was_on_its_way_when_the_last_row_came_is_in_the_gap(
    received_s: tuple[float, ...], from_s: float
) -> None:
    """The only time is ours: rows that left the venue before the last one came may be lost."""
    double = MemoryRings()
    feed = make_both(double)
    for second in received_s:
        feed.on_both(int(second * S), int(second * S), ROW, 1.0)
    feed.cut("cut")
    feed.subscribed()
    feed.on_both(9 * S, 9 * S, ROW, 1.0)
    (gap,) = double.rows("gap")
    assert (gap["from_ts"], gap["to_ts"]) == (from_s * S, 9 * S)


def test_a_sample_that_was_asked_for_has_not_been_on_its_way() -> None:
    double = MemoryRings()
    feed = make_both(double, Transport.HTTP_POLL)
    feed.on_both(5 * S, 5 * S, ROW, 1.0)
    feed.poll_missed()
    feed.on_both(25 * S, 25 * S, ROW, 1.0)
    (gap,) = double.rows("gap")
    assert (gap["from_ts"], gap["to_ts"]) == (5 * S, 25 * S)


def test_rows_stamped_by_our_own_clock_survive_its_being_set_back() -> None:
    double = MemoryRings()
    feed = make_both(double)
    for second in (9, 5, 5):
        feed.on_both(second * S, second * S, ROW, 1.0)
    assert double.rows("funding")["ts_event"].tolist() == [9 * S, 5 * S, 5 * S]
    assert feed.duplicate_count == 0


ORDER = LiquidationRow(5 * S, int(Side.SELL), 100.5, 2.0, 1.5, 100.75)


def test_a_liquidation_is_stored_once_and_whole() -> None:
    double = MemoryRings()
    feed = make_liquidations(double)
    feed.on_liquidation(ORDER, 6)
    feed.on_liquidation(ORDER._replace(avg_price=100.76), 7)
    feed.on_liquidation(ORDER._replace(filled_qty=2.0), 8)
    rows = double.rows("liquidation").tolist()
    assert rows[0] == (3, 0, ord("S"), 0, 5 * S, 6, 100.5, 100.75, 2.0, 1.5)
    assert [row[-1] for row in rows] == [1.5, 2.0]
    assert feed.duplicate_count == 1


def test_liquidations_with_numbers_of_their_own_are_told_apart_by_them() -> None:
    """One number has both sides of a trade where both orders were forced."""
    double = MemoryRings()
    feed = make_liquidations(double)
    bought = ORDER._replace(side=int(Side.BUY))
    for order, number in ((ORDER, 7), (ORDER, 8), (bought, 8), (ORDER, 7), (ORDER, 8)):
        feed.on_liquidation(order, 6, number)
    assert double.rows("liquidation")["side"].tolist() == [ord("S"), ord("S"), ord("B")]
    assert feed.duplicate_count == 2


def test_only_the_newest_liquidations_are_remembered() -> None:
    double = MemoryRings()
    feed = make_liquidations(double)
    for number in range(3000):
        feed.on_liquidation(ORDER._replace(ts_event=number), 1)
    assert len(feed._recent) <= 2048
    feed.on_liquidation(ORDER._replace(ts_event=2999), 1)
    assert feed.duplicate_count == 1


def test_a_silent_liquidation_stream_is_live_after_a_while_and_declares_nothing() -> None:
    double = MemoryRings()
    feed = make_liquidations(double)
    feed.tick(wall_ns() + 4000 * S)
    assert feed.status().state is StreamState.SYNCING, "the clock was set, no time has passed"
    settle(feed)
    assert feed.status().state is StreamState.LIVE
    assert len(double.rows("gap")) == 0


def settle(feed: Liquidations) -> int:
    """Let the subscription live for six seconds. Returns when that was."""
    feed.subscribed_s -= 6.0
    now_ns = wall_ns() + 6 * S
    feed.tick(now_ns)
    return now_ns


@pytest.mark.fault("X01")
def test_the_time_nobody_listened_is_declared_without_waiting_for_a_liquidation() -> None:
    double = MemoryRings()
    feed = make_liquidations(double)
    feed.on_liquidation(ORDER, 6)
    feed.cut("cut")
    feed.cut("cannot connect")
    feed.subscribed()
    subscribed_ns = wall_ns()
    heard_ns = settle(feed)
    feed.tick(heard_ns + S)
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"]) == (GapReason.RECONNECT, GapState.UNPROVABLE)
    assert gap["from_ts"] <= subscribed_ns
    assert gap["to_ts"] == heard_ns
    feed.on_liquidation(ORDER._replace(ts_event=9 * S), heard_ns + 2 * S)
    assert double.rows("liquidation")["flags"].tolist() == [0, Flag.AFTER_GAP]


def test_after_a_restart_liquidations_are_unknown_since_the_last_one() -> None:
    double = MemoryRings()
    feed = make_liquidations(double, Position(0, 4 * S, 4 * S, 5 * S))
    feed.on_liquidation(ORDER._replace(ts_event=60 * S), 61 * S)
    (gap,) = double.rows("gap")
    # Not since it was received: another one, of half a second later, may have been under way.
    assert (gap["reason"], gap["from_ts"], gap["to_ts"]) == (GapReason.RESTART, 4 * S, 61 * S)


@pytest.mark.fault("X03")
def test_liquidations_are_unknown_since_the_socket_was_last_heard() -> None:
    """A cable is pulled and noticed 30 s later; what was pushed a moment before it is lost too."""
    double = MemoryRings()
    feed = make_liquidations(double)
    feed.on_liquidation(ORDER, 6)
    before_ns = wall_ns()
    feed.cut("silent for 30 s", 30.0)
    after_ns = wall_ns()
    feed.subscribed()
    settle(feed)
    (gap,) = double.rows("gap")
    assert before_ns <= gap["from_ts"] + 32 * S <= after_ns


@pytest.mark.fault("X03")
def test_what_is_unknown_begins_no_earlier_than_the_last_liquidation_and_no_later_than_now() -> (
    None
):
    for ahead_s, edge_s in ((-1, -1), (900, 0)):
        double = MemoryRings()
        feed = make_liquidations(double)
        now_ns = wall_ns()
        feed.on_liquidation(ORDER._replace(ts_event=now_ns + ahead_s * S), now_ns)
        feed.cut("cut")
        feed.subscribed()
        settle(feed)
        (gap,) = double.rows("gap")
        assert 0 <= gap["from_ts"] - (now_ns + edge_s * S) < S / 2
        assert gap["from_ts"] < gap["to_ts"]


@pytest.mark.fault("X17")
def test_one_row_from_the_future_does_not_make_all_others_old() -> None:
    double = MemoryRings()
    feed = make_funding(double)
    for second in (100, 4_000_000, 101, 99, 102):
        feed.on_funding(second * S, 102 * S, ROW)
    rows = double.rows("funding")
    assert (rows["ts_event"] // S).tolist() == [100, 4_000_000, 101, 102]
    assert rows["flags"].tolist() == [0, 0, Flag.AFTER_GAP, 0]
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"]) == (GapReason.RENUMBERED, GapState.UNPROVABLE)
    assert feed.duplicate_count == 1


@pytest.mark.fault("S07")
def test_a_full_ring_of_a_slow_kind_is_declared_too() -> None:
    double = MemoryRings(capacity=8)
    feed = make_points(double)
    for second in range(1, 12):
        feed.on_open_interest(second * S, second, 1.0)
    double.release("open_interest")
    feed.on_open_interest(12 * S, 12, 1.0)
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["missing"]) == (GapReason.RING_FULL, 3)
    assert (gap["from_ts"], gap["to_ts"]) == (9 * S, 11 * S)


@pytest.mark.fault("X04")
def test_silence_where_rows_should_come_is_declared_when_it_ends() -> None:
    double = MemoryRings()
    feed = make_funding(double)
    feed.on_funding(100 * S, 1, ROW)
    feed.fell_silent("no data")
    assert len(double.rows("gap")) == 0, "it may last"
    feed.on_funding(160 * S, 2, ROW)
    feed.on_funding(161 * S, 3, ROW)
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"]) == (GapReason.SILENCE, GapState.UNPROVABLE)
    assert (gap["from_ts"], gap["to_ts"]) == (100 * S, 160 * S)
    assert double.rows("funding")["flags"].tolist() == [0, Flag.AFTER_GAP, 0]
