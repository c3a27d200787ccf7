"""Books whose snapshot and deltas come on one topic.

The venue pushes a snapshot when the topic is subscribed, then deltas. A snapshot replaces the book,
whenever it comes; what each delta is to the one before, the channel's `BookRule` judges. Where the
chain breaks, the hole is declared, deltas are stored on (they were received), and the topic is
asked for anew on its socket: its next snapshot makes the book whole. For what a reader may rely on,
see `shards.feeds.books`.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Self

from msgspec.structs import replace

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.data.flags import CoverageEnd, GapReason, GapState
from engine.data.kinds import BOOK
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.book_rows import BookEvent, Level, brought_up
from shards.feeds.books import WAITING, ChainedBook
from shards.feeds.context import FeedContext
from shards.feeds.declared.gaps import Edges, GapLedger
from shards.feeds.feed import Frame, is_renumbered
from shards.feeds.pushed.rules import BookRule, KeptBook, Link

_FOLLOWS, _RESTARTS = Link.FOLLOWS, Link.RESTARTS
"""By names of their own: a member of an enum is looked up in more time than a level is packed."""
_FIRST_PAUSE_S: Final = 5.0
_PAUSE_S_MAX: Final = 120.0
"""Between two requests for a snapshot: venues count subscriptions, and a book that is broken for
long is broken at the venue.
"""
_HELD_S: Final = 60.0
"""A snapshot whose chain has held so long was a good one: pauses are short again."""


Levels = tuple[list[Level], list[Level]]
"""Bids and asks."""


class PushedBook(ChainedBook):
    """A book of deltas on pushed snapshots; `renew` is called with this book when its topic must be
    subscribed anew, at a pace.

    A snapshot that is behind what is stored (the next socket may lie a little behind the last one)
    is brought up to it by the deltas after it, and then written: nothing is stored twice. One that
    its checksum contradicts is written as deltas are: what it said was received, and is no book.
    """

    heirlooms: ClassVar = {"kept_levels": Levels | None}

    @classmethod
    def make(cls, context: FeedContext) -> Self:
        """With the rule of its channel."""
        assert context.book is not None, "its channel says how its messages chain"
        return cls(*context.parts(BOOK), context.book, context.renew)

    def __init__(
        self,
        spec: StreamSpec,
        ring: RingProducer,
        gaps: GapLedger,
        last: Position | None,
        rule: BookRule,
        renew: "Callable[[PushedBook], None]",
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._rule = rule
        self._step = rule.step
        self._renew = renew
        self._backoff = Backoff(_FIRST_PAUSE_S, _PAUSE_S_MAX)
        self._due_s = 0.0
        """From when on the topic may be asked for again (monotonic)."""
        self._whole_s = 0.0
        """Since when the book is whole."""
        self._behind: BookEvent | None = None
        """A snapshot on its way to what is stored."""
        self._kept: KeptBook | None = None

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """A new subscription: its first event is a snapshot."""
        super().subscribed(why)
        self._synced = False
        self._behind = self._kept = None
        self._due_s = monotonic_s() + _FIRST_PAUSE_S

    def cut(self, why: str, silent_s: float = 0.0, *, blame: GapReason | None = None) -> None:
        """What is missed is known when the next snapshot comes."""
        super().cut(why, silent_s, blame=blame)
        self._synced = False
        self._behind = self._kept = None

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """All, once their snapshot is no newer than what is stored: those after it go on from
        there.
        """
        whole: BookEvent = frames[0][0]
        return frames if whole.is_snapshot and whole.seq <= self._last_seq else None

    def on_event(self, event: BookEvent, checksum: int | None = None) -> None:
        """Take a snapshot or a delta, with the checksum that its message says the book has now."""
        self._frame_count += 1
        self.last_recv_ns = event.ts_recv
        if not self.has_data:
            self.delivers()
        step = self._step(self._last_seq, event) if self._last_seq >= 0 else _FOLLOWS
        follows = step is _FOLLOWS or step is _RESTARTS
        if follows and self._synced and not event.is_snapshot:
            if self._kept is None or self._agrees(self._kept, event, checksum):
                self._store(event)
        else:
            self._judge(step, event, checksum)

    def _judge(self, step: Link, event: BookEvent, checksum: int | None) -> None:
        """Take any other event than a delta that follows what is known."""
        if step is Link.REPEATS and not self._counts_anew(event):
            self._on_repeated(event, checksum)
        elif event.is_snapshot:
            self._on_snapshot(step, event, checksum)
        else:
            self._on_delta(step, event, checksum)

    def tick(self, now_ns: int) -> None:
        """Also: a book that still waits for its snapshot asks for it again."""
        super().tick(now_ns)
        if not self._synced and self.has_data and self.state is StreamState.SYNCING:
            self._ask()

    @property
    def kept_levels(self) -> Levels | None:
        """Bids and asks of the book, where it is kept for its checksums."""
        return self._kept.levels if self._kept is not None else None

    @kept_levels.setter
    def kept_levels(self, levels: Levels | None) -> None:
        self._kept = self._empty_book() if levels is not None else None
        if self._kept is not None and levels is not None:
            self._kept.put(*levels)

    def _empty_book(self) -> KeptBook | None:
        """To be kept; None where there are no checksums to compare."""
        instrument = self.spec.instrument
        if self._rule.checksum is None or instrument is None:
            return None
        return KeptBook(self._rule, instrument.price_decimals, instrument.qty_decimals)

    def _counts_anew(self, event: BookEvent) -> bool:
        """Whether an id that went back is no repetition: the venue's time says so."""
        last_seq, at = self._last_seq, event.ts_event
        return event.seq < last_seq and is_renumbered(event.seq, last_seq, at, self._last_ts)

    def _agrees(self, kept: KeptBook, event: BookEvent, checksum: int | None) -> bool:
        """Whether the book is what the venue says it is. False: the event is dealt with."""
        is_repeated = event.seq == self._last_seq and kept.has(event)
        ours = kept.apply(event)
        if checksum is None or ours is None or ours == checksum:
            if is_repeated:
                self.duplicate_count += event.row_count
            return not is_repeated
        edges = Edges(0, 0, self._last_ts, event.ts_event, -1)
        reason = GapReason.UNREADABLE if self.unreadable.is_open else GapReason.RESYNC
        if reason is GapReason.UNREADABLE:
            edges = self.unreadable.take(event.ts_event)
        self._break(reason, GapState.UNPROVABLE, edges, event)
        return False

    def _on_delta(self, step: Link, event: BookEvent, checksum: int | None) -> None:
        """A delta that breaks the chain, came while the book waits, or showed when it began."""
        if step is Link.REPEATS:  # by its id, but not by its time
            edges = Edges(0, 0, self._last_ts, event.ts_event, -1)
            self._break(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, event)
        elif step is Link.BROKEN:
            reason, edges = self._hole(event.prev_seq, event.ts_event)
            self._break(reason, GapState.UNRECOVERABLE, edges, event)
        elif self._kept is None or self._agrees(self._kept, event, checksum):
            self._store(event)
            if self._behind is not None:
                self._bring_up(self._behind, event, checksum)

    def _on_repeated(self, event: BookEvent, checksum: int | None) -> None:
        """Nothing to store, but what a book that waits may be made of."""
        if self._synced or not (event.is_snapshot or self._behind):
            self.duplicate_count += event.row_count
        elif not event.is_snapshot and self._behind is not None:
            self.duplicate_count += event.row_count
            self._bring_up(self._behind, event, checksum)
        elif event.seq == self._last_seq:
            self._take(event, checksum)
        else:
            self._behind = event

    def _bring_up(self, behind: BookEvent, event: BookEvent, checksum: int | None) -> None:
        """Take `event` on in the snapshot, and write that once it has reached what is stored. One
        that has a hole after it is of no use.
        """
        step = self._step(behind.seq, event)
        if step is Link.REPEATS:
            return
        if step is Link.BROKEN:
            self._behind = None
            return
        whole = replace(
            brought_up(behind, [event]),
            seq=event.seq, ts_event=event.ts_event, ts_recv=event.ts_recv,
        )  # fmt: skip
        self._behind = whole
        if whole.seq >= self._last_seq:
            self._take(whole, checksum)

    def _on_snapshot(self, step: Link, event: BookEvent, checksum: int | None) -> None:
        """One that replaces the book. The deltas behind what is stored, up to the last one that it
        holds, are declared: it says what they led to, not what they were.
        """
        if step in (Link.RESTARTS, Link.REPEATS):
            edges = Edges(0, 0, self._last_ts, event.ts_event, -1)
            self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, event.ts_recv)
        elif step is Link.BROKEN:
            reason, edges = self._hole(event.seq, event.ts_event)
            self.declare(reason, GapState.UNPROVABLE, edges, event.ts_recv)
        if step is not Link.FOLLOWS:
            self.stop_listening(CoverageEnd.RESYNC, self.newest_ts)
        self._take(event, checksum)

    def _take(self, whole: BookEvent, checksum: int | None) -> None:
        """Begin with a snapshot: from here on the book is known."""
        self._behind = None
        if not self._fits(whole, checksum):
            edges = Edges(0, 0, self._last_ts, whole.ts_event, -1)
            whole = replace(whole, is_snapshot=False)
            self._break(GapReason.RESYNC, GapState.UNPROVABLE, edges, whole)
            return
        if self._store(whole):
            if not self._synced:
                self._synced, self._whole_s = True, monotonic_s()
            self.accepted(whole.ts_event)

    def _fits(self, whole: BookEvent, checksum: int | None) -> bool:
        """Whether a snapshot is what its message says; the book is kept from here on, where its
        rule has checksums.
        """
        self._kept = self._empty_book()
        if self._kept is None:
            return True
        ours = self._kept.apply(whole)
        return ours is None or checksum in (None, ours)

    def _break(self, reason: GapReason, state: GapState, edges: Edges, event: BookEvent) -> None:
        """Something is missing in front of an event: it is stored, and a snapshot asked for."""
        self.declare(reason, state, edges, event.ts_recv)
        self._unsync(WAITING)
        self._store(event)

    def _store(self, event: BookEvent) -> bool:
        """Write an event. One that a full ring refuses is a hole of our own making."""
        self._last_seq = event.seq
        self._last_ts = event.ts_event
        if self._put(event):
            return True
        self._unsync("rows of it were dropped; " + WAITING)
        return False

    def _unsync(self, why: str) -> None:
        """The book is unknown until a snapshot comes."""
        self.stop_listening(CoverageEnd.RESYNC, self.newest_ts)
        now_s = monotonic_s()
        if self._synced and now_s - self._whole_s > _HELD_S:
            self._backoff.reset()
            self._due_s = now_s
        self._synced = False
        self._behind = self._kept = None
        self.lacks(why)
        self._ask()

    def _ask(self) -> None:
        """Have the topic subscribed anew, if it is not too early for that."""
        now_s = monotonic_s()
        if now_s >= self._due_s:
            self._due_s = now_s + self._backoff.next_s()
            self._renew(self)
