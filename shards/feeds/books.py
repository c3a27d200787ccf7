"""Books: deltas on a snapshot, or whole snapshots.

What a consumer may rely on, for both: rows come in the order in which they apply; a SNAPSHOT event
replaces the book; after a row flagged AFTER_GAP the book is unknown until the next SNAPSHOT.

An event is the smallest unit that can be at fault: one of which a single level cannot be read is
refused whole, for a book with the other levels alone would be a wrong one. Its levels are counted
as refused rows, and a book of deltas starts anew from a snapshot.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Self

from msgspec.structs import replace

from engine.base.clock import monotonic_s
from engine.data.flags import CoverageEnd, GapReason, GapState
from engine.data.kinds import BOOK
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.book_rows import BookEvent, brought_up, put_event
from shards.feeds.context import FeedContext
from shards.feeds.declared.gaps import Edges, GapLedger
from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.feed import Feed, Frame, Proof, is_renumbered, is_set_back

MAX_BUFFERED_EVENTS: Final = 2000
"""While a book waits for a snapshot: 200 s of 100 ms events."""
MAX_BUFFERED_ROWS: Final = 50_000
"""And no more than 7 MB, for hundreds of books may wait while nobody may ask for snapshots."""

NOT_LISTENING: Final = (StreamState.BACKOFF, StreamState.STOPPED, StreamState.FAILED)
"""What a book is in when a snapshot is of no use to it."""


WAITING: Final = "waiting for a snapshot that fits"

_AHEAD_S_MAX: Final = 10.0
"""Events come within a fraction of a second of a snapshot that holds them, or they never will."""
_AHEAD_IDS_MAX: Final = 100_000_000
"""No book changes so often in that time."""


class BookFeed(Feed):
    """Writes book events; subclasses decide which and in what order."""

    kind: ClassVar = BOOK

    def _put(self, event: BookEvent) -> bool:
        """Write an event; False when a full ring refused it (counted, to be declared)."""
        count = len(event.bids) + len(event.asks) or 1
        ring = self.ring
        seq = ring.next_seq  # written out: most events are small, and a call costs as much as a row
        if seq + count > ring.limit_seq and ring.reserve(count) < 0:
            self.dropped(event.seq, event.ts_event, count)
            return False
        ring.next_seq = seq + count
        flags = self.next_flags and self.settle(event.ts_recv)
        put_event(ring, seq, self.slot, event, flags)
        self.row_count += count
        return True


class ChainedBook(BookFeed):
    """A book of deltas that tell which one they follow: what is missing is known by its ids."""

    proof: ClassVar = Proof.IDS
    ids_tell: ClassVar = True
    heirlooms: ClassVar = {"_last_seq": int, "_synced": bool}

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._last_seq = last.id if last else -1
        self._synced = False

    @property
    def is_synced(self) -> bool:
        """Whether a snapshot has been joined and the chain has held since."""
        return self._synced

    @property
    def can_be_let_go(self) -> bool:
        """Not without a book: the next process would not get one either."""
        return self._synced and super().can_be_let_go

    def heard(self) -> None:
        """Events alone make no book."""
        if self._synced:
            super().heard()
        else:
            self.lacks(WAITING)

    def on_unreadable(self, item: Unreadable) -> None:
        """Wait for the next event to tell whether the chain is broken by it; it nearly always is,
        and the book starts anew. One that is stored is only repeated.
        """
        if item.rows < 0:
            return  # if it was an event of this book, the chain will be broken
        if item.seq is not None and item.seq <= self._last_seq and self._is_old(item):
            self.last_recv_ns = item.ts_recv
            self.duplicate_count += item.rows
            return
        super().on_unreadable(item)

    def _is_old(self, item: Unreadable) -> bool:
        at = item.ts_event or self._last_ts
        return not is_renumbered(item.seq or 0, self._last_seq, at, self._last_ts)

    def _hole(self, until_seq: int, ts_event: int) -> tuple[GapReason, Edges]:
        """What lies between the last event and one of `ts_event` that follows `until_seq`."""
        from_ts = self.missed_since(self._last_ts, ts_event)
        edges = Edges(self._last_seq + 1, until_seq, from_ts, ts_event, -1)
        if self.unreadable.links(self._last_seq, until_seq):
            return GapReason.UNREADABLE, edges._replace(missing=self.unreadable.take(0).missing)
        is_own = self.blame is not GapReason.SEQUENCE
        return self.blame if is_own else GapReason.RESYNC, edges


class DeltaBook(ChainedBook):
    """A book of deltas that chain by `prev_seq`, started from a REST snapshot.

    How such a book is kept: buffer events, fetch a snapshot
    with id L, the first event at or after it must contain L or continue it (`prev_seq == L`); from
    then on each event's `prev_seq` is the `seq` before. Nothing the venue sent is thrown away:
    events that are part of the snapshot are written in front of it, where they belong, and its
    time lies between theirs and those of the events after it: who orders by time, as readers do,
    finds the same order.

    `request_snapshot` is called when the first event waits for a snapshot, and again when one was
    too old; the answer goes to `on_snapshot`.

    A book that runs can be renewed, for those who read it from the middle: see `renew`.
    """

    ids_tell: ClassVar = True

    @classmethod
    def make(cls, context: FeedContext) -> Self:
        """With somebody to ask for snapshots."""
        return cls(*context.parts(BOOK), context.want_snapshot)

    def __init__(
        self,
        spec: StreamSpec,
        ring: RingProducer,
        gaps: GapLedger,
        last: Position | None,
        request_snapshot: "Callable[[DeltaBook], None]",
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._request_snapshot = request_snapshot
        self._buffer: list[tuple[int, BookEvent]] = []
        self._kept_rows = 0
        """In that, or in `_since`."""
        self._snapshot: BookEvent | None = None
        self._snapshot_s = 0.0
        """Since when the snapshot waits for an event that reaches it (monotonic)."""
        self._requested = False
        self._since: list[tuple[int, BookEvent]] | None = None
        """While the book is renewed: what was written since the request."""

    @property
    def is_settled(self) -> bool:
        """Whether it is synced and waits for no other snapshot."""
        return self._synced and self._since is None

    def renew(self) -> None:
        """Ask for one more snapshot of a book that runs. It is brought up to the last event and
        written as a SNAPSHOT of that event's `seq`; events are written meanwhile as ever.
        """
        if self.is_settled and not self.is_let_go:
            self._since, self._kept_rows = [], 0
            self._request()

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """A new connection: what it delivers must be joined to a new snapshot."""
        super().subscribed(why)
        self._unsync()

    def cut(self, why: str, silent_s: float = 0.0, *, blame: GapReason | None = None) -> None:
        """Write what waited for a snapshot: it was received, so it is stored."""
        super().cut(why, silent_s, blame=blame)
        self._write_buffered()
        self._synced = False
        self._snapshot = None
        self._since = None
        self._requested = False

    def let_go(self) -> None:
        """A snapshot that is under way comes too late."""
        super().let_go()
        self._since = self._snapshot = None
        self._requested = False

    def inherited(self) -> None:
        """It is renewed in its turn: nobody fetches a snapshot for a book that is settled."""
        self._request_snapshot(self)

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """All, once the first continues the chain or is stored: no new snapshot is needed."""
        return frames if frames[0][1].prev_seq <= self._last_seq else None

    def on_event(self, first_seq: int, event: BookEvent) -> None:
        """Take a delta whose ids are `first_seq` (U) to `event.seq` (u)."""
        self._frame_count += 1
        self.last_recv_ns = event.ts_recv
        if event.prev_seq != self._last_seq and not self._accept_jump(event):
            return
        self._last_seq = event.seq
        self._last_ts = event.ts_event
        if not self.has_data:
            self.delivers()
        if self._synced:
            if not self._put(event):
                self._unsync()  # a hole of our own making: the book needs a new start
            elif self._since is not None:
                self._while_renewed(first_seq, event)
            return
        self._buffer.append((first_seq, event))
        self._kept_rows += event.row_count
        if self._snapshot is not None:
            self._join()
        elif not self._requested:
            self._request()
        if len(self._buffer) > MAX_BUFFERED_EVENTS or self._kept_rows > MAX_BUFFERED_ROWS:
            self.explain("no snapshot fits; the rows are stored without one")
            self._write_buffered()

    def on_snapshot(self, snapshot: BookEvent) -> None:
        """Take a REST snapshot (id in `seq`). One that is too old is asked for again."""
        self._requested = False
        if self.state in NOT_LISTENING or self.is_settled:
            return
        self._snapshot, self._snapshot_s = snapshot, monotonic_s()
        if self._synced:
            self._renewed()
        else:
            self._join()
        if snapshot.seq - self._last_seq > _AHEAD_IDS_MAX:
            self._give_up_snapshot()

    def tick(self, now_ns: int) -> None:
        """A snapshot that no event reaches is not waited for any longer."""
        super().tick(now_ns)
        if self._snapshot is None:
            return
        late_s = self.lag_ns / 1e9  # events that are on their way for so long may still reach it
        if monotonic_s() - self._snapshot_s > _AHEAD_S_MAX + late_s:
            self._give_up_snapshot()

    def _give_up_snapshot(self) -> None:
        """Ask for another one. What was received meanwhile is kept for that."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return  # it was joined
        ahead = snapshot.seq - self._last_seq
        if not self._synced:
            self.explain(
                f"snapshot {snapshot.seq} is {ahead:,} ids ahead of the newest event"
                f" {self._last_seq}; another one is asked for"
            )
        self._request()

    def _join(self) -> None:
        """Put snapshot and buffered events together, if they meet."""
        snapshot = self._snapshot
        assert snapshot is not None
        older = 0
        while older < len(self._buffer) and self._buffer[older][1].seq < snapshot.seq:
            older += 1
        if older == len(self._buffer):
            return  # no event has reached the snapshot yet: wait for one
        first_seq, event = self._buffer[older]
        if not (first_seq <= snapshot.seq or event.prev_seq == snapshot.seq):
            self._snapshot = None
            self.explain(f"snapshot {snapshot.seq} is older than event {event.seq}")
            self._request()
            return
        buffered = [each for _, each in self._take_buffered()]
        if event.seq == snapshot.seq:
            older += 1
        past, following = buffered[:older], buffered[older:]
        events = [*past, _between(past, snapshot, following), *following]
        self._snapshot = None
        stored = [self._put(event) for event in events]
        if all(stored):
            self._synced = True
            self.accepted(event.ts_event)
        else:
            self._unsync()

    def _while_renewed(self, first_seq: int, event: BookEvent) -> None:
        assert self._since is not None
        self._since.append((first_seq, event))
        self._kept_rows += event.row_count
        if len(self._since) > MAX_BUFFERED_EVENTS or self._kept_rows > MAX_BUFFERED_ROWS:
            self._since = self._snapshot = None  # nothing of use for minutes: it is asked for again
        elif self._snapshot is not None:
            self._renewed()

    def _renewed(self) -> None:
        """Write the snapshot as of the last event, if it can be brought up to it."""
        snapshot = self._snapshot
        assert snapshot is not None
        assert self._since is not None
        if snapshot.seq > self._last_seq:
            return  # no event has reached the snapshot yet: wait for one
        self._snapshot = None
        newer = [(first_seq, event) for first_seq, event in self._since if event.seq > snapshot.seq]
        joins = snapshot.seq == self._last_seq or (
            bool(newer) and (newer[0][0] <= snapshot.seq or newer[0][1].prev_seq == snapshot.seq)
        )
        if not joins:
            self._request()  # it was taken before ours were kept
            return
        self._since = None
        ts_recv = max(snapshot.ts_recv, self.last_recv_ns)
        whole = replace(snapshot, seq=self._last_seq, ts_event=self._last_ts, ts_recv=ts_recv)
        whole = brought_up(whole, [event for _, event in newer])
        if self.ring.has_room(whole.row_count):  # else nothing is missing: the next renewal will do
            self._put(whole)

    def _accept_jump(self, event: BookEvent) -> bool:
        """An event that does not continue the last one. False: already stored."""
        if self._last_seq < 0:
            return True
        if is_renumbered(event.seq, self._last_seq, event.ts_event, self._last_ts):
            edges = Edges(0, 0, self._last_ts, event.ts_event, -1)
            self._broken(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, event.ts_recv)
        elif event.seq <= self._last_seq:
            self.duplicate_count += event.row_count
            return False
        elif event.prev_seq > self._last_seq:
            reason, edges = self._hole(event.prev_seq, event.ts_event)
            self._broken(reason, GapState.UNRECOVERABLE, edges, event.ts_recv)
        return True

    def _broken(self, reason: GapReason, state: GapState, edges: Edges, now_ns: int) -> None:
        """The chain broke in front of the present event."""
        self._write_buffered()
        self.declare(reason, state, edges, now_ns)
        if self._synced:
            self._unsync()

    def _unsync(self) -> None:
        """The book is unknown until a snapshot fits; the next event asks for one."""
        self.stop_listening(CoverageEnd.RESYNC, self.newest_ts)
        self._synced = False
        self._snapshot = None
        self._since = None
        self._requested = False  # an answer to an earlier request may never come
        self.lacks(WAITING)

    def _request(self) -> None:
        self._requested = True
        self._request_snapshot(self)

    def _write_buffered(self) -> None:
        for _, event in self._take_buffered():
            self._put(event)

    def _take_buffered(self) -> list[tuple[int, BookEvent]]:
        buffered, self._buffer = self._buffer, []
        self._kept_rows = 0
        return buffered


def _between(
    past: Sequence[BookEvent], snapshot: BookEvent, following: Sequence[BookEvent]
) -> BookEvent:
    """The snapshot at a time at which it orders between these events: a venue may stamp it when it
    answers. One that says what the last of `past` led to is of that moment.
    """
    ts_event = snapshot.ts_event
    if following:
        ts_event = min(ts_event, following[0].ts_event)
    if past:
        is_its_book = past[-1].seq == snapshot.seq
        ts_event = past[-1].ts_event if is_its_book else max(ts_event, past[-1].ts_event)
    return replace(snapshot, ts_event=ts_event)


class SnapshotBook(BookFeed):
    """A book sent whole each time. `seq` is the venue's time in ms.

    A frame older than the last one is ignored, as the venue advises (unless its clock was set
    back); one of the same time is a repetition. Frames missed while disconnected cannot be counted,
    so the gap is unprovable.
    """

    proof: ClassVar = Proof.SAMPLES
    heirlooms: ClassVar = {"_last_seq": int}
    silence_is_loss: ClassVar = True

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._last_seq = last.id if last else 0

    def heard_until(self, silent_s: float) -> int:
        """Up to the last one, as books come at a steady pace."""
        return self._last_ts

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """All, once a book as new as the first is stored."""
        return frames if frames[0][0].seq <= self._last_seq else None

    def on_book(self, event: BookEvent) -> None:
        """Take a whole book; its `prev_seq` is filled in here."""
        self._frame_count += 1
        self.last_recv_ns = event.ts_recv
        if is_set_back(event.ts_event, self._last_ts):
            edges = Edges(0, 0, event.ts_event, event.ts_event, -1)
            self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, event.ts_recv)
            self._last_seq = 0
        elif event.seq == self._last_seq:
            self.duplicate_count += event.row_count
            return
        elif event.seq < self._last_seq:
            if not self.came_late(event.ts_event, event.row_count, event.ts_recv):
                return
            self._last_seq = 0
        if not self.has_data:
            if self._last_seq and event.seq > self._last_seq + 1:
                edges = Edges(self._last_seq + 1, event.seq - 1, self._last_ts, event.ts_event, -1)
                self.declare(self.blame, GapState.UNPROVABLE, edges, event.ts_recv)
            self.accepted(event.ts_event)
        self._put(
            BookEvent(
                event.seq, self._last_seq, event.ts_event, event.ts_recv, event.bids, event.asks,
                is_snapshot=True,
            )
        )  # fmt: skip
        self._last_seq, self._last_ts = event.seq, event.ts_event
