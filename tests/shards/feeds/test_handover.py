"""A stream between two sockets that bring the same rows, each at a time of its own."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import GapReason, Side
from engine.data.kinds import BOOK, FUNDING, LIQUIDATION, OPEN_INTEREST, QUOTE, TRADE
from engine.messages.streams import StreamState
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook, SnapshotBook
from shards.feeds.contracts import (
    FundingOpenInterest,
    FundingRates,
    FundingRow,
    LiquidationRow,
    Liquidations,
)
from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.feed import Feed
from shards.feeds.handover import Handover
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades, HistoryTrades, TradeRow
from tests.shards.doubles import MemoryRings, spec_of

COUNT = 40
MS = 1_000_000


def at(n: int) -> int:
    return (1_700_000_000_000 + n) * MS


class Kind(NamedTuple):
    """How a kind of stream is made, fed with its row number `n`, and read."""

    make: Callable[[MemoryRings], Feed]
    feed: Callable[[Any, int], None]
    ring: str
    column: str
    history: int = 0
    """So many rows of the past come in front of a socket's first."""


def synced_book(double: MemoryRings) -> DeltaBook:
    book = DeltaBook(spec_of(), double.rings[BOOK.name], double.gaps, None, lambda _: None)
    book.subscribed()
    feed_delta(book, 0)
    book.on_snapshot(BookEvent(1, 0, at(0), wall_ns(), [(9.0, 0.0)], [], is_snapshot=True))
    assert book.is_synced
    return book


def feed_trade(to: Any, n: int) -> None:
    to.on_trade(n, 66, at(n), wall_ns(), 10.0, float(n))


def feed_history(to: Any, *numbers: int) -> None:
    rows = [TradeRow(n * 7919 % 1009, 66, at(n // 2), 10.0, float(n)) for n in numbers]
    to.on_trades(rows, wall_ns())


def feed_delta(to: Any, n: int) -> None:
    to.on_event(n, BookEvent(n + 1, n, at(n), wall_ns(), [(10.0, float(n))], []))


def feed_book(to: Any, n: int) -> None:
    to.on_book(BookEvent(at(n) // MS, 0, at(n), wall_ns(), [(10.0, float(n))], []))


def feed_quote(to: Any, n: int) -> None:
    to.on_quote(n, at(n), wall_ns(), (9.0, float(n), 11.0, 1.0))


def feed_funding(to: Any, n: int) -> None:
    to.on_funding(at(n), wall_ns(), FundingRow(0.1, float(n), 10.0))


def feed_both(to: Any, n: int) -> None:
    now_ns = wall_ns()
    to.on_both(now_ns, now_ns, FundingRow(0.1, float(n), 10.0), 5.0)


def feed_liquidation(to: Any, n: int) -> None:
    to.on_liquidation(LiquidationRow(at(n), 66, 10.0, float(n), 0.0, 0.0), wall_ns())


def both(double: MemoryRings) -> FundingOpenInterest:
    rings = double.rings
    other = rings[OPEN_INTEREST.name]
    stream = FundingOpenInterest(spec_of(), rings[FUNDING.name], double.gaps, None, other)
    stream.subscribed()
    return stream


def plain(feed: Callable[..., Feed], kind: str) -> Callable[[MemoryRings], Feed]:
    def make(double: MemoryRings) -> Feed:
        stream = feed(spec_of(), double.rings[kind], double.gaps, None)
        stream.subscribed()
        return stream

    return make


KINDS = {
    "trades": Kind(plain(ContiguousTrades, TRADE.name), feed_trade, "trade", "qty"),
    "history": Kind(plain(HistoryTrades, TRADE.name), feed_history, "trade", "qty", 6),
    "deltas": Kind(synced_book, feed_delta, "book", "qty"),
    "books": Kind(plain(SnapshotBook, BOOK.name), feed_book, "book", "qty"),
    "quotes": Kind(plain(Quotes, QUOTE.name), feed_quote, "quote", "bid_qty"),
    "funding": Kind(plain(FundingRates, FUNDING.name), feed_funding, "funding", "mark"),
    "both": Kind(both, feed_both, "funding", "mark"),
    "liquidations": Kind(
        plain(Liquidations, LIQUIDATION.name), feed_liquidation, "liquidation", "qty"
    ),
}


class Rig:
    """One stream and its two sockets."""

    def __init__(self, kind: Kind) -> None:
        self.double = MemoryRings()
        self.kind = kind
        self.stream = kind.make(self.double)
        self.over: list[bool] = []
        self.asked_again = 0
        self.handover = Handover(self.stream, self.on_over, self.on_asked_again)

    def on_asked_again(self) -> None:
        self.asked_again += 1

    def on_over(self, anew: bool) -> None:
        self.over.append(anew)
        if anew:
            self.stream.subscribed()

    def old(self, n: int) -> None:
        """The present socket delivers; after the handover nobody listens."""
        if not self.over:
            self.kind.feed(self.stream, n)

    def new(self, n: int, *, is_first: bool = False) -> None:
        """The next socket delivers."""
        to = self.stream if self.over else self.handover
        if is_first and self.kind.history:
            feed_history(to, *reversed(range(max(n - self.kind.history, 1), n + 1)))
        else:
            self.kind.feed(to, n)

    def stored(self) -> list[float]:
        rows = self.double.rows(self.kind.ring)
        if self.kind.ring == "book":
            rows = rows[rows["qty"] > 0]  # without the first event and the snapshot
        found: list[float] = rows[self.kind.column].tolist()
        return found

    @property
    def gaps(self) -> list[tuple[int, int, GapReason]]:
        rows = self.double.rows("gap")
        return [(int(g["from_seq"]), int(g["to_seq"]), GapReason(g["reason"])) for g in rows]


@pytest.mark.parametrize("name", [name for name in KINDS if name != "liquidations"])
@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_stored_once_and_in_order_whoever_is_ahead(name: str, seed: int) -> None:
    dice = random.Random(seed)
    rig = Rig(KINDS[name])
    start = old = new = dice.randint(2, 10)
    lead = dice.uniform(0.2, 0.8)
    for n in range(1, start):
        rig.old(n)
    rig.handover.subscribed(monotonic_s())
    while new < COUNT:
        if dice.random() < lead and old < COUNT:
            rig.old(old)
            old += 1
            rig.handover.tick(monotonic_s())
        else:
            rig.new(new, is_first=new == start)
            new += 1
    assert rig.over == [False]
    assert rig.stored() == list(range(1, COUNT))
    assert rig.gaps == []
    assert rig.stream.state is StreamState.LIVE


@pytest.mark.fault("N03")
@pytest.mark.parametrize("name", [name for name in KINDS if name != "liquidations"])
@pytest.mark.parametrize("seed", range(20))
def test_what_both_sockets_bring_unreadably_is_declared_once(name: str, seed: int) -> None:
    dice = random.Random(seed)
    rig = Rig(KINDS[name])
    start = old = new = dice.randint(2, 10)
    lead = dice.uniform(0.2, 0.8)
    bad = set(dice.sample(range(start + 1, COUNT - 1), 4))

    def unreadable(to: Any, n: int) -> None:
        to.on_unreadable(Unreadable(wall_ns(), mark=n))

    for n in range(1, start):
        rig.old(n)
    rig.handover.subscribed(monotonic_s())
    while new < COUNT:
        if dice.random() < lead and old < COUNT:
            if old not in bad:
                rig.old(old)
            elif not rig.over:
                unreadable(rig.stream, old)
            old += 1
            rig.handover.tick(monotonic_s())
        else:
            if new not in bad:
                rig.new(new, is_first=new == start)
            else:
                unreadable(rig.stream if rig.over else rig.handover, new)
            new += 1
    assert rig.over == [False]
    rig.stream.cut("the test is over")
    rig.stream.declare_pending(wall_ns())
    assert rig.stored() == [n for n in range(1, COUNT) if n not in bad]
    gaps = rig.double.rows("gap")
    assert set(gaps["reason"].tolist()) == {GapReason.UNREADABLE}
    assert gaps["missing"].sum() == rig.stream.refused_count == len(bad)


def test_liquidations_of_both_sockets_are_told_apart_by_what_they_say() -> None:
    rig = Rig(KINDS["liquidations"])
    rig.old(1)
    now_s = monotonic_s()
    rig.handover.subscribed(now_s)
    rig.new(3)
    rig.new(4)
    rig.handover.tick(now_s + 4)
    assert rig.over == [], "the present one may still bring what was pushed before"
    for n in (2, 3):
        rig.old(n)
    rig.handover.tick(now_s + 6)
    assert rig.over == [False]
    rig.new(5)
    assert rig.stored() == [1, 2, 3, 4, 5]
    assert rig.gaps == []


def test_quotes_of_one_number_are_told_apart() -> None:
    rig = Rig(KINDS["quotes"])
    first, second = (9.0, 1.0, 11.0, 1.0), (9.0, 2.0, 11.0, 1.0)
    for content in (first, second):
        rig.stream.on_quote(5, at(5), wall_ns(), content)  # type: ignore[attr-defined]
    rig.handover.subscribed(monotonic_s())
    rig.handover.on_quote(5, at(5), wall_ns(), first)
    assert rig.over == [], "the second one is about to come"
    rig.handover.on_quote(5, at(5), wall_ns(), second)
    assert rig.over == [False]
    assert rig.stored() == [1.0, 2.0]


def test_a_present_socket_that_ends_before_both_met_leaves_an_exact_gap() -> None:
    rig = Rig(KINDS["trades"])
    rig.old(1)
    rig.handover.subscribed(monotonic_s())
    rig.new(5)
    rig.new(6)
    rig.handover.lost("disconnected", 0.0)
    assert rig.over == [True]
    rig.new(7)
    assert rig.stored() == [1, 5, 6, 7]
    assert rig.gaps == [(2, 4, GapReason.RECONNECT)]


def test_a_present_socket_that_ends_with_nothing_heard_on_the_next_one_is_a_reconnect() -> None:
    rig = Rig(KINDS["quotes"])
    rig.old(1)
    rig.handover.lost("disconnected", 0.0)
    assert rig.over == [True]
    rig.new(3)
    assert rig.stored() == [1, 3]
    assert rig.gaps == [(1, 3, GapReason.RECONNECT)], "quotes may share a number"


def test_a_next_socket_that_ends_costs_nothing() -> None:
    rig = Rig(KINDS["deltas"])
    rig.old(1)
    rig.handover.subscribed(monotonic_s())
    rig.new(3)
    rig.handover.start_over()
    for n in (2, 3, 4):
        rig.old(n)
    assert rig.over == []
    rig.handover.subscribed(monotonic_s())
    rig.new(6)
    rig.old(5)
    rig.handover.tick(monotonic_s())
    assert rig.over == [False]
    assert rig.stored() == [1, 2, 3, 4, 5, 6]
    assert rig.gaps == []


@pytest.mark.parametrize("name", ["trades", "deltas", "quotes", "history"])
def test_silence_on_both_sockets_is_no_gap(name: str) -> None:
    rig = Rig(KINDS[name])
    rig.old(1)
    now_s = monotonic_s()
    rig.handover.tick(now_s + 1000)
    assert rig.over == [], "not subscribed yet"
    rig.handover.subscribed(now_s)
    rig.handover.tick(now_s + 29)
    assert rig.over == []
    rig.handover.tick(now_s + 31)
    assert rig.over == [False]
    rig.new(2)
    assert rig.stored() == [1, 2]
    assert rig.gaps == []


def test_sockets_too_far_apart_do_not_fill_the_memory() -> None:
    rig = Rig(KINDS["trades"])
    rig.old(1)
    rig.handover.subscribed(monotonic_s())
    for n in range(10, 21_000):
        if rig.over:
            break
        rig.new(n)
    assert rig.over == [True]
    assert rig.gaps == [(2, 9, GapReason.RECONNECT)]


def test_quotes_of_one_number_are_not_stored_twice_by_a_socket_that_is_behind() -> None:
    rig = Rig(KINDS["quotes"])
    quotes = [(7, 1.0), (8, 1.0), (8, 2.0), (9, 1.0)]

    def quote(to: Any, seq: int, qty: float) -> None:
        to.on_quote(seq, at(seq), wall_ns(), (9.0, qty, 11.0, 1.0))

    for seq, qty in quotes[:3]:
        quote(rig.stream, seq, qty)
    rig.handover.subscribed(monotonic_s())
    for seq, qty in quotes:
        quote(rig.stream if rig.over else rig.handover, seq, qty)
    rows = rig.double.rows("quote")
    assert list(zip(rows["seq"].tolist(), rows["bid_qty"].tolist(), strict=True)) == quotes
    assert rig.over == [False]


def test_a_present_socket_that_is_lost_early_leaves_no_gap_where_the_next_one_listened() -> None:
    rig = Rig(KINDS["liquidations"])
    heard_ns = wall_ns() - 4_000_000_000
    row = LiquidationRow(heard_ns, int(Side.BUY), 10.0, 3.0, 0.0, 0.0)
    rig.handover.subscribed(monotonic_s())
    assert isinstance(rig.stream, Liquidations)
    rig.stream.on_liquidation(row, heard_ns)
    rig.handover.on_liquidation(row, heard_ns)
    rig.handover.lost("disconnected", 0.0)
    assert not len(rig.double.rows("gap"))


def test_a_next_socket_that_brings_nothing_is_asked_again_and_does_not_get_the_stream() -> None:
    rig = Rig(KINDS["trades"])
    rig.old(1)
    began_s = monotonic_s()
    rig.handover.subscribed(began_s)
    for n in range(2, 5):
        rig.old(n)
        rig.handover.tick(began_s + 31.0 * (n - 1))
        assert (rig.asked_again, rig.over) == (n - 1, [])
    rig.new(4)
    rig.new(5)
    assert rig.over == [False]
    assert rig.stored() == [1, 2, 3, 4, 5]
    assert not rig.gaps


def test_a_socket_that_begins_with_the_past_hands_over_each_row_by_its_own_way() -> None:
    double = MemoryRings()
    stream = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    stream.subscribed()
    feed_trade(stream, 1)
    handover = Handover(stream, lambda _: None, lambda: None)
    handover.subscribed(monotonic_s())
    for n in (3, 4):
        handover.on_past_trade(n, 66, at(n), wall_ns(), 10.0, float(n))
    handover.on_trade(5, 66, at(5), wall_ns(), 10.0, 5.0)
    assert len(double.rows("trade")) == 1, "the second may be under way"
    feed_trade(stream, 2)
    handover.tick(monotonic_s())
    rows = double.rows("trade")
    assert rows["trade_id"].tolist() == [1, 2, 3, 4, 5]
    assert (rows["flags"] != 0).tolist() == [False, False, True, True, False]
    assert len(double.rows("gap")) == 0


def test_the_rows_of_a_message_in_which_it_ends_all_arrive() -> None:
    """A decoder looks the stream up once a message: what it holds is the handover."""
    double = MemoryRings()
    stream = ContiguousTrades(spec_of(), double.rings[TRADE.name], double.gaps, None)
    stream.subscribed()
    feed_trade(stream, 5)
    over: list[bool] = []
    handover = Handover(stream, over.append, lambda: None)
    for n in (5, 6, 7):
        feed_trade(handover, n)
    handover.on_unreadable(Unreadable(wall_ns(), seq=8))
    feed_trade(handover, 9)
    assert over == [False]
    assert double.rows("trade")["trade_id"].tolist() == [5, 6, 7, 9]
    assert double.rows("gap")["from_seq"].tolist() == [8]
