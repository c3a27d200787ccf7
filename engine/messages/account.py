"""What became of every row: one equation, from what is exact.

    left + received = stored + skipped + quarantined + lost + elsewhere + unheard
                      + refused + dropped + waiting

Where there are several databases it holds for each, and `elsewhere` are the rows that are not its.

| term        | rows that                                             | known from          |
|-------------|-------------------------------------------------------|---------------------|
| left        | an earlier run left in rings and journal, or a        | heads and cursors   |
|             | database that was set back has to take once more      |                     |
| received    | a socket of ours got: accepted, or refused or dropped | heads, and counters |
| stored      | the database took                                     | the writer's count  |
| skipped     | a knob keeps out                                      | the writer's count  |
| quarantined | the database refuses for good                         | the writer's count  |
| lost        | neither ring nor journal held when they were due      | the writer's count  |
| elsewhere   | another database is to have                           | the writer's count  |
| unheard     | passed the cursor, and nobody heard how: the writer   | cursors             |
|             | was killed, or the answer to a COMMIT was lost        |                     |
| refused     | nothing could be made of                              | the shards' count   |
| dropped     | no ring had room for                                  | the ring itself     |
| waiting     | wait in ring and journal, for this run or the next    | heads and cursors   |

Heads of rings are in shared memory, and cursors in the database: they outlive every process, so
what is accepted, what moved and what waits is exact whoever is killed. What a shard counted in its
last half second is not: after a shard was killed `refused` is a lower bound.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from engine.data.names import DEFAULT_DATABASE
from engine.messages.writer import RingStatus


class Moves(msgspec.Struct):
    """Rows of the rings of one kind, since the engine started."""

    accepted: int = 0
    """Came into the rings."""
    moved: int = 0
    """The database's cursors passed."""
    found: int = 0
    """Of those, how many nobody heard of before a reconnect."""
    waiting: int = 0
    """Are still ahead of the cursors."""


class RingAccount(msgspec.Struct):
    """One ring and epoch, over the lives of the writer."""

    ring: str
    epoch: int
    kind: str
    born_seq: int
    head_seq: int
    cursor_seq: int
    moved: int = 0
    moved_before: int = 0
    found: int = 0
    found_before: int = 0
    ended_seq: int = -1
    """Where the cursor stood when the last writer was heard last; -1 when that is settled."""
    is_known: bool = False

    @classmethod
    def of(cls, ring: RingStatus) -> "RingAccount":
        """Of one that is met for the first time."""
        return cls(ring.ring, ring.epoch, ring.kind, *(3 * (ring.born_seq,)))

    def update(self, ring: RingStatus) -> None:
        """Take in what the writer says."""
        self.head_seq, self.cursor_seq = ring.head_seq, ring.stored_seq
        self.is_known = ring.begun_seq is not None
        if ring.begun_seq is None:
            return
        if self.ended_seq >= 0:
            self.moved_before += max(ring.begun_seq - self.ended_seq, 0)
            self.ended_seq = -1
        self.moved = ring.stored_seq - ring.begun_seq
        self.found = ring.found_rows

    def delivered(self) -> None:
        """The writer has let go of it: the database has all of it. A database that is set back has
        it come again, and then what it moved is counted anew.
        """
        self.moved_before += self.moved + self.head_seq - self.cursor_seq
        self.found_before += self.found
        self.moved = self.found = 0
        self.cursor_seq = self.head_seq

    def writer_ended(self) -> None:
        """The next one counts anew."""
        self.moved_before, self.moved = self.moved_before + self.moved, 0
        self.found_before, self.found = self.found_before + self.found, 0
        if self.is_known or self.ended_seq < 0:
            # Where nobody has told, the cursor is where the journal begins, or beyond.
            self.ended_seq = self.cursor_seq
        self.is_known = False

    def add_to(self, moves: Moves) -> None:
        """Add this ring's rows."""
        moves.accepted += self.head_seq - self.born_seq
        moves.moved += self.moved_before + self.moved
        moves.found += self.found_before + self.found
        moves.waiting += max(self.head_seq - self.cursor_seq, 0)


class RingMoves:
    """All rings of an engine, over the lives of its writer."""

    def __init__(self) -> None:
        self._rings: dict[tuple[str, int], RingAccount] = {}

    def estate(self) -> list[RingAccount]:
        """What `inherit` takes."""
        return list(self._rings.values())

    def inherit(self, rings: Iterable[RingAccount]) -> None:
        """Go on from there."""
        self._rings = {(each.ring, each.epoch): each for each in rings}

    def update(self, rings: Iterable[RingStatus]) -> dict[str, Moves]:
        """Take in what the writer says; return the sums by record kind."""
        gone = set(self._rings)
        for ring in rings:
            key = ring.ring, ring.epoch
            gone.discard(key)
            self._rings.setdefault(key, RingAccount.of(ring)).update(ring)
        for key in gone:
            self._rings[key].delivered()
        sums: defaultdict[str, Moves] = defaultdict(Moves)
        for each in self._rings.values():
            each.add_to(sums[each.kind])
        return dict(sums)

    def writer_ended(self) -> None:
        """The writer is gone: the next one counts anew."""
        for ring in self._rings.values():
            ring.writer_ended()


_SETTLED: Final = ("stored", "skipped", "quarantined", "lost", "elsewhere")


class Account(msgspec.Struct, frozen=True):
    """The equation, of one kind or of all of them."""

    left: int = 0
    received: int = 0
    stored: int = 0
    skipped: int = 0
    quarantined: int = 0
    lost: int = 0
    unheard: int = 0
    refused: int = 0
    dropped: int = 0
    waiting: int = 0
    elsewhere: int = 0

    @classmethod
    def of(cls, moves: Moves, counted: Mapping[str, int]) -> "Account":
        """From what is exact, and what was counted of the terms that only counters know."""
        settled = sum(counted[name] for name in _SETTLED)
        return cls(
            left=moves.moved + moves.waiting - moves.accepted,
            received=moves.accepted + counted["refused"] + counted["dropped"],
            unheard=moves.moved - settled,
            waiting=moves.waiting,
            **counted,
        )

    @classmethod
    def total(cls, accounts: Mapping[str, "Account"]) -> "Account":
        """All kinds together."""
        names = cls.__struct_fields__
        return cls(**{n: sum(getattr(each, n) for each in accounts.values()) for n in names})

    @property
    def accepted(self) -> int:
        """What came into the rings."""
        return self.received - self.refused - self.dropped


def delivered_text(account: Account, sink: str = DEFAULT_DATABASE) -> str:
    """What may be said of a database when nothing waits any more."""
    if sink != DEFAULT_DATABASE:
        return f"all accepted rows that are routed to {sink} are there: {account.stored:,}"
    if not max(account.stored, account.skipped, account.quarantined, account.lost, account.unheard):
        return "no row was accepted: the database has nothing to take"
    if account.quarantined or account.lost:
        return (
            f"all accepted rows are in the database, but for {account.quarantined:,} in quarantine"
            f" and {account.lost:,} that are lost and declared"
        )
    return "all accepted rows are in the database"
