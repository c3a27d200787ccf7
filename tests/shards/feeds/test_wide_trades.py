"""Trades with ids that are no numbers, and trades that stand for several."""

import uuid
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from engine.data.flags import Flag, GapReason, GapState, Side
from engine.data.kinds import TRADE
from engine.data.positions import Position, Positions, read_position
from shards.feeds.handover import Handover
from shards.feeds.trades import ContiguousTrades, TradeRow, UnorderedTrades, wide_id
from tests.shards.doubles import MemoryRings, spec_of

MS = 1_000_000
START = 1_700_000_000_000 * MS
UUID = "7b0c1f2e-1111-5aaa-8bbb-0123456789ab"


def row(number: int, at_ms: int | None = None) -> TradeRow:
    """A trade whose id is made of a number, as a venue would make it: no order is left."""
    ts_event = START + (number if at_ms is None else at_ms) * MS
    return TradeRow(uuid.uuid5(uuid.NAMESPACE_OID, str(number)).int, Side.BUY, ts_event, 1.0, 1.0)


def feed_on(double: MemoryRings, last: Position | None = None) -> UnorderedTrades:
    feed = UnorderedTrades(spec_of(), double.rings["trade"], double.gaps, last)
    feed.subscribed()
    return feed


def stored(double: MemoryRings) -> list[int]:
    """The ids in the ring."""
    ids = double.rows("trade")[["trade_id_hi", "trade_id"]].tolist()
    return [(hi % 2**64) << 64 | lo % 2**64 for hi, lo in ids]


def test_an_id_keeps_its_form_where_it_has_one() -> None:
    assert wide_id(UUID) == uuid.UUID(UUID).int
    assert wide_id(UUID.upper()) == uuid.UUID(UUID).int
    assert wide_id("2290000000050703") == 2290000000050703
    assert wide_id("0") == 0
    assert wide_id(str(2**63 - 1)) == 2**63 - 1


@given(st.lists(st.text(max_size=40) | st.integers(0, 10**30).map(str), unique=True, min_size=2))
def test_different_texts_have_different_ids_that_fit(texts: list[str]) -> None:
    ids = [wide_id(text) for text in texts]
    assert len(set(ids)) == len(ids)
    assert all(0 <= each < 2**128 for each in ids)
    assert ids == [wide_id(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    ["", "007", str(2**63), "9" * 19, "9" * 5000, "١٢", "ETH-284830839", "\ud800",
     UUID.replace("ab", " b"), UUID.replace("7b", "7-"), UUID.replace("7b", "x0")],
)  # fmt: skip
def test_a_text_that_is_no_number_is_never_shown_as_one(text: str) -> None:
    assert wide_id(text) >> 64, "its upper half says that it is wide"


def test_an_id_is_the_same_in_ring_position_and_memory(tmp_path: Path) -> None:
    double = MemoryRings()
    feed = feed_on(double)
    feed.on_trades([TradeRow(wide_id(UUID), Side.SELL, START, 2.5, 3.0)], START + 5)
    (found,) = double.rows("trade")
    assert stored(double) == [uuid.UUID(UUID).int]
    assert (found["side"], found["price"], found["qty"]) == (Side.SELL, 2.5, 3.0)
    assert (found["ts_event"], found["ts_recv"], found["flags"]) == (START, START + 5, 0)
    positions = Positions(tmp_path, TRADE)
    positions.advance(double.rows("trade"))
    positions.close()
    last = read_position(tmp_path, TRADE.name, feed.slot)
    again = feed_on(double, last)
    again.on_trades([TradeRow(wide_id(UUID), Side.SELL, START, 2.5, 3.0), row(9)], START + 6)
    assert len(double.rows("gap")) == 0, "the last trade came once more: nothing lies between"
    assert again.duplicate_count == 1
    assert len(double.rows("trade")) == 2


STEPS = ["trade"] * 5 + ["late", "lose", "repeat", "reconnect"]


@given(st.lists(st.sampled_from(STEPS), max_size=80))
@settings(deadline=None)
def test_sent_equals_stored_once_plus_declared(script: list[str]) -> None:
    """A socket loses trades only while it is away; those are of a time that a gap names."""
    double = MemoryRings(gap_capacity=256)
    feed = feed_on(double)
    sent: list[TradeRow] = []
    lost: list[TradeRow] = []
    is_away = False
    for number, step in enumerate([*script, "trade"], 1):
        if step == "reconnect":
            feed.cut("cut")
            is_away = True
        elif step == "lose" and is_away:
            lost.append(row(number))
        elif step == "repeat" and sent and not is_away:
            feed.on_trades([sent[-1]], START)
        elif step in ("trade", "late"):
            late_by = 3 if step == "late" and not is_away else 0
            if is_away:
                feed.subscribed()
                is_away = False
            sent.append(row(number, number - late_by))
            feed.on_trades([sent[-1]], START)
    ids = stored(double)
    assert len(ids) == len(set(ids))
    assert set(ids) == {each.trade_id for each in sent}
    gaps = double.rows("gap")
    for each in lost:
        is_first = each.ts_event < sent[0].ts_event  # nobody had listened before
        inside = [gap["from_ts"] <= each.ts_event <= gap["to_ts"] for gap in gaps]
        assert is_first or any(inside)
    assert set(gaps["state"].tolist()) <= {GapState.UNPROVABLE}
    assert len(gaps) <= script.count("reconnect"), "by connection, not by number"


def test_a_gap_lies_between_two_connections_and_a_late_trade_is_not_lost_in_it() -> None:
    double = MemoryRings()
    feed = feed_on(double)
    feed.on_trades([row(1), row(5)], 1)
    feed.cut("cut")
    feed.subscribed()
    feed.on_trades([row(4), row(9)], 2)
    assert stored(double) == [row(each).trade_id for each in (1, 5, 4, 9)]
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"]) == (GapReason.RECONNECT, GapState.UNPROVABLE)
    assert gap["to_ts"] >= START + 4 * MS


def test_a_trade_that_is_remembered_joins_two_connections() -> None:
    double = MemoryRings()
    feed = feed_on(double)
    feed.on_trades([row(1), row(2), row(3)], 1)
    feed.cut("cut")
    feed.subscribed()
    feed.on_trades([row(2), row(3), row(4)], 2, True)
    assert stored(double) == [row(each).trade_id for each in (1, 2, 3, 4)]
    assert len(double.rows("gap")) == 0
    flags = double.rows("trade")["flags"].tolist()
    assert [bool(each & Flag.BACKFILLED) for each in flags] == [False, False, False, True]


def test_two_sockets_are_joined_by_a_trade_that_both_brought() -> None:
    double = MemoryRings()
    feed = feed_on(double)
    feed.on_trades([row(1)], 1)
    over: list[bool] = []
    handover = Handover(feed, over.append, lambda: None)
    handover.subscribed(0.0)
    handover.on_trades([row(3)], 2)
    assert not over, "what came before it on the present socket is not here yet"
    feed.on_trades([row(2)], 2)
    feed.on_trades([row(3)], 2)
    handover.on_trades([row(4)], 3)
    assert over == [False]
    feed.on_trades([row(5)], 4)
    assert stored(double) == [row(each).trade_id for each in (1, 2, 3, 4, 5)]
    assert len(double.rows("gap")) == 0


def test_a_full_ring_declares_the_time_of_what_it_refused() -> None:
    double = MemoryRings(capacity=64)
    feed = feed_on(double)
    feed.on_trades([row(number) for number in range(70)], 1)
    double.release("trade")
    feed.tick(2)
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["missing"]) == (GapReason.RING_FULL, 6)
    assert (gap["from_ts"], gap["to_ts"]) == (START + 64 * MS, START + 69 * MS)


# -- trades that stand for several ---------------------------------------------------------------


MERGED_STEPS = ["send"] * 3 + ["lose", "repeat", "reconnect"]


@given(st.lists(st.tuples(st.sampled_from(MERGED_STEPS), st.integers(1, 5)), max_size=60))
@settings(deadline=None)
def test_ids_are_stored_once_or_declared_also_where_a_trade_has_several(
    script: list[tuple[str, int]],
) -> None:
    double = MemoryRings(gap_capacity=256)
    feed = ContiguousTrades(spec_of(), double.rings["trade"], double.gaps, None)
    feed.subscribed()
    next_id, spans, received = 100, {}, [(100, 100)]
    feed.on_merged_trade(100, 100, Side.BUY, START, START, 1.0, 1.0)
    spans[100] = {100}
    for step, count in [*script, ("send", 1)]:
        first, last = next_id + 1, next_id + count
        if step in ("send", "lose"):
            next_id = last
            spans[last] = set(range(first, last + 1))
        if step == "send":
            received.append((first, last))
        if step in ("send", "repeat"):
            feed.on_merged_trade(*received[-1], Side.BUY, START, START, 1.0, 1.0)
        elif step == "reconnect":
            feed.cut("cut")
            feed.subscribed()
    ids = double.rows("trade")["trade_id"].tolist()
    assert ids == [last for _, last in received], "each once, under its last id"
    declared = {
        each
        for gap in double.rows("gap")
        for each in range(int(gap["from_seq"]), int(gap["to_seq"]) + 1)
    }
    have = set().union(*(spans[last] for last in ids))
    assert have | declared == set(range(100, next_id + 1))
    assert not have & declared
    assert feed.missing_count == len(declared)


def test_a_merged_trade_that_reaches_back_over_stored_ids_is_no_gap() -> None:
    double = MemoryRings()
    feed = ContiguousTrades(spec_of(), double.rings["trade"], double.gaps, None)
    feed.subscribed()
    feed.on_trade(100, Side.BUY, START, START, 1.0, 1.0)
    feed.cut("cut")
    feed.subscribed()
    feed.on_merged_trade(99, 103, Side.BUY, START + MS, START, 1.0, 5.0)
    assert feed.has_data
    feed.on_merged_trade(104, 105, Side.BUY, START + MS, START, 1.0, 1.0)
    feed.on_merged_trade(104, 105, Side.BUY, START + MS, START, 1.0, 1.0)
    assert double.rows("trade")["trade_id"].tolist() == [100, 103, 105]
    assert feed.duplicate_count == 1
    assert len(double.rows("gap")) == 0
