"""Pushed books: each venue's chain is followed, and whatever breaks it is declared and mended."""

import json
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from engine.data.flags import CoverageEnd, CoverageMark, Flag, GapReason, GapState
from engine.data.instrument import Instrument
from engine.data.names import StreamKind
from engine.data.positions import Position
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.book_rows import BookEvent, Level
from shards.feeds.declared.coverage import CoverageLedger
from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.handover import Handover
from shards.feeds.pushed import books, timed
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import (
    CRC_OF_MANTISSAS,
    BookRule,
    Checksum,
    KeptBook,
    Link,
    by_one,
    by_previous,
    by_previous_or_reset,
    by_time,
)
from shards.feeds.pushed.timed import UnnumberedBook
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.feeds.test_books import Book, replay

_MS = 1_000_000
_START = 1_700_000_000_000 * _MS
Message = tuple[BookEvent, int | None]
"""An event and its checksum."""

BY_ONE = BookRule(by_one)
BY_PREVIOUS = BookRule(by_previous)
BY_PREVIOUS_OR_RESET = BookRule(by_previous_or_reset)
BY_SUM = BookRule(by_time, CRC_OF_MANTISSAS, depth=8)
BY_SUM_OF_THREE = BookRule(by_time, CRC_OF_MANTISSAS, summed=3, depth=8)


def sum_of(checksum: Checksum, bids: Iterable[Level], asks: Iterable[Level]) -> int:
    """Of a book with prices of one decimal and quantities of eight."""
    word = checksum.words(1, 8)
    return checksum.of(*([word(*level) for level in side] for side in (bids, asks)))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds that books pace themselves by; tests move it."""
    now = [1000.0]
    for module in (books, timed):
        monkeypatch.setattr(module, "monotonic_s", lambda: now[0])
    return now


class Rig:
    """A book on memory rings, and how often it asked for its topic."""

    def __init__(
        self,
        rule: BookRule,
        last: Position | None = None,
        capacity: int = 1 << 14,
        decimals: tuple[int, int] = (1, 8),
        make: type[PushedBook] = PushedBook,
    ) -> None:
        self.double = MemoryRings(capacity, gap_capacity=1024)
        instrument = Instrument("toy", "BTCUSDT", *decimals)
        spec = StreamSpec(3, spec_of(kind=StreamKind.L2_BOOK).key, instrument=instrument)
        self.asked: list[PushedBook] = []
        rings = self.double.rings
        self.feed = make(spec, rings["book"], self.double.gaps, last, rule, self.asked.append)
        self.feed.resume(CoverageLedger(rings["coverage"]), None)
        self.feed.subscribed()

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.feed.on_event(*message)

    def state(self) -> StreamState:
        return self.feed.state

    def gaps(self) -> list[tuple[int, ...]]:
        """(reason, state, from_seq, to_seq) of each."""
        names = ["reason", "state", "from_seq", "to_seq"]
        return [tuple(int(each) for each in row) for row in self.double.rows("gap")[names]]

    def book(self) -> Book | None:
        return replay(self.double.rows("book"))[0]

    def seqs(self) -> list[int]:
        """Of the events stored, in order."""
        rows = self.double.rows("book")
        return list(rows["seq"][(rows["flags"] & Flag.FIRST_IN_EVENT) != 0].tolist())


def snapshot(seq: int, ts_ms: int = 0, bids: Sequence[Level] = ((1.0, 1.0),)) -> BookEvent:
    return BookEvent(seq, 0, _START + ts_ms * _MS, 1, bids, [(9.0, 9.0)], is_snapshot=True)


def delta(seq: int, prev: int, ts_ms: int = 0, bids: Sequence[Level] = ()) -> BookEvent:
    return BookEvent(seq, prev, _START + ts_ms * _MS, 1, bids, ())


# -- rules ---------------------------------------------------------------------------------------


def test_ids_that_grow_by_one() -> None:
    assert by_one(10, delta(11, 10)) is Link.FOLLOWS
    assert by_one(10, snapshot(11)) is Link.BROKEN, "it holds a delta that has not come"
    assert by_one(10, delta(10, 9)) is Link.REPEATS
    assert by_one(10, snapshot(10)) is Link.REPEATS, "a best level that is repeated while idle"
    assert by_one(10, delta(12, 11)) is Link.BROKEN
    assert by_one(10, snapshot(12)) is Link.BROKEN
    assert by_one(10, snapshot(1)) is Link.RESTARTS
    assert by_one(10, snapshot(0)) is Link.RESTARTS
    assert by_one(0, snapshot(0)) is Link.REPEATS, "an empty book, again"


def test_deltas_that_name_the_one_before() -> None:
    assert by_previous(10, delta(17, 10)) is Link.FOLLOWS
    assert by_previous(10, delta(17, 5)) is Link.FOLLOWS, "it reaches back over what is stored"
    assert by_previous(10, delta(9, 5)) is Link.REPEATS
    assert by_previous(10, delta(17, 12)) is Link.BROKEN
    assert by_previous(10, snapshot(17)) is Link.BROKEN, "perhaps"
    assert by_previous(10, snapshot(10)) is Link.REPEATS
    assert by_previous(10, replace(snapshot(17), prev_seq=10)) is Link.BROKEN, "a stray field"


def test_the_two_exceptions_of_a_chain_that_names_the_one_before() -> None:
    assert by_previous_or_reset(10, delta(10, 10)) is Link.FOLLOWS, "a sign of life"
    assert by_previous_or_reset(10, delta(3, 10)) is Link.RESTARTS
    assert by_previous_or_reset(3, delta(5, 3)) is Link.FOLLOWS
    assert by_previous_or_reset(10, delta(17, 12)) is Link.BROKEN
    assert by_previous_or_reset(10, snapshot(3)) is Link.REPEATS


def test_the_checksum_is_made_of_the_digits_of_mantissas() -> None:
    asks = [(round(70010.1 + 0.7 * i, 1), round(0.125 + 0.01 * i, 8)) for i in range(10)]
    bids = [(round(70009.9 - 0.6 * i, 1), round(0.5 / (i + 1), 8)) for i in range(10)]
    assert sum_of(CRC_OF_MANTISSAS, bids, asks) == 1337025475


# -- whole chains --------------------------------------------------------------------------------


class ToyVenue:
    """A venue: its true book, and what it pushes of it by one of the rules."""

    def __init__(self, rule: BookRule, seed: int) -> None:
        self.rule = rule
        self.rng = np.random.default_rng(seed)
        self.book: Book = {"b": {}, "a": {}}
        self.seq, self.ts_ms = 1000, 1000

    def delta(self) -> Message:
        self.ts_ms += 1 + int(self.rng.integers(0, 30))
        prev, (bids, asks) = self.seq, self._changes()
        self.seq = prev + (1 if self.rule is BY_ONE else int(self.rng.integers(1, 9)))
        if self.rule.checksum:
            self.seq, prev = self.ts_ms, 0
        event = BookEvent(self.seq, prev, _START + self.ts_ms * _MS, 1, bids, asks)
        return event, self._sum()

    def _changes(self) -> list[list[Level]]:
        sides: list[list[Level]] = [[], []]
        for _ in range(int(self.rng.integers(0, 6))):
            side, qty = int(self.rng.integers(2)), float(self.rng.integers(0, 3))
            price = float(self.rng.integers(1, 30)) + 40.0 * side
            sides[side].append((price, qty))
            levels = self.book["ba"[side]]
            levels.pop(price, None) if qty == 0 else levels.update({price: qty})
        self._cut()
        return sides

    def _cut(self) -> None:
        """What falls out of the depth is not told."""
        for side, is_bid in (("b", True), ("a", False)):
            best = sorted(self.book[side].items(), reverse=is_bid)
            self.book[side] = dict(best[: self.rule.depth or len(best)])

    def snapshot(self) -> Message:
        bids, asks = (list(self.book[side].items()) for side in "ba")
        ts_event = _START + self.ts_ms * _MS
        event = BookEvent(self.seq, 0, ts_event, 1, bids, asks, is_snapshot=True)
        return event, self._sum()

    def _sum(self) -> int | None:
        if self.rule.checksum is None:
            return None
        bids = sorted(self.book["b"].items(), reverse=True)
        asks, count = sorted(self.book["a"].items()), self.rule.summed
        return sum_of(self.rule.checksum, bids[:count], asks[:count])


class Reader:
    """What a reader makes of rows as they come, no deeper than the channel is."""

    def __init__(self, rig: Rig, depth: int) -> None:
        self._rig, self._depth, self._seq = rig, depth, 0
        self.book: Book = {"b": {}, "a": {}}

    def read(self) -> Book:
        rows = self._rig.double.rows("book", self._seq)
        self._seq += len(rows)
        for row in rows:
            flags, side = int(row["flags"]), chr(row["side"])
            if flags & Flag.SNAPSHOT and flags & Flag.FIRST_IN_EVENT:
                self.book = {"b": {}, "a": {}}
            if side != "-":
                self.book[side][float(row["price"])] = float(row["qty"])
            if flags & Flag.LAST_IN_EVENT:
                self.book = {side: self._best(side) for side in "ba"}
        return self.book

    def _best(self, side: str) -> dict[float, float]:
        there = [level for level in self.book[side].items() if level[1]]
        return dict(sorted(there, reverse=side == "b")[: self._depth])


STEPS = ["event"] * 6 + ["lose", "repeat", "swap", "answer", "answer", "reconnect", "unasked"]


@pytest.mark.parametrize("rule", [BY_ONE, BY_PREVIOUS, BY_PREVIOUS_OR_RESET])
@given(seed=st.integers(0, 2**32 - 1), script=st.lists(st.sampled_from(STEPS), max_size=60))
@settings(deadline=None, max_examples=60)
def test_stored_rows_rebuild_the_venues_book_whatever_happens(
    rule: BookRule, seed: int, script: list[str]
) -> None:
    rig, venue = Rig(rule), ToyVenue(rule, seed)
    rig.send([venue.snapshot()])
    sent, kept, last = [], [], venue.snapshot()
    for step in script:
        if step == "event":
            last = venue.delta()
            rig.send([last])
            sent.append(last[0].seq)
            kept.append(last[0].seq)
        elif step == "lose":
            sent.append(venue.delta()[0].seq)
        elif step == "swap":
            first, last = venue.delta(), venue.delta()
            sent += [first[0].seq, last[0].seq]
            kept.append(last[0].seq)
            rig.send([last, first])
        elif step == "repeat" and last[0].seq == venue.seq:
            rig.send([last])
        elif step == "reconnect":
            rig.feed.cut("cut")
            rig.feed.subscribed()
            rig.send([venue.snapshot()])
        elif step == "unasked" or (step == "answer" and rig.asked):
            rig.asked.clear()
            rig.send([venue.snapshot()])
    last = venue.delta()
    sent.append(last[0].seq)
    kept.append(last[0].seq)
    rig.send([last])
    rig.send([] if rig.feed.is_synced else [venue.snapshot()])
    assert rig.feed.is_synced
    assert rig.state() is StreamState.LIVE
    assert rig.book() == venue.book
    rows = rig.double.rows("book")
    deltas = rows[(rows["flags"] & Flag.SNAPSHOT) == 0]
    firsts = deltas[(deltas["flags"] & Flag.FIRST_IN_EVENT) != 0]["seq"].tolist()
    assert firsts == kept, "each stored once, in order"
    gaps = rig.double.rows("gap")
    for seq in set(sent) - set(firsts):
        assert any(gap["from_seq"] <= seq <= gap["to_seq"] for gap in gaps), seq
    for seq in kept:
        assert not any(gap["from_seq"] <= seq <= gap["to_seq"] for gap in gaps), seq


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_the_sum_is_that_of_the_best_levels_whichever_changed(seed: int) -> None:
    venue = ToyVenue(BY_SUM_OF_THREE, seed)
    kept = KeptBook(BY_SUM_OF_THREE, 1, 8)
    for event, checksum in [venue.snapshot(), *(venue.delta() for _ in range(80))]:
        assert kept.apply(event) == checksum


@given(seed=st.integers(0, 2**32 - 1), script=st.lists(st.sampled_from(STEPS), max_size=60))
@settings(deadline=None, max_examples=60)
def test_a_checksum_keeps_the_book_right_where_there_are_no_ids(
    seed: int, script: list[str]
) -> None:
    """While the book is said to be known, it is the venue's: after each message."""
    rig, venue = Rig(BY_SUM), ToyVenue(BY_SUM, seed)
    reader = Reader(rig, BY_SUM.depth)
    rig.send([venue.snapshot()])
    for step in script:
        if step == "lose":
            venue.delta()
            continue
        if step == "reconnect":
            rig.feed.cut("cut")
            rig.feed.subscribed()
        message = venue.snapshot() if step in ("answer", "unasked", "reconnect") else venue.delta()
        rig.send([message] * (2 if step == "repeat" else 1))
        if rig.feed.is_synced:
            assert reader.read() == venue.book
    rig.send([venue.delta(), venue.snapshot()])
    assert rig.feed.is_synced
    assert reader.read() == venue.book


# -- recorded chains -----------------------------------------------------------------------------


def _captures() -> Path | None:
    places = (parent / "shared" / "captures" for parent in Path(__file__).parents)
    return next((place for place in places if place.is_dir()), None)


CAPTURES = _captures()
recorded = pytest.mark.skipif(CAPTURES is None, reason="the recorded sessions are not here")
Chains = dict[str, list[Message]]


def frames(name: str) -> Iterator[dict[str, Any]]:
    """Of a recorded session."""
    assert CAPTURES is not None
    for line in (CAPTURES / name).read_text(encoding="utf-8").splitlines():
        if found := re.match(r"[\d.]+: (\{.*)", line):
            yield json.loads(found[1])


def levels(rows: Sequence[Any], at: int = 0) -> list[Level]:
    return [(float(row[at]), float(row[at + 1])) for row in rows]


def chain_of_previous() -> Chains:
    """Each change names the one before; the first change of a book that was empty names 0."""
    chains: Chains = defaultdict(list)
    for frame in frames("deribit/DERIBIT.ws.1.0"):
        params = frame.get("params", {})
        if str(params.get("channel", "")).startswith("book."):
            data = params["data"]
            prev = data.get("prev_change_id", 0)
            event = BookEvent(
                data["change_id"], prev, data["timestamp"] * _MS, 1,
                levels(data["bids"], 1), levels(data["asks"], 1), data["type"] == "snapshot",
            )  # fmt: skip
            chains[params["channel"]].append((event, None))
    return chains


def chain_by_one() -> Chains:
    """One level a message."""
    chains: Chains = defaultdict(list)
    for frame in frames("kraken_futures/KRAKEN_FUTURES.ws.1.0"):
        is_whole = frame.get("feed") == "book_snapshot"
        if is_whole:
            bids, asks = (
                [(level["price"], level["qty"]) for level in frame[side] if level["qty"]]
                for side in ("bids", "asks")
            )
        elif frame.get("feed") == "book" and "seq" in frame:
            level = [(frame["price"], frame["qty"])]
            bids, asks = (level, []) if frame["side"] == "buy" else ([], level)
        else:
            continue
        seq = frame["seq"]
        event = BookEvent(seq, seq - 1, frame["timestamp"] * _MS, 1, bids, asks, is_whole)
        chains[frame["product_id"]].append((event, None))
    return chains


def chain_of_sums() -> Chains:
    chains: Chains = defaultdict(list)
    for frame in frames("okx/OKX.ws.1.0"):
        if "data" in frame and frame["arg"]["channel"] == "books":
            for row in frame["data"]:
                event = BookEvent(
                    int(row["ts"]), 0, int(row["ts"]) * _MS, 1,
                    levels(row["bids"]), levels(row["asks"]), frame["action"] == "snapshot",
                )  # fmt: skip
                chains[frame["arg"]["instId"]].append((event, row["checksum"]))
    return chains


def as_they_read(*_: int) -> Callable[[float, float], str]:
    return lambda *level: ":".join(f"{each:.10f}".rstrip("0").rstrip(".") for each in level)


def interleaved_crc(bids: Sequence[str], asks: Sequence[str]) -> int:
    """What the recorded venue's checksum was then: signed, of both sides in turn as they read."""
    words = [word for pair in zip_longest(bids, asks) for word in pair if word]
    return int(np.uint32(zlib.crc32(":".join(words).encode())).astype(np.int32))


BY_INTERLEAVED_SUM = BookRule(by_time, Checksum(as_they_read, interleaved_crc), summed=25)
RECORDED = [
    pytest.param(BY_PREVIOUS, chain_of_previous, 36, id="previous"),
    pytest.param(BY_ONE, chain_by_one, 1000, id="one"),
    pytest.param(BY_INTERLEAVED_SUM, chain_of_sums, 250, id="sum"),
]


@recorded
@pytest.mark.parametrize(("rule", "read", "at_least"), RECORDED)
def test_a_recorded_chain_is_accepted_whole(
    rule: BookRule, read: Callable[[], Chains], at_least: int
) -> None:
    deltas = 0
    for name, messages in read().items():
        rig = Rig(rule)
        rig.send(messages)
        assert rig.feed.is_synced, name
        assert rig.state() is StreamState.LIVE
        assert rig.gaps() == []
        assert rig.feed.duplicate_count == 0
        assert rig.seqs() == [event.seq for event, _ in messages]
        assert not rig.asked
        deltas += len(messages) - 1
    assert deltas >= at_least


@recorded
@pytest.mark.parametrize(("rule", "read", "at_least"), RECORDED)
def test_a_recorded_chain_with_a_fault_is_noticed(
    rule: BookRule, read: Callable[[], Chains], at_least: int
) -> None:
    del at_least
    unnoticed = tried = 0
    for messages in read().values():
        for place in range(1, min(len(messages) - 1, 25)):
            before, one, after = messages[:place], messages[place], messages[place + 1 :]
            dropped, swapped, repeated = Rig(rule), Rig(rule), Rig(rule)
            dropped.send(before + after)
            swapped.send([*before, after[0], one, *after[1:]])
            repeated.send([*before, one, one, *after])
            tried += 2
            unnoticed += (not dropped.feed.gap_count) + (not swapped.feed.gap_count)
            assert repeated.feed.duplicate_count == one[0].row_count
            assert repeated.gaps() == []
    assert tried > 20
    # A sum is over the best levels: what changes only others cannot show.
    assert unnoticed <= (tried * 0.1 if rule.checksum else 0)


def test_whole_and_broken_messages_of_a_topic_whose_ids_grow_by_one() -> None:
    rig = Rig(BY_ONE, decimals=(2, 6))
    first = [(28162.57, 0.07562)], [(28162.58, 0.506829)]
    rig.feed.on_event(BookEvent(59438060, 59438059, _START, 1, *first, is_snapshot=True))
    rig.feed.on_event(
        BookEvent(
            59438061, 59438060, _START + 20 * _MS, 1,
            [(28161.04, 0.177474), (28145.71, 0.0)], [(28184.33, 0.0)],
        )
    )  # fmt: skip
    rig.feed.on_event(BookEvent(1, 0, _START + 90 * _MS, 1, *first, is_snapshot=True))
    assert rig.gaps() == [(GapReason.RENUMBERED, GapState.UNPROVABLE, 0, 0)]
    rig.feed.on_event(delta(2, 1, 100))
    assert rig.seqs() == [59438060, 59438061, 1, 2]
    assert rig.state() is StreamState.LIVE
    assert not rig.asked, "the venue sent it by itself"


def test_a_sign_of_life_and_a_reset_break_nothing() -> None:
    rig = Rig(BY_PREVIOUS_OR_RESET)
    rig.send([(snapshot(100), None), (delta(110, 100, 1), None), (delta(110, 110, 2), None)])
    rig.send([(delta(7, 110, 3, [(2.0, 2.0)]), None), (delta(9, 7, 4), None)])
    assert rig.seqs() == [100, 110, 110, 7, 9]
    assert rig.gaps() == []
    assert rig.book() == {"b": {1.0: 1.0, 2.0: 2.0}, "a": {9.0: 9.0}}


# -- what breaks, and how it is mended -----------------------------------------------------------


def test_a_broken_chain_is_declared_stored_on_and_asked_for(clock: list[float]) -> None:
    rig = Rig(BY_PREVIOUS)
    rig.send([(snapshot(100), None), (delta(110, 100, 1), None)])
    clock[0] += 100
    rig.feed.on_event(delta(130, 120, 5, [(5.0, 5.0)]))
    assert rig.gaps() == [(GapReason.RESYNC, GapState.UNRECOVERABLE, 111, 120)]
    assert rig.asked == [rig.feed]
    assert rig.state() is StreamState.SYNCING
    rig.feed.on_event(delta(140, 130, 6, [(6.0, 6.0)]))
    assert rig.seqs() == [100, 110, 130, 140], "they were received"
    assert rig.book() is None
    rig.feed.on_event(snapshot(150, 7))
    assert rig.gaps()[1:] == [(GapReason.RESYNC, GapState.UNPROVABLE, 141, 150)]
    assert rig.book() == {"b": {1.0: 1.0}, "a": {9.0: 9.0}}
    assert rig.state() is StreamState.LIVE
    marks = [(row["mark"], row["end"]) for row in rig.double.rows("coverage")]
    ended = (CoverageMark.ENDED, CoverageEnd.RESYNC)
    assert marks == [(CoverageMark.BEGAN, 0), ended, (CoverageMark.BEGAN, 0)]


def test_a_book_that_does_not_hold_is_asked_for_ever_more_rarely(clock: list[float]) -> None:
    rig, asked_s = Rig(BY_ONE), []
    rig.send([(snapshot(10), None)])
    for seq in range(20, 2020, 10):
        clock[0] += 1
        rig.feed.tick(1)
        rig.feed.on_event(delta(seq, seq - 1))
        if rig.asked:
            asked_s.append(clock[0])
            rig.asked.clear()
            rig.feed.on_event(snapshot(seq))
    assert 4 <= len(asked_s) <= 12, asked_s
    clock[0] += 1000
    rig.feed.tick(1)
    rig.feed.on_event(snapshot(5000))
    rig.asked.clear()
    clock[0] += 100
    rig.feed.on_event(delta(6000, 5999))
    assert rig.asked, "it had held for long: at once"


def test_a_snapshot_that_never_comes_is_asked_for_again(clock: list[float]) -> None:
    rig = Rig(BY_ONE)
    rig.feed.on_event(delta(11, 10))
    for _ in range(300):
        clock[0] += 1
        rig.feed.tick(1)
    assert 3 <= len(rig.asked) <= 10
    rig.feed.cut("cut")
    rig.asked.clear()
    clock[0] += 1000
    rig.feed.tick(1)
    assert not rig.asked, "nobody is subscribed"


def test_what_was_missed_while_away_is_known_from_the_next_snapshot() -> None:
    rig = Rig(BY_PREVIOUS)
    rig.send([(snapshot(100), None), (delta(110, 100, 1), None)])
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.feed.on_event(snapshot(110, 900))
    assert rig.gaps() == [], "nothing had happened"
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.feed.on_event(snapshot(200, 1900))
    assert rig.gaps() == [(GapReason.RECONNECT, GapState.UNPROVABLE, 111, 200)]
    again = Rig(BY_PREVIOUS, last=Position(0, 200, _START + 1900 * _MS, 1))
    again.feed.on_event(snapshot(300, 2900))
    assert again.gaps() == [(GapReason.RESTART, GapState.UNPROVABLE, 201, 300)]


@pytest.mark.parametrize("rule", [BY_ONE, BY_PREVIOUS, BY_PREVIOUS_OR_RESET])
def test_the_one_change_that_only_a_snapshot_knows_of_is_declared(rule: BookRule) -> None:
    rig = Rig(rule)
    rig.send([(snapshot(100), None)])
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.send([(snapshot(101, 900), None), (delta(102, 101, 901), None)])
    assert rig.gaps() == [(GapReason.RECONNECT, GapState.UNPROVABLE, 101, 101)]
    assert rig.seqs() == [100, 101, 102]


def test_what_is_missed_between_times_may_be_of_the_time_stored_last() -> None:
    rig, venue = Rig(BY_SUM, make=UnnumberedBook), ToyVenue(BY_SUM, 5)
    rig.send([venue.snapshot()])
    began_ms = venue.ts_ms
    rig.feed.cut("cut")
    rig.feed.subscribed()
    venue.delta()
    rig.send([venue.snapshot()])
    (gap,) = rig.double.rows("gap")
    assert (gap["from_seq"], gap["to_seq"]) == (0, 0)
    assert gap["from_ts"] <= _START + began_ms * _MS
    assert gap["to_ts"] == _START + venue.ts_ms * _MS


def test_a_snapshot_behind_what_is_stored_is_brought_up_to_it() -> None:
    rig = Rig(BY_PREVIOUS)
    rig.send([(snapshot(100), None), (delta(110, 100, 1, [(2.0, 2.0)]), None)])
    rig.feed.on_event(delta(120, 110, 2, [(3.0, 3.0)]))
    rig.feed.cut("cut")
    rig.feed.subscribed()
    rig.feed.on_event(snapshot(105, 1, [(1.0, 1.0)]))
    assert rig.state() is StreamState.SYNCING
    rig.feed.on_event(delta(115, 105, 2, [(2.0, 2.0)]))
    rig.feed.on_event(delta(125, 115, 3, [(3.0, 3.0), (4.0, 4.0)]))
    rig.feed.on_event(delta(130, 125, 4, [(5.0, 5.0)]))
    assert rig.seqs() == [100, 110, 120, 125, 125, 130], "the event, the book after it, the next"
    assert rig.gaps() == []
    bids = {1.0: 1.0, 2.0: 2.0, 3.0: 3.0, 4.0: 4.0, 5.0: 5.0}
    assert rig.book() == {"b": bids, "a": {9.0: 9.0}}


def test_ids_that_go_back_while_time_goes_on_are_counted_anew() -> None:
    rig = Rig(BY_PREVIOUS)
    rig.send([(snapshot(100), None), (snapshot(50, 5000), None), (delta(60, 50, 5001), None)])
    assert rig.gaps() == [(GapReason.RENUMBERED, GapState.UNPROVABLE, 0, 0)]
    assert rig.seqs() == [100, 50, 60]
    assert rig.state() is StreamState.LIVE
    rig.feed.on_event(delta(9, 8, 9000))
    assert rig.gaps()[1:] == [(GapReason.RENUMBERED, GapState.UNPROVABLE, 0, 0)]
    assert rig.state() is StreamState.SYNCING, "no snapshot came with it"


def test_rows_that_a_full_ring_refuses_are_declared_and_the_book_begins_anew(
    clock: list[float],
) -> None:
    rig = Rig(BY_ONE, capacity=64)
    many = [(float(price), 1.0) for price in range(1, 61)]
    rig.send([(snapshot(10, 0, many), None)])
    clock[0] += 100
    rig.send([(delta(11, 10, 1, many), None), (delta(12, 11, 2), None)])
    assert rig.asked
    assert rig.state() is StreamState.SYNCING
    assert rig.gaps() == [(GapReason.RING_FULL, GapState.UNRECOVERABLE, 11, 11)]
    rig.double.release("book")
    rig.feed.on_event(snapshot(13, 3))
    assert rig.state() is StreamState.LIVE


def test_a_delta_that_cannot_be_read_is_named_when_the_next_one_comes() -> None:
    rig = Rig(BY_ONE)
    rig.send([(snapshot(10), None)])
    rig.feed.on_unreadable(Unreadable(1, rows=4, seq=11, ts_event=_START + _MS))
    rig.feed.on_event(delta(12, 11, 2))
    assert rig.gaps() == [(GapReason.UNREADABLE, GapState.UNRECOVERABLE, 11, 11)]
    assert rig.feed.missing_count == 4
    rig.feed.on_unreadable(Unreadable(1, rows=4, seq=11, ts_event=_START + _MS))
    assert rig.feed.duplicate_count == 4, "that one is on record"


def test_a_snapshot_that_its_checksum_contradicts_is_stored_and_is_no_book(
    clock: list[float],
) -> None:
    rig, venue = Rig(BY_SUM), ToyVenue(BY_SUM, 5)
    venue.delta()
    event, checksum = venue.snapshot()
    assert checksum is not None
    clock[0] += 100
    rig.feed.on_event(event, checksum ^ 1)
    assert rig.asked
    assert rig.seqs() == [event.seq]
    assert rig.book() is None
    rig.send([venue.delta(), venue.snapshot()])
    assert rig.state() is StreamState.LIVE


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_the_next_socket_goes_on_where_the_present_one_is(lag: int) -> None:
    """Its snapshot is not stored, for the book is known; nothing is missing or there twice."""
    rig, venue = Rig(BY_ONE), ToyVenue(BY_ONE, 3)
    rig.send([venue.snapshot()])
    over: list[bool] = []
    handover = Handover(rig.feed, over.append, lambda: None)
    handover.subscribed(1000.0)
    late = [venue.delta() for _ in range(lag)]
    handover.on_event(*venue.snapshot())
    for message in late:
        assert not over
        rig.send([message])
    handover.tick(1001.0)
    assert over == [False]
    final = venue.delta()
    rig.send([final])
    assert rig.gaps() == []
    assert rig.book() == venue.book
    assert rig.seqs() == list(range(1000, final[0].seq + 1))
