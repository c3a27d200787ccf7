"""One stream's state and counters, shared by every kind of feed."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Self

from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import CoverageEnd, Flag, GapReason, GapState
from engine.data.kind import Kind
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamCounts, StreamSpec, StreamState, StreamStatus
from shards.feeds.context import FeedContext
from shards.feeds.declared.coverage import BEGINS_AFTER_NS, LATE_NS, CoverageLedger
from shards.feeds.declared.gaps import DropSpan, Edges, GapLedger
from shards.feeds.declared.late import LateRows
from shards.feeds.declared.unreadable import Unreadable, UnreadableSpan


class MalformedFrameError(ValueError):
    """A frame decoded, but holds what no market can mean; `reason` is a metric label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Frame = tuple[Any, ...]
"""What a decoder delivers of one frame: the arguments of the feed's `on_…`."""

_AFTER_GAP: Final = int(Flag.AFTER_GAP)
_RENUMBERED_AFTER_NS: Final = 1_000_000_000
_FAR_BACK_IDS: Final = 1_000_000_000
"""More than any venue gives out in the days for which it could repeat itself."""


def is_renumbered(new_id: int, last_id: int, ts_event: int, last_ts: int) -> bool:
    """Whether ids went back although the venue's time went on (by more than a second): the venue
    started counting anew. A repetition has an old id and an old time. Ids that went back by more
    than any repetition tell the same at once: else one id of nonsense would make all the rows of
    the second after it look old.
    """
    if last_id - new_id > _FAR_BACK_IDS:
        return True
    return new_id <= last_id and ts_event > last_ts + _RENUMBERED_AFTER_NS


_REMEMBERED_MARKS: Final = 256
_BEHIND_NS: Final = 10_000_000_000
_SET_BACK_NS: Final = 60_000_000_000
_WRONG_CLOCK_NS: Final = 600_000_000_000
"""A stream heard last so long before its last row was heard by a wrong clock."""


def is_set_back(ts_event: int, last_ts: int) -> bool:
    """Whether the venue's time went back so far (more than a minute) that the row is no late copy:
    its clock was set, or the time before was nonsense. Without this, one row from the future would
    make every row after it look old.
    """
    return ts_event < last_ts - _SET_BACK_NS


class Feed:
    """What a feed knows of its stream. Feeds extend it with their sequencing rule.

    `last` is the stream's last row of an earlier process (from `engine.data.positions`), or None.
    `interruption` says what a jump of ids is blamed on until the first row has arrived again.
    """

    kind: ClassVar[Kind]
    """Of its rows; where it writes several, the one by whose last row it goes on."""
    in_any_order: ClassVar = False
    """Whether rows are known by what they say, so that it matters not when they come."""
    listens_without_rows: ClassVar = False
    """Whether it may be heard, and a gap begin, though it has never had a row."""

    ids_tell: ClassVar = False
    """Whether the ids of the next row tell what is missing before it. What could not be read is
    then declared with that row, and once.
    """

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        self.slot = spec.slot
        self.key = spec.key
        self.spec = spec
        """As it was wanted last."""
        self.ring = ring
        self.gaps = gaps
        self.drops = DropSpan()
        self.unreadable = UnreadableSpan()
        self._late = LateRows()
        self.unreadable_marks: deque[int] = deque(maxlen=_REMEMBERED_MARKS)
        """Of what could not be read lately: the next socket may bring it once more."""
        self._repeated: Counter[int] = Counter()
        self._repeated_until_ns = 0
        self.interruption = GapReason.RESTART if last else GapReason.SEQUENCE
        self.state = StreamState.PENDING
        self.reason = ""
        self._frame_count = 0
        self.row_count = 0
        self.gap_count = 0
        self.missing_count = 0
        self.duplicate_count = 0
        self.refused_count = 0
        self.dropped_count = 0
        self.last_recv_ns = 0
        self._last_ts = 0
        self.venue_ahead_ns = 0
        """At least so much later than ours the venue's clock is, as its rows show."""
        self.subscribed_s = 0.0
        """When the present connection subscribed it (monotonic)."""
        self._heard_s = 0.0
        self._heard_ns = 0
        self.has_data = False
        """Whether a frame has arrived on the present connection."""
        self.next_flags = 0
        """Flags of the next row: AFTER_GAP once a gap is on record."""
        self.coverage = CoverageLedger()
        self.carrier = 0
        """Names the socket or poller that brings it."""
        self._listening_on = 0
        """The carrier on which it is heard; 0 while it is not."""
        self._began_ts = 0
        self._heard_until = last.ts_event if last else 0
        """While it is not heard: up to when (venue time) it was; 0 when it never was."""

    @classmethod
    def make(cls, context: FeedContext) -> Self:
        """The feed of a stream, going on from its last row."""
        return cls(*context.parts(cls.kind))

    @property
    def frame_count(self) -> int:
        """Frames that carried this stream."""
        return self._frame_count

    @property
    def clocks_ns(self) -> int | None:
        """What our clock said when the row came last less what the venue's said of it: how long it
        was on its way, by two clocks, which may differ by anything. None where nobody knows, as of
        rows without a time of the venue.
        """
        if not (self.last_recv_ns and self._last_ts) or self.last_recv_ns == self._last_ts:
            return None
        return self.last_recv_ns - self._last_ts

    @property
    def lag_ns(self) -> int:
        """How long the row that came last was on its way; 0 where nobody knows."""
        return max(self.clocks_ns or 0, 0)

    def connected(self) -> None:
        """A (new) connection subscribes this stream."""
        self.has_data = False
        self._late.socket_begins(self.newest_ts)
        self.subscribed_s = self._heard_s = monotonic_s()
        self.state, self.reason = StreamState.SYNCING, "subscribed, waiting for the first data"

    def disconnected(self, reason: str, silent_s: float = 0.0) -> None:
        """The connection is gone; ids may have jumped when the next one delivers. For its last
        `silent_s` seconds nothing of any stream came through it.
        """
        is_deaf = self._may_be_deaf
        end = CoverageEnd.SILENCE if is_deaf else CoverageEnd.RECONNECT
        self.stop_listening(end, self.newest_ts if is_deaf else self.heard_until(silent_s))
        self.state = StreamState.BACKOFF
        self.reason = reason
        if self.interruption is GapReason.SEQUENCE:
            self.interruption = GapReason.RECONNECT

    def removed(self, silent_s: float = 0.0) -> None:
        """Nobody wants the stream any more. It keeps its place, should it be wanted again."""
        self.ended_in_order("removed", silent_s)

    @property
    def _may_be_deaf(self) -> bool:
        """Whether its socket was heard, and yet nothing of the stream may have come through it."""
        return self.interruption is GapReason.SILENCE or self.state is StreamState.STALE

    def ended_in_order(self, reason: str, silent_s: float = 0.0) -> None:
        """It is let go of on purpose; what is missed until it is wanted again says so."""
        until = self.newest_ts if self._may_be_deaf else self.heard_until(silent_s)
        if self._listening_on or self.interruption is GapReason.SEQUENCE:
            self.interruption = GapReason.STOPPED
        self.stop_listening(CoverageEnd.STOPPED, until)
        self.disconnected(reason, silent_s)
        self.state = StreamState.STOPPED

    def resume(self, coverage: CoverageLedger, heard: Position | None) -> None:
        """Go on where an earlier process ended: `heard` is the stream's place in
        `engine.data.positions.CoveragePositions`, if it has one.
        """
        self.coverage = coverage
        if heard is None or not (self._heard_until or self.listens_without_rows):
            return
        if heard.ts_event > self._heard_until - _WRONG_CLOCK_NS:
            self._heard_until = heard.ts_event
        was_stopped = heard.id_hi == CoverageEnd.STOPPED
        self.interruption = GapReason.STOPPED if was_stopped else GapReason.RESTART

    def wanted_again(self, spec: StreamSpec) -> None:
        """The stream starts anew where it ended; what it counted belongs to its earlier life."""
        self.spec = spec
        self.state, self.reason = StreamState.PENDING, ""
        self._frame_count = self.row_count = 0
        self.gap_count = self.missing_count = 0
        self.duplicate_count = self.refused_count = self.dropped_count = 0
        self.last_recv_ns = 0

    def failed(self, reason: str) -> None:
        """The stream cannot run; the reason says what to do."""
        self.stop_listening(CoverageEnd.FAILED, self.newest_ts)
        self.state = StreamState.FAILED
        self.reason = reason

    def fell_silent(self) -> None:
        """Nothing has come for too long on a live connection. Ids will tell what was missed, or
        silence is normal; a stream of which neither is true declares it.
        """

    def heard_again(self) -> None:
        """Data comes again after a silence that was noticed."""
        self.state, self.reason = StreamState.LIVE, ""

    def silent_s(self, now_s: float) -> float:
        """For how long no frame has come, as seen by who asks again and again (monotonic). Frames
        are stamped with the wall clock, which may be set: all that counts here is that the stamp
        of the last one is another than before.
        """
        if self.last_recv_ns != self._heard_ns:
            self._heard_ns, self._heard_s = self.last_recv_ns, now_s
        return now_s - self._heard_s

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """Which of `frames`, all that another socket has brought since it subscribed, go on from
        what is stored; None while rows may be missing in between. What it returns may begin with
        rows that are stored: the stream drops those as it always does.
        """
        raise NotImplementedError

    def live(self, from_ts: int) -> None:
        """Rows flow, the first of them at `from_ts` (venue time, ns); a later jump is the venue's
        own.
        """
        self.state = StreamState.LIVE
        self.reason = ""
        self.interruption = GapReason.SEQUENCE
        if not self._listening_on:
            self._listen(from_ts + BEGINS_AFTER_NS)

    def _listen(self, at: int) -> None:
        self._listening_on = self.carrier or 1
        self._began_ts = at
        self.coverage.began(self.slot, self._listening_on, at, self._heard_until)
        self._heard_until = 0

    @property
    def is_heard(self) -> bool:
        """Whether it is on record as listened to."""
        return bool(self._listening_on)

    @property
    def newest_ts(self) -> int:
        """Venue time of the newest row; 0 while there was none."""
        return self._last_ts

    def stop_listening(self, end: CoverageEnd, until: int) -> None:
        """The stream is not heard any more, only up to `until` (venue time; 0: since it began)."""
        if self._listening_on:
            self._heard_until = until or self._began_ts
            # A row may claim to be of the future.
            at = min(self._heard_until, max(self._began_ts, wall_ns()))
            self.coverage.ended(self.slot, self._listening_on, at, end)
            self._listening_on = 0

    def carried_on(self, carrier: int) -> None:
        """Another socket goes on with the stream, and nothing is missing in between."""
        self.carrier = carrier
        if self._listening_on:
            self.stop_listening(CoverageEnd.HANDOVER, max(self.newest_ts, self._began_ts))
            self._listen(self._heard_until)

    def heard_until(self, silent_s: float) -> int:
        """Venue time up to which nothing is missing that was said through the present socket, of
        which nothing came for its last `silent_s` seconds. Streams that come when something happens
        are heard as long as their socket is.
        """
        now_ns = wall_ns()
        heard_ns = now_ns - int(silent_s * 1e9)
        return min(max(heard_ns - LATE_NS, self.newest_ts), now_ns)

    def missed_since(self, last_ts: int, until_ts: int) -> int:
        """Where the gap begins that ends at `until_ts`, after the last row at `last_ts`: not before
        the stream was heard last. What is said to be after its end was said by a wrong clock.
        """
        if self._listening_on or self.interruption in (GapReason.SEQUENCE, GapReason.SILENCE):
            return last_ts
        known = [ts for ts in (self._heard_until, last_ts) if 0 < ts <= until_ts]
        return max(known, default=min(last_ts, until_ts))

    def on_unreadable(self, item: Unreadable) -> None:
        """Take what no row can be made of: it is counted, and declared before the next row."""
        if self._repeated[item.mark] and item.ts_recv < self._repeated_until_ns:
            self._repeated[item.mark] -= 1
            self.duplicate_count += item.rows
            return
        self.unreadable.add(item, self.newest_ts)
        if item.rows < 0:
            return  # perhaps another's: it neither counts nor shows that this one is alive
        self._frame_count += 1
        self.last_recv_ns = item.ts_recv
        self.unreadable_marks.append(item.mark)
        self.refused_count += item.rows
        self.next_flags |= _AFTER_GAP
        if self.state is StreamState.SYNCING and not self.has_data:
            self.reason = "subscribed, but what came could not be read"

    def handed_over(self, now_ns: int) -> None:
        """Another socket delivers from now on; what it brings may lie a little behind."""
        self._repeated = Counter(self.unreadable_marks)
        self._repeated_until_ns = now_ns + _BEHIND_NS
        self._late.socket_begins(self.newest_ts)

    def came_late(self, ts_event: int, rows: int, now_ns: int) -> bool:
        """Rows that are older than the newest one. True: they are to be stored all the same, for
        the venue's clock goes that way now, and the time without rows is on record. Else they are
        not: as a rule they are stored already, and where nobody knows, a gap says so.
        """
        is_new_time = self._late.add(ts_event, self.newest_ts)
        if not is_new_time:
            self.duplicate_count += rows
            if self._late.is_open:
                self.next_flags |= _AFTER_GAP
            return False
        self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, self._late.take(), now_ns)
        return True

    def declare(self, reason: GapReason, state: GapState, edges: Edges, now_ns: int) -> None:
        """Put a gap on record; the next row will say that it follows one. What was refused before
        is named first: one gap must not reach over another.
        """
        self.declare_pending(now_ns)
        self._record(reason, state, edges, now_ns)

    def _record(self, reason: GapReason, state: GapState, edges: Edges, now_ns: int) -> None:
        self.gap_count += 1
        self.missing_count += max(edges.missing, 0)
        self.next_flags |= _AFTER_GAP
        self.gaps.declare(self.slot, reason, state, edges, now_ns)

    def dropped(self, seq: int, ts_event: int, count: int) -> None:
        """A full ring refused `count` rows of id `seq`; the next row that fits settles it."""
        self.dropped_count += count
        self.drops.add(seq, seq, ts_event, count)
        self.next_flags |= _AFTER_GAP

    def settle(self, now_ns: int) -> int:
        """Return the flags of the row being written, after declaring what was refused before."""
        self.declare_pending(now_ns)
        flags, self.next_flags = self.next_flags, 0
        return flags

    def tick(self, now_ns: int) -> None:
        """Called a few times a second: what a quiet stream has not stored is declared here."""
        if self.ring.has_room():
            self._declare_drops(now_ns)
            if not self.ids_tell:
                self._declare_unreadable(now_ns)
            if self._late.is_over:
                self._declare_late(now_ns)

    @property
    def has_undeclared(self) -> bool:
        """Whether something that was received is neither in a ring nor declared."""
        return bool(self.drops.count or self.unreadable.is_open or self._late.is_open)

    def declare_pending(self, now_ns: int) -> None:
        """Put on record what a full ring has refused so far, whether it has room again or not, and
        what could not be read.
        """
        self._declare_drops(now_ns)
        self._declare_unreadable(now_ns)
        self._declare_late(now_ns)

    def _declare_late(self, now_ns: int) -> None:
        if self._late.is_open:
            edges = self._late.take()
            self._record(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, now_ns)

    def _declare_drops(self, now_ns: int) -> None:
        if self.drops.count:
            edges = self.drops.take()
            self._record(GapReason.RING_FULL, GapState.UNRECOVERABLE, edges, now_ns)

    def _declare_unreadable(self, now_ns: int) -> None:
        if self.unreadable.is_open:
            edges = self.unreadable.take(self.newest_ts)
            state = GapState.UNRECOVERABLE if edges.to_seq else GapState.UNPROVABLE
            self._record(GapReason.UNREADABLE, state, edges, now_ns)

    def counts(self) -> StreamCounts:
        """What it has counted since it was wanted."""
        return StreamCounts(
            self.frame_count,
            self.row_count,
            self.gap_count,
            self.missing_count,
            self.duplicate_count,
            self.refused_count,
        )

    def status(self) -> StreamStatus:
        """The stream as the supervisor sees it."""
        return StreamStatus(
            self.slot,
            self.state,
            self.reason,
            *self.counts(),
            last_recv_ns=self.last_recv_ns,
            life=self.spec.life,
        )
