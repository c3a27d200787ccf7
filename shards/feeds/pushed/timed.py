"""Pushed books whose order is a time: their messages have no ids.

Rows of one time are numbered apart, and a snapshot that says no time waits for the change that
tells it.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, NamedTuple

from msgspec.structs import replace

from engine.base.clock import monotonic_s
from engine.data.flags import GapReason
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import WAITING
from shards.feeds.declared.gaps import Edges, GapLedger
from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.feed import Feed, Frame, Proof
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import BookRule, Link

_QUIET_S: Final = 30.0
"""So long a snapshot without a time waits for a change: far longer than one is on its way, and than
clocks differ.
"""


class _Undated(NamedTuple):
    """A snapshot that says no time, waiting for one."""

    event: BookEvent
    checksum: int | None
    since_s: float
    """Monotonic."""
    is_known: bool
    """Whether the book was whole when it came."""


class _TimedBook(PushedBook):
    """One whose `seq` is a time. Rows of two events of one time are told apart all the same: the
    second is stored under the next number, so that (time, seq) is the order in which they apply.

    For the same reason a snapshot that says no time (`seq` 0) is kept until the first delta after
    it, and has that one's time and the number before its own: deltas that were sent right behind it
    are older than its receipt, by the time that both took. Where nothing changes for long, it is
    stored as of when it came.
    """

    ids_tell: ClassVar = False

    def __init__(
        self,
        spec: StreamSpec,
        ring: RingProducer,
        gaps: GapLedger,
        last: Position | None,
        rule: BookRule,
        renew: "Callable[[PushedBook], None]",
    ) -> None:
        super().__init__(spec, ring, gaps, last, rule, renew)
        self._said_seq = self._stored_seq = self._last_seq
        self._stored_ts = self._last_ts
        self._undated: _Undated | None = None
        self._is_quiet = False
        """Whether it has waited for so long that nothing may ever tell its time."""

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """A new subscription: what was kept of the one before is of no use."""
        super().subscribed(why)
        self._undated = None

    def cut(self, why: str, silent_s: float = 0.0, *, blame: GapReason | None = None) -> None:
        """A snapshot that is kept is missed: nobody can say any more when it was."""
        super().cut(why, silent_s, blame=blame)
        self._undated = None

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """Also: when a snapshot without a time was made, the first delta after it tells."""
        whole: BookEvent = frames[0][0]
        if not _is_undated(whole):
            return super().following(frames)
        later = frames[1:]
        return later if later and later[0][0].seq <= self._last_seq else None

    def tick(self, now_ns: int) -> None:
        """Also: a snapshot is stored though nothing tells its time. Not at the first occasion: what
        has come meanwhile may not have been read yet.
        """
        super().tick(now_ns)
        if self._undated is None:
            return
        if self._is_quiet:
            self._take_undated(self._undated.event)
        else:
            self._is_quiet = monotonic_s() - self._undated.since_s > _QUIET_S

    def _judge(self, step: Link, event: BookEvent, checksum: int | None) -> None:
        if _is_undated(event):
            self._keep(event, checksum)
            return
        if self._undated is not None and not event.is_snapshot:
            self._date(self._undated.event, event)
            step = self._step_to(event)
        self._undated = None
        super()._judge(step, event, checksum)

    def _keep(self, whole: BookEvent, checksum: int | None) -> None:
        """Have a snapshot wait, in the place of one that waits."""
        is_known = self._synced if self._undated is None else self._undated.is_known
        self._undated = _Undated(whole, checksum, monotonic_s(), is_known)
        self._is_quiet = self._synced = False
        if not is_known:
            self.lacks("waiting for the first change after a snapshot that says no time")

    def _date(self, whole: BookEvent, delta: BookEvent) -> None:
        """Take the snapshot that was kept, now that a delta after it is here."""
        self._take_undated(replace(whole, seq=delta.seq - 1, ts_event=delta.ts_event))

    def _take_undated(self, whole: BookEvent) -> None:
        """Take what was kept as `whole`, of a time that is as good as there is."""
        assert self._undated is not None
        checksum, self._synced = self._undated.checksum, self._undated.is_known
        self._undated = None
        super()._judge(self._step_to(whole), whole, checksum)

    def _step_to(self, event: BookEvent) -> Link:
        """What an event is to the last one that is stored."""
        if self._last_seq < 0:
            return Link.FOLLOWS
        return Link.BROKEN if _is_undated(event) else self._step(self._last_seq, event)

    def on_unreadable(self, item: Unreadable) -> None:
        """No id of a later event tells what it was: it is missing here."""
        Feed.on_unreadable(self, item)
        if self.unreadable.is_open:
            self._lose()

    def _lose(self) -> None:
        """What is missing may be the first delta after the snapshot that is kept: it begins no
        book.
        """
        if self._undated is not None:
            self._undated = None
            self._unsync(WAITING)

    def _ask(self) -> None:
        """Not while one is here."""
        if self._undated is None:
            super()._ask()

    def _put(self, event: BookEvent) -> bool:
        """Number an event anew where it is of the time of the one before; what follows it names it
        by that number.
        """
        seq, said, stored = event.seq, self._said_seq, self._stored_seq
        self._said_seq = seq
        if seq <= stored and event.ts_event == self._stored_ts:
            seq = stored + 1
        if seq != event.seq or said != stored:
            prev_seq = stored if event.prev_seq == said else event.prev_seq
            event = replace(event, seq=seq, prev_seq=prev_seq)
        self._stored_seq, self._stored_ts = seq, event.ts_event
        return super()._put(event)

    def _hole(self, until_seq: int, ts_event: int) -> tuple[GapReason, Edges]:
        """Known by its time alone: others of the very time at which it begins may be missing."""
        reason, edges = super()._hole(until_seq, ts_event)
        return reason, edges._replace(from_seq=0, to_seq=0)


class UnnumberedBook(_TimedBook):
    """One whose messages have no ids (`by_time`): a checksum tells that one is missing, and never
    which. What cannot be read is declared at once.
    """

    proof: ClassVar = Proof.CHECKSUM


class UnchainedBook(_TimedBook):
    """One that neither ids nor a checksum prove whole: wherever something may have been lost, it
    starts anew. `prev_seq` is the time of the event before on the same socket, as the decoder
    remembers it: two sockets are told apart by that.
    """

    proof: ClassVar = Proof.NOTHING

    def skipped(self, now_ns: int) -> None:
        """What its socket has lost may have been of this book."""
        super().skipped(now_ns)
        self._lose()

    def _lose(self) -> None:
        super()._lose()
        if self._synced:
            self._unsync(WAITING)

    def _date(self, whole: BookEvent, delta: BookEvent) -> None:
        super()._date(whole, delta)
        self._said_seq = 0  # as which the next one on its socket names it


def _is_undated(event: BookEvent) -> bool:
    """Whether a snapshot says no time."""
    return event.is_snapshot and not event.seq
