"""A stream that passes from one process to the next: two sockets, two sets of rings."""

import random
from typing import Any

import pytest

from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import GapReason
from engine.data.kinds import COVERAGE
from engine.messages.streams import StreamState
from shards.feeds.declared.coverage import CoverageLedger
from shards.feeds.feed import Feed
from shards.feeds.passing import baton
from shards.feeds.passing.heir import Heir, LetGo
from tests.shards.doubles import MemoryRings
from tests.shards.feeds.test_handover import COUNT, KINDS, feed_history

NUMBERED = [name for name in KINDS if name != "liquidations"]


def new_feed(name: str, double: MemoryRings) -> Feed:
    """A feed that knows nothing yet. Some of `KINDS` make theirs with a row."""
    made = KINDS[name].make(MemoryRings())
    parts: list[Any] = [made.spec, double.rings[type(made).kind.name], double.gaps, None]
    if name == "deltas":
        parts.append(lambda _: None)
    if name == "both":
        parts.append(double.rings["open_interest"])
    return type(made)(*parts)


class Shards:
    """One stream in two processes."""

    def __init__(self, name: str) -> None:
        self.kind = KINDS[name]
        self.old_rings, self.new_rings = MemoryRings(), MemoryRings()
        self.stream = self.kind.make(self.old_rings)
        self.stream.coverage = CoverageLedger(self.old_rings.rings[COVERAGE.name])
        self.heir_stream = new_feed(name, self.new_rings)
        self.heir_stream.coverage = CoverageLedger(self.new_rings.rings[COVERAGE.name])
        self.heir = Heir(self.heir_stream, lambda: None)
        self.heir.subscribed(monotonic_s())
        self.let_go: LetGo | None = None
        self.said = ""
        self.is_over = False

    def old(self, n: int) -> None:
        if not self.is_over:
            self.kind.feed(self.let_go or self.stream, n)

    def new(self, n: int, *, is_first: bool = False) -> None:
        to: Any = self.heir_stream if self.is_over else self.heir
        if is_first and self.kind.history:
            feed_history(to, *reversed(range(max(n - self.kind.history, 1), n + 1)))
        else:
            self.kind.feed(to, n)

    def release(self) -> None:
        self.let_go = LetGo(self.stream)
        self.stream.let_go()
        self.said = baton.tell(self.stream)

    def decide(self) -> None:
        """The heir looks whether it joins; else the stream goes back."""
        assert self.let_go is not None
        self.is_over = self.heir.take_over(
            self.said, lambda: self.heir_stream.goes_on(2), is_sure=False
        )
        if not self.is_over:
            self.let_go.take_back(lambda: self.stream.goes_on(1))
            self.let_go = None

    def stored(self) -> list[float]:
        found: list[float] = []
        for double in (self.old_rings, self.new_rings):
            rows = double.rows(self.kind.ring)
            if self.kind.ring == "book":
                rows = rows[rows["qty"] > 0]
            found += rows[self.kind.column].tolist()
        return found

    def gaps(self) -> int:
        return len(self.old_rings.rows("gap")) + len(self.new_rings.rows("gap"))


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("seed", range(12))
def test_every_row_is_stored_once_wherever_the_stream_is_cut(name: str, seed: int) -> None:
    dice = random.Random(seed)
    shards = Shards(name)
    start = old = new = dice.randint(3, 10)
    lead = dice.uniform(0.3, 0.7)
    for n in range(1, start):
        shards.old(n)
    while new < COUNT:
        if dice.random() < lead and old < COUNT:
            shards.old(old)
            old += 1
        else:
            shards.new(new, is_first=new == start)
            new += 1
        if not shards.is_over and dice.random() < 0.2 and shards.stream.can_be_let_go:
            if shards.let_go is None:
                shards.release()
            else:
                shards.decide()
    while not shards.is_over:  # the old socket catches up
        if shards.let_go is None:
            if old < COUNT:
                shards.old(old)
                old += 1
            shards.release()
        shards.decide()
    assert shards.stored() == list(range(1, COUNT))
    assert shards.gaps() == 0
    assert shards.heir_stream.state is StreamState.LIVE
    assert shards.heir_stream.is_heard


@pytest.mark.parametrize("name", NUMBERED)
def test_a_stream_that_is_quiet_on_both_sockets_passes(name: str) -> None:
    shards = Shards(name)
    shards.old(1)
    shards.release()
    shards.decide()
    assert not shards.is_over, "it was heard after the heir had subscribed, which brought nothing"
    shards.release()
    shards.decide()
    assert shards.is_over, "nothing came since it was asked last"
    shards.new(2)
    assert shards.stored() == [1, 2]
    assert shards.gaps() == 0


def test_an_heir_that_is_ahead_is_refused_and_nothing_is_lost() -> None:
    shards = Shards("trades")
    shards.old(1)
    shards.new(4)
    shards.release()
    shards.old(2)
    shards.decide()
    assert not shards.is_over
    shards.old(3)
    shards.new(5)
    shards.release()
    shards.old(4)
    shards.decide()
    assert shards.is_over
    assert shards.stored() == [1, 2, 3, 4, 5]
    assert shards.gaps() == 0


def test_liquidations_that_both_sockets_bring_are_told_apart() -> None:
    shards = Shards("liquidations")
    for n in (1, 2):
        shards.old(n)
    for n in (2, 3):
        shards.new(n)
    shards.old(3)
    shards.release()
    shards.decide()
    shards.new(4)
    assert shards.stored() == [1, 2, 3, 4]
    assert shards.gaps() == 0


def test_where_the_present_process_died_ids_tell_what_is_missing() -> None:
    shards = Shards("trades")
    shards.old(1)
    shards.new(5)
    fresh = new_feed("trades", MemoryRings())
    fresh._next_id, fresh.blame = 2, GapReason.RESTART  # type: ignore[attr-defined]
    said = baton.tell(fresh)
    assert shards.heir.take_over(said, shards.heir_stream.subscribed, is_sure=True)
    (gap,) = shards.new_rings.rows("gap")
    assert (gap["from_seq"], gap["to_seq"]) == (2, 4)
    assert gap["reason"] == GapReason.RESTART
    assert shards.stored() == [1, 5]


def test_where_the_present_process_died_later_than_the_first_frames_nothing_is_doubled() -> None:
    shards = Shards("history")
    for n in range(1, 10):
        shards.old(n)
        if n > 3:
            shards.new(n, is_first=n == 4)
    stored = shards.stored()
    fresh = new_feed("history", MemoryRings())
    fresh._last = shards.stream._last  # type: ignore[attr-defined]
    said = baton.tell(fresh)
    shards.new(10)
    assert shards.heir.take_over(said, shards.heir_stream.subscribed, is_sure=True)
    assert shards.stored() == [*stored, 10]
    assert shards.gaps() == 0


def test_a_word_of_another_version_is_understood_as_far_as_it_is_known() -> None:
    shards = Shards("trades")
    shards.old(7)
    said = baton.tell(shards.stream).replace('"_next_id"', '"what_is_that":[1],"_next_id"')
    baton.inherit(shards.heir_stream, said)
    shards.heir_stream.on_trade(8, 66, wall_ns(), wall_ns(), 10.0, 1.0)  # type: ignore[attr-defined]
    assert shards.gaps() == 0


def test_what_comes_while_nobody_decides_does_not_fill_the_memory() -> None:
    shards = Shards("trades")
    shards.old(1)
    shards.release()
    assert shards.let_go is not None
    for n in range(2, 20_010):
        shards.old(n)
    assert shards.let_go.has_lost
    shards.let_go.take_back(lambda: shards.stream.goes_on(1))
    assert shards.gaps() == 1, "its ids tell"
