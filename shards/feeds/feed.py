"""One stream's state and counters, shared by every kind of feed."""

import enum
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Self

from engine.data.flags import Flag, GapReason, GapState
from engine.data.kind import Kind
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamCounts, StreamSpec, StreamState, StreamStatus
from shards.feeds.context import FeedContext
from shards.feeds.declared.gaps import DropSpan, Edges, GapLedger
from shards.feeds.declared.late import LateRows
from shards.feeds.declared.unreadable import Unreadable, UnreadableSpan
from shards.feeds.life import Life


class MalformedFrameError(ValueError):
    """A frame decoded, but holds what no market can mean; `reason` is a metric label."""

    @property
    def reason(self) -> str:
        """What is wrong with it, in a word."""
        return str(self.args[0])


class UntakenError(MalformedFrameError):
    """A frame of a symbol that none of the feeds which could take it has here."""

    def __init__(self, symbol: str, *feeds: "type[Feed]") -> None:
        super().__init__("not_subscribed")
        self.symbol = symbol
        self.feeds = feeds


Frame = tuple[Any, ...]
"""What a decoder delivers of one frame: the arguments of the feed's `on_…`."""

_AFTER_GAP: Final = int(Flag.AFTER_GAP)
_DELIVERS: Final = (StreamState.LIVE, StreamState.STALE)
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


def is_set_back(ts_event: int, last_ts: int) -> bool:
    """Whether the venue's time went back so far (more than a minute) that the row is no late copy:
    its clock was set, or the time before was nonsense. Without this, one row from the future would
    make every row after it look old.
    """
    return ts_event < last_ts - _SET_BACK_NS


class Proof(enum.StrEnum):
    """What tells whether rows of a stream are missing, while it runs and across an interruption."""

    IDS = "ids"
    """Ids of the venue: what is missing is known, and how much."""
    CHECKSUM = "checksum"
    """Sums of the venue: that something is missing, and not what."""
    HISTORY = "history"
    """The venue tells the past once more, as far back as it reaches."""
    SAMPLES = "samples"
    """Nothing is to be complete: each row is how things were, and what lies between is not seen."""
    NOTHING = "nothing"
    """No row can prove it. Interruptions are declared, without a count."""


class Feed(Life):
    """What a feed knows of its stream. Feeds extend it with their sequencing rule.

    `last` is the stream's last row of an earlier process (from `engine.data.positions`), or None.
    """

    kind: ClassVar[Kind]
    """Of its rows; where it writes several, the one by whose last row it goes on."""
    heirlooms: ClassVar[dict[str, Any]] = {
        "last_recv_ns": int, "venue_ahead_ns": int, "next_flags": int,
        "unreadable_marks": list[int],
    }  # fmt: skip
    proof: ClassVar[Proof] = Proof.NOTHING
    """What its sequencing rule goes by."""
    in_any_order: ClassVar = False
    """Whether rows are known by what they say, so that it matters not when they come."""
    ids_tell: ClassVar = False
    """Whether the ids of the next row tell what is missing before it. What could not be read is
    then declared with that row, and once.
    """

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, last)
        self.ring = ring
        self.gaps = gaps
        self.drops = DropSpan()
        self.unreadable = UnreadableSpan()
        self._late = LateRows()
        self.unreadable_marks: deque[int] = deque(maxlen=_REMEMBERED_MARKS)
        """Of what could not be read lately: the next socket may bring it once more."""
        self._repeated: Counter[int] = Counter()
        self._repeated_until_ns = 0
        self._frame_count = 0
        self.row_count = 0
        self.gap_count = 0
        self.missing_count = 0
        self.duplicate_count = 0
        self.refused_count = 0
        self.dropped_count = 0
        self.last_recv_ns = 0
        self.venue_ahead_ns = 0
        """At least so much later than ours the venue's clock is, as its rows show."""
        self._heard_s = 0.0
        self._heard_ns = 0
        self.next_flags = 0
        """Flags of the next row: AFTER_GAP once a gap is on record."""

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

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """A (new) connection subscribes this stream, or a poller takes it on."""
        super().subscribed(why)
        self._late.socket_begins(self.newest_ts)
        self._heard_s = self.subscribed_s

    def wanted_again(self, spec: StreamSpec) -> None:
        """The stream starts anew where it ended; what it counted belongs to its earlier life."""
        super().wanted_again(spec)
        self._frame_count = self.row_count = 0
        self.gap_count = self.missing_count = 0
        self.duplicate_count = self.refused_count = self.dropped_count = 0
        self.last_recv_ns = 0

    def silent_s(self, now_s: float) -> float:
        """For how long no frame has come, as seen by who asks again and again (monotonic). Frames
        are stamped with the wall clock, which may be set: all that counts here is that the stamp
        of the last one is another than before.
        """
        if self.last_recv_ns != self._heard_ns:
            self._heard_ns, self._heard_s = self.last_recv_ns, now_s
        return now_s - self._heard_s

    def excuse_silence(self, seconds: float) -> None:
        """So long nobody has listened: what came meanwhile is yet to be read."""
        self._heard_s += seconds

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """Which of `frames`, all that another socket has brought since it subscribed, go on from
        what is stored; None while rows may be missing in between. What it returns may begin with
        rows that are stored: the stream drops those as it always does.
        """
        raise NotImplementedError

    def as_first(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Frames of a socket as they may be delivered after an earlier process's last row, though
        some of them came before it.
        """
        return frames

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
            self.explain("subscribed, but what came could not be read")

    def _is_stored(self, item: Unreadable, last_id: int) -> bool:
        """Whether what cannot be read has, by its id, been stored before."""
        if item.seq is None or item.seq > last_id:
            return False
        at = item.ts_event or self._last_ts
        return not is_renumbered(item.seq, last_id, at, self._last_ts)

    @property
    def can_be_let_go(self) -> bool:
        """Whether another process can go on from what can be said of it now."""
        return self.has_data and self.state in _DELIVERS and not self.has_undeclared

    def inherited(self) -> None:
        """It has been told all that its earlier process knew."""

    def handed_over(self, now_ns: int) -> None:
        """Another socket delivers from now on; what it brings may lie a little behind."""
        self._repeated = Counter(self.unreadable_marks)
        self._repeated_until_ns = now_ns + _BEHIND_NS
        self._late.socket_begins(self.newest_ts)

    def skipped(self, now_ns: int) -> None:
        """Its socket has lost something that may have been of this stream. Ids will tell; where
        there are none, a gap does.
        """
        if self.has_data and not self.ids_tell:
            until_ts = max(now_ns + self.venue_ahead_ns, self.newest_ts)
            edges = Edges(0, 0, self.newest_ts, until_ts, -1)
            self.declare(GapReason.SEQUENCE, GapState.UNPROVABLE, edges, now_ns)

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
