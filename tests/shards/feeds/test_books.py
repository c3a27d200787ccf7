"""Books: what is stored rebuilds the venue's book, and every hole in the chain is declared."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from engine.data.flags import Flag, GapReason, GapState, Side
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK
from engine.data.names import StreamKind
from engine.data.positions import Position
from engine.messages.streams import StreamState
from shards.feeds.book_rows import BookEvent, Level, put_event
from shards.feeds.books import (
    MAX_BUFFERED_EVENTS,
    MAX_BUFFERED_ROWS,
    DeltaBook,
    SnapshotBook,
)
from tests.shards.doubles import MemoryRings, spec_of

Book = dict[str, dict[float, float]]


class VenueBook:
    """A venue: its true book, the deltas it sends, the snapshots it would answer with."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.book: Book = {"b": {}, "a": {}}
        self.seq = 100
        self.previous = 90

    def delta(self) -> tuple[int, BookEvent]:
        first, self.seq = self.seq + 2, self.seq + int(self.rng.integers(2, 9))
        sides: list[list[Level]] = [[], []]
        for _ in range(int(self.rng.integers(0, 14))):
            side = int(self.rng.integers(2))
            price, qty = float(self.rng.integers(1, 30)), float(self.rng.integers(0, 3))
            sides[side].append((price, qty))
            levels = self.book["ba"[side]]
            levels.pop(price, None) if qty == 0 else levels.update({price: qty})
        event = BookEvent(self.seq, self.previous, self.seq, 1, sides[0], sides[1])
        self.previous = self.seq
        return first, event

    def snapshot(self) -> BookEvent:
        return BookEvent(
            self.seq, 0, self.seq, 1,
            list(self.book["b"].items()), list(self.book["a"].items()), is_snapshot=True,
        )  # fmt: skip


def replay(rows: RecordArray) -> tuple[Book | None, int]:
    """What a consumer makes of the rows: (the book or None while unknown, its sequence)."""
    book: Book | None = None
    seq = -1
    for row in rows:
        flags = int(row["flags"])
        if flags & Flag.AFTER_GAP:
            book = None
        if flags & Flag.SNAPSHOT and flags & Flag.FIRST_IN_EVENT:
            book = {"b": {}, "a": {}}
        if book is None:
            continue
        seq = int(row["seq"])
        side = chr(row["side"])
        if side == "-":
            continue
        if row["qty"] == 0:
            book[side].pop(float(row["price"]), None)
        else:
            book[side][float(row["price"])] = float(row["qty"])
    return book, seq


def make(double: MemoryRings, last: Position | None = None) -> tuple[DeltaBook, list[DeltaBook]]:
    asked: list[DeltaBook] = []
    spec = spec_of(kind=StreamKind.L2_BOOK)
    feed = DeltaBook(spec, double.rings[BOOK.name], double.gaps, last, asked.append)
    feed.subscribed()
    return feed, asked


@given(
    seed=st.integers(0, 2**32 - 1),
    script=st.lists(
        st.sampled_from(
            ["event"] * 5
            + ["lose", "answer", "answer", "old", "late", "reconnect", "repeat", "renew"]
        ),
        max_size=80,
    ),
)
@settings(deadline=None, max_examples=150)
def test_stored_rows_rebuild_the_venues_book_whatever_happens(seed: int, script: list[str]) -> None:
    double = MemoryRings(gap_capacity=256)
    venue = VenueBook(np.random.default_rng(seed))
    feed, asked = make(double)
    snapshots = [venue.snapshot()]
    received: list[int] = []
    lost: list[int] = []
    last = venue.delta()
    feed.on_event(*last)
    received.append(last[1].seq)
    for step in script:
        if step in ("event", "lose"):
            last = venue.delta()
            snapshots.append(venue.snapshot())
            if step == "event":
                feed.on_event(*last)
                received.append(last[1].seq)
            else:
                lost.append(last[1].seq)
        elif step in ("answer", "old", "late") and asked:
            taken = {"answer": snapshots[-1], "old": snapshots[0], "late": snapshots[-3:][0]}
            feed.on_snapshot(taken[step])
            asked.clear() if feed.is_settled else None
        elif step == "renew":
            feed.renew()
        elif step == "repeat" and received:
            feed.on_event(*last) if last[1].seq == received[-1] else None
        elif step == "reconnect":
            feed.cut("cut")
            feed.subscribed()
    # Quiet again: one more event, and a fresh snapshot.
    final = venue.delta()
    feed.on_event(*final)
    received.append(final[1].seq)
    feed.on_snapshot(venue.snapshot())
    assert feed.is_synced
    assert feed.state is StreamState.LIVE
    rows = double.rows("book")
    book, seq = replay(rows)
    assert book == venue.book
    assert seq == venue.seq
    deltas = rows[(rows["flags"] & Flag.SNAPSHOT) == 0]
    firsts = deltas[(deltas["flags"] & Flag.FIRST_IN_EVENT) != 0]
    assert firsts["seq"].tolist() == received, "each event stored once, in order"
    for missing in lost:
        assert any(g["from_seq"] <= missing <= g["to_seq"] for g in double.rows("gap"))
    for seq in received:
        assert not any(g["from_seq"] <= seq <= g["to_seq"] for g in double.rows("gap"))


def test_a_running_book_is_renewed_as_of_its_last_event() -> None:
    double = MemoryRings()
    feed, asked = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(7, 0, 9, 1, [(1.0, 5.0)], [(2.0, 5.0)], is_snapshot=True))
    asked.clear()
    feed.renew()
    feed.renew()
    assert asked == [feed], "one is under way"
    feed.on_event(11, BookEvent(20, 10, 20, 1, [(1.5, 3.0)], [(2.0, 0.0), (4.0, 4.0)]))
    feed.on_event(21, BookEvent(30, 20, 30, 1, [(1.0, 0.0)], []))
    assert feed.state is StreamState.LIVE
    assert double.rows("book")["seq"].max() == 30, "events are written while it is fetched"
    snapshot = [(1.0, 1.0)], [(3.0, 2.0), (2.0, 5.0)]
    feed.on_snapshot(BookEvent(15, 0, 15, 1, *snapshot, is_snapshot=True))
    whole = double.rows("book")[-3:]
    assert whole["seq"].tolist() == [30, 30, 30]
    assert whole["price"].tolist() == [1.5, 3.0, 4.0]
    assert whole["qty"].tolist() == [3.0, 2.0, 4.0]
    assert replay(whole)[0] == replay(double.rows("book"))[0]
    assert feed.is_settled
    assert not len(double.rows("gap"))


def test_a_renewal_that_comes_too_early_or_too_late_is_waited_for_or_repeated() -> None:
    double = MemoryRings()
    feed, asked = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(7, 0, 9, 1, [], [], is_snapshot=True))
    asked.clear()
    feed.renew()
    feed.on_event(11, BookEvent(20, 10, 20, 1, [], []))
    feed.on_snapshot(BookEvent(8, 0, 8, 1, [], [], is_snapshot=True))
    assert asked == [feed, feed], "older than what was kept"
    feed.on_snapshot(BookEvent(25, 0, 25, 1, [(9.0, 9.0)], [], is_snapshot=True))
    assert not feed.is_settled, "no event has reached it"
    feed.on_event(21, BookEvent(30, 20, 30, 1, [(2.0, 2.0)], []))
    assert feed.is_settled
    assert replay(double.rows("book"))[0] == {"b": {9.0: 9.0, 2.0: 2.0}, "a": {}}
    feed.on_snapshot(BookEvent(30, 0, 30, 1, [], [], is_snapshot=True))
    assert replay(double.rows("book"))[1] == 30, "nobody asked for that one"


def test_a_renewal_that_comes_to_nothing_is_given_up_and_stands_in_nobodys_way() -> None:
    for answer in (None, BookEvent(10**9, 0, 1, 1, [], [], is_snapshot=True)):
        double = MemoryRings()
        feed, asked = make(double)
        feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
        feed.on_snapshot(BookEvent(7, 0, 9, 1, [], [], is_snapshot=True))
        feed.renew()
        if answer is not None:
            feed.on_snapshot(answer)
        for seq in range(11, 12 + MAX_BUFFERED_EVENTS):
            feed.on_event(seq, BookEvent(seq, seq - 1, seq, 1, [], []))
        assert feed.is_settled, "given up"
        asked.clear()
        feed.on_event(9001, BookEvent(9001, 9000, 9001, 1, [(2.0, 2.0)], []))
        assert asked == [feed], "a chain that breaks afterwards needs a snapshot"
        feed.on_snapshot(BookEvent(9001, 0, 9001, 1, [(3.0, 3.0)], [], is_snapshot=True))
        assert feed.is_synced


@pytest.mark.fault("N08")
def test_large_events_wait_for_a_snapshot_within_a_bound() -> None:
    """Nobody may ask for snapshots while a venue forbids it, and hundreds of books wait."""
    double = MemoryRings(1 << 17)
    feed, _ = make(double)
    levels = [(float(number), 1.0) for number in range(1, 1001)]
    most = MAX_BUFFERED_ROWS // 1000
    for seq in range(1, most + 1):
        feed.on_event(seq, BookEvent(seq, seq - 1, seq, 1, levels, []))
    assert len(double.rows("book")) == 0
    feed.on_event(most + 1, BookEvent(most + 1, most, most + 1, 1, levels, []))
    assert len(double.rows("book")) == 1000 * (most + 1), "stored without one"
    feed.on_event(most + 2, BookEvent(most + 2, most + 1, most + 2, 1, levels, []))
    feed.on_snapshot(BookEvent(most + 2, 0, most + 2, 1, levels, [], is_snapshot=True))
    assert feed.is_synced
    feed.renew()
    for seq in range(most + 3, 2 * most + 4):
        feed.on_event(seq, BookEvent(seq, seq - 1, seq, 1, levels, []))
    assert feed.is_settled, "the renewal is given up as well"
    assert len(double.rows("gap")) == 0


def test_a_renewal_without_room_leaves_the_book_as_it_is() -> None:
    double = MemoryRings(capacity=32)
    feed, _ = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(7, 0, 9, 1, [], [], is_snapshot=True))
    feed.renew()
    levels = [(float(price), 1.0) for price in range(1, 41)]
    feed.on_snapshot(BookEvent(10, 0, 10, 1, levels, [], is_snapshot=True))
    assert feed.is_settled
    assert feed.state is StreamState.LIVE
    assert not len(double.rows("gap"))


def test_a_quiet_book_is_renewed_too() -> None:
    double = MemoryRings()
    feed, _ = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(7, 0, 9, 1, [], [], is_snapshot=True))
    feed.renew()
    feed.on_snapshot(BookEvent(10, 0, 10, 1, [(1.0, 1.0)], [(2.0, 1.0)], is_snapshot=True))
    assert feed.is_settled
    assert replay(double.rows("book"))[0] == {"b": {1.0: 1.0}, "a": {2.0: 1.0}}


@pytest.mark.fault("X15")
def test_broken_chain_names_its_edges_and_asks_for_a_snapshot() -> None:
    double = MemoryRings()
    feed, asked = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(7, 0, 9, 1, [(1.0, 5.0)], [(2.0, 5.0)], is_snapshot=True))
    assert feed.is_synced
    asked.clear()
    feed.on_event(25, BookEvent(30, 20, 30, 2, [], [(3.0, 1.0)]))
    assert not feed.is_synced
    assert asked == [feed]
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"]) == (11, 20)
    assert gap["reason"] == GapReason.RESYNC
    assert double.rows("book")["seq"].max() == 10, "nothing is published while out of sync"


@pytest.mark.fault("X16")
def test_snapshot_that_never_fits_is_asked_for_again_and_nothing_is_lost() -> None:
    double = MemoryRings()
    feed, asked = make(double)
    feed.on_event(50, BookEvent(60, 40, 60, 1, [(1.0, 1.0)], []))
    for _ in range(3):
        feed.on_snapshot(BookEvent(10, 0, 10, 1, [], [], is_snapshot=True))
        assert not feed.is_synced
    assert len(asked) == 4
    assert "older" in feed.reason
    feed.cut("cut")
    assert double.rows("book")["seq"].tolist() == [60]


def test_snapshot_waits_for_an_event_that_reaches_it() -> None:
    double = MemoryRings()
    feed, asked = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(30, 0, 30, 1, [(9.0, 9.0)], [], is_snapshot=True))
    assert not feed.is_synced
    feed.on_event(28, BookEvent(31, 10, 31, 1, [(2.0, 2.0)], []))
    assert feed.is_synced
    assert double.rows("book")["seq"].tolist() == [10, 30, 31]
    assert len(asked) == 1


def test_direct_continuation_of_the_snapshot_is_accepted() -> None:
    double = MemoryRings()
    feed, _ = make(double)
    feed.on_event(35, BookEvent(40, 30, 40, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(30, 0, 30, 1, [], [], is_snapshot=True))
    assert feed.is_synced


@pytest.mark.fault("N44")
@pytest.mark.parametrize("stamped", [1, 20, 25, 99])
@pytest.mark.parametrize("seq", [20, 23])
def test_who_orders_by_time_applies_events_and_snapshot_as_they_were_written(
    stamped: int, seq: int
) -> None:
    """Also where the venue stamps a snapshot when it answers, or serves an old one."""
    double = MemoryRings()
    feed, _ = make(double, Position(0, 5, 5, 5))
    for event_seq in (10, 20, 30, 40):
        prev_seq = max(event_seq - 10, 7)
        event = BookEvent(event_seq, prev_seq, event_seq, 1, [(float(event_seq), 1.0)], [])
        feed.on_event(event_seq - 9, event)
    feed.on_snapshot(BookEvent(seq, 0, stamped, 1, [(1.0, 1.0)], [], is_snapshot=True))
    assert feed.is_synced
    rows = double.rows("book")
    snapshot = (rows["flags"] & Flag.SNAPSHOT) != 0
    read = np.lexsort((snapshot, rows["seq"], rows["ts_event"]))
    assert rows["seq"].tolist() == [10, 20, seq, 30, 40]
    assert read.tolist() == [0, 1, 2, 3, 4]
    assert snapshot.tolist() == [False, False, True, False, False]
    assert bool(rows["flags"][0] & Flag.AFTER_GAP), "what a reader meets first says so"


def test_event_without_levels_keeps_its_link_in_the_chain() -> None:
    double = MemoryRings()
    feed, _ = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [], []))
    feed.on_snapshot(BookEvent(7, 0, 7, 1, [], [], is_snapshot=True))
    rows = double.rows("book")
    assert [chr(side) for side in rows["side"]] == ["-", "-"]
    whole = Flag.FIRST_IN_EVENT | Flag.LAST_IN_EVENT
    assert rows["flags"].tolist() == [whole | Flag.SNAPSHOT, whole]
    assert rows["prev_seq"].tolist() == [0, 1]


@pytest.mark.fault("S07")
def test_full_ring_drops_whole_events_and_the_book_starts_anew() -> None:
    double = MemoryRings(capacity=32)
    feed, asked = make(double)
    feed.on_event(5, BookEvent(10, 1, 10, 1, [(1.0, 1.0)], []))
    feed.on_snapshot(BookEvent(7, 0, 7, 1, [(1.0, 2.0)], [], is_snapshot=True))
    asked.clear()
    many = [(float(price), 1.0) for price in range(1, 41)]
    feed.on_event(11, BookEvent(12, 10, 12, 1, many, []))
    assert not feed.is_synced
    double.release("book")
    feed.on_event(13, BookEvent(14, 12, 14, 1, [(2.0, 1.0)], []))
    feed.on_snapshot(BookEvent(13, 0, 13, 1, [(5.0, 5.0)], [], is_snapshot=True))
    assert feed.is_synced
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"], gap["missing"]) == (12, 12, 40)
    assert gap["reason"] == GapReason.RING_FULL


@given(
    bids=st.integers(0, 40), asks=st.integers(0, 40),
    start=st.integers(0, 127), snapshot=st.booleans(),
)  # fmt: skip
@settings(deadline=None)
def test_event_rows_are_the_same_packed_one_by_one_or_as_a_block(
    bids: int, asks: int, start: int, snapshot: bool
) -> None:
    """Also across the wrap of the ring, which `start` moves around."""
    double = MemoryRings(capacity=128)
    ring = double.rings[BOOK.name]
    for _ in range(start):
        ring.reserve()
    double.release("book")
    bid_levels = [(100.0 - i, 1.0 + i) for i in range(bids)]
    ask_levels = [(101.0 + i, 2.0 + i) for i in range(asks)]
    event = BookEvent(9, 8, 7, 6, bid_levels, ask_levels, is_snapshot=snapshot)
    put_event(ring, ring.reserve(event.row_count), 5, event, Flag.AFTER_GAP)
    ring.publish()
    views = ring.views(start, event.row_count)
    rows = np.concatenate(views)
    assert rows["price"].tolist() == ([p for p, _ in bid_levels + ask_levels] or [0.0])
    assert rows["qty"].tolist() == ([q for _, q in bid_levels + ask_levels] or [0.0])
    sides = [Side.BID] * bids + [Side.ASK] * asks or [Side.NONE]
    assert rows["side"].tolist() == sides
    flags = [int(Flag.SNAPSHOT) if snapshot else 0] * len(rows)
    flags[0] |= Flag.FIRST_IN_EVENT | Flag.AFTER_GAP
    flags[-1] |= Flag.LAST_IN_EVENT
    assert rows["flags"].tolist() == flags
    for name, value in (("stream", 5), ("seq", 9), ("prev_seq", 8), ("ts_event", 7)):
        assert (rows[name] == value).all()


def test_whole_books_chain_and_ignore_what_is_not_newer() -> None:
    double = MemoryRings()
    spec = spec_of(venue="hyperliquid_perp", symbol="BTC", kind=StreamKind.L2_BOOK)
    feed = SnapshotBook(spec, double.rings[BOOK.name], double.gaps, None)
    feed.subscribed()
    feed.on_book(BookEvent(1000, 0, 1000, 1, [(10.0, 1.0), (9.0, 1.0)], [(11.0, 1.0)]))
    feed.on_book(BookEvent(1000, 0, 1000, 2, [(10.0, 1.0)], []))
    feed.on_book(BookEvent(900, 0, 900, 3, [(10.0, 1.0)], []))
    feed.on_book(BookEvent(1500, 0, 1500, 4, [(10.0, 2.0)], []))
    book, seq = replay(double.rows("book"))
    assert book == {"b": {10.0: 2.0}, "a": {}}, "levels that vanished are gone"
    assert seq == 1500
    assert sorted(set(double.rows("book")["prev_seq"].tolist())) == [0, 1000]
    feed.on_book(BookEvent(2000, 0, 2000, 5, [], []))
    assert replay(double.rows("book"))[0] == {"b": {}, "a": {}}


def test_whole_books_missed_while_away_are_unprovable() -> None:
    double = MemoryRings()
    last = Position(0, 1000, 1000, 1)
    feed = SnapshotBook(
        spec_of(kind=StreamKind.L2_BOOK), double.rings[BOOK.name], double.gaps, last
    )
    feed.subscribed()
    feed.on_book(BookEvent(3000, 0, 3000, 1, [(10.0, 1.0)], []))
    (gap,) = double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"]) == (1001, 2999)
    assert gap["state"] == GapState.UNPROVABLE
    assert gap["reason"] == GapReason.RESTART


@pytest.mark.fault("X17")
def test_one_whole_book_from_the_future_does_not_make_all_others_old() -> None:
    double = MemoryRings()
    feed = SnapshotBook(spec_of(), double.rings[BOOK.name], double.gaps, None)
    feed.subscribed()
    for ms in (100_000, 4_000_000_000, 100_001, 99_999, 100_002):
        feed.on_book(BookEvent(ms, 0, ms * 1_000_000, 1, [(1.0, 1.0)], []))
    rows = double.rows("book")
    assert rows["seq"].tolist() == [100_000, 4_000_000_000, 100_001, 100_002]
    assert rows["prev_seq"].tolist() == [0, 100_000, 0, 100_001]
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["state"]) == (GapReason.RENUMBERED, GapState.UNPROVABLE)


@pytest.mark.fault("X04")
def test_whole_books_that_did_not_come_are_declared() -> None:
    double = MemoryRings()
    feed = SnapshotBook(spec_of(), double.rings[BOOK.name], double.gaps, None)
    feed.subscribed()
    feed.on_book(BookEvent(1000, 0, 1000, 1, [(1.0, 1.0)], []))
    feed.fell_silent("no data")
    feed.on_book(BookEvent(61_000, 0, 61_000, 2, [(1.0, 1.0)], []))
    (gap,) = double.rows("gap")
    assert (gap["reason"], gap["from_ts"], gap["to_ts"]) == (GapReason.SILENCE, 1000, 61_000)
