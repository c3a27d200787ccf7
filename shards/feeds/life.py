"""A stream's life: one machine, and the only place that says what has become of a stream.

Others call an event; nobody else assigns `state`, `reason`, `blame` or `has_data`. With the state
goes what is on record of it: a stream that is live is listened to, and the end of that says why
nobody listens any more (`shards.feeds.declared.coverage`). An event in a state that `_FORESEEN`
does not name for it is a fault of ours: it counts, is logged, and takes effect all the same, for
rows that flow must not stay out of sight.
"""

import logging
from collections import Counter
from typing import Any, ClassVar, Final

from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import CoverageEnd, GapReason
from engine.data.positions import Position
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.declared.coverage import BEGINS_AFTER_NS, LATE_NS, CoverageLedger

_log = logging.getLogger(__name__)

_WRONG_CLOCK_NS: Final = 600_000_000_000
"""A stream heard last so long before its last row was heard by a wrong clock."""

_KEPT: Final = (StreamState.FAILED, StreamState.STOPPED)
"""What a cut socket changes nothing about."""
_WAITING: Final = frozenset(
    {StreamState.PENDING, StreamState.CONNECTING, StreamState.BACKOFF, StreamState.FAILED}
)
_RUNNING: Final = frozenset({StreamState.SYNCING, StreamState.LIVE, StreamState.STALE})
_POLLED: Final = frozenset(StreamState) - {StreamState.FAILED, StreamState.STOPPED}
_WANTED: Final = frozenset(StreamState) - {StreamState.STOPPED}
_FORESEEN: Final = {
    "waits": _WAITING,
    "subscribed": _WANTED,
    "accepted": _RUNNING | {StreamState.BACKOFF},
    "lacks": _RUNNING | {StreamState.BACKOFF},
    "fell_silent": _RUNNING,
    "heard": {StreamState.STALE},
    "cut": frozenset(StreamState),
    "poll_failed": _POLLED,
    "failed": _WANTED,
    "ended": frozenset(StreamState),
    "wanted_again": {StreamState.STOPPED},
}
"""The states in which each event may come."""

UNFORESEEN: Final[Counter[tuple[str, StreamState]]] = Counter()
"""Events that came in other states, since the process began."""


class Life:
    """Whether a stream runs, and whether it is on record as heard.

    `last` is its last row of an earlier process (from `engine.data.positions`), or None.
    """

    listens_without_rows: ClassVar = False
    """Whether it may be heard, and a gap begin, though it has never had a row."""

    heirlooms: ClassVar[dict[str, Any]] = {
        "state": StreamState, "blame": GapReason, "has_data": bool, "was_heard": bool,
        "_heard_until": int, "_last_ts": int,
    }  # fmt: skip
    """What the next process must know to go on without a hole: attributes, and their types on the
    way (`shards.feeds.passing.baton`). Each class names its own; those it extends are added.
    """

    silence_is_loss: ClassVar = False
    """Whether rows come at a steady pace, changed or not, and no id will tell how many are missing.
    Of others ids will tell, or silence is normal.
    """

    def __init__(self, spec: StreamSpec, last: Position | None) -> None:
        self.slot = spec.slot
        self.key = spec.key
        self.spec = spec
        """As it was wanted last."""
        self.state = StreamState.PENDING
        self.reason = ""
        self.blame = GapReason.RESTART if last else GapReason.SEQUENCE
        """What a jump of ids is blamed on until the first row has arrived again."""
        self.has_data = False
        """Whether a frame has arrived on the present connection."""
        self.subscribed_s = 0.0
        """When the present connection subscribed it (monotonic)."""
        self.coverage = CoverageLedger()
        self.carrier = 0
        """Names the socket or poller that brings it."""
        self._listening_on = 0
        """The carrier on which it is heard; 0 while it is not."""
        self._began_ts = 0
        self.is_let_go = False
        """Whether another process is about to go on with it: nothing may be stored."""
        self.was_heard = False
        """While it is let go of: whether it was on record as listened to."""
        self._heard_until = last.ts_event if last else 0
        """While it is not heard: up to when (venue time) it was; 0 when it never was."""
        self._last_ts = last.ts_event if last else 0

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
        self.blame = GapReason.STOPPED if was_stopped else GapReason.RESTART

    def waits(self, why: str) -> None:
        """It has no socket yet, or one that is not open."""
        self._enter("waits", StreamState.CONNECTING, why)

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """A (new) connection subscribes this stream, or a poller takes it on."""
        self.has_data = False
        self.subscribed_s = monotonic_s()
        self._enter("subscribed", StreamState.SYNCING, why)

    def delivers(self) -> None:
        """The present connection has brought something, which may not be of use yet."""
        self.has_data = True

    def accepted(self, from_ts: int) -> None:
        """Rows flow, the first of them at `from_ts` (venue time, ns); a later jump is the venue's
        own.
        """
        self.has_data = True
        self.blame = GapReason.SEQUENCE
        self._enter("accepted", StreamState.LIVE, "")
        if not self._listening_on:
            self._listen(from_ts + BEGINS_AFTER_NS)

    def lacks(self, why: str) -> None:
        """It is subscribed, and what came makes nothing whole yet."""
        self._enter("lacks", StreamState.SYNCING, why)

    def fell_silent(self, why: str) -> None:
        """Nothing has come for too long on a live connection."""
        self._enter("fell_silent", StreamState.STALE, why)
        if self.silence_is_loss:
            self._misses(GapReason.SILENCE)

    def heard(self) -> None:
        """Data comes again after a silence that was noticed."""
        self._enter("heard", StreamState.LIVE, "")

    def cut(self, why: str, silent_s: float = 0.0, *, blame: GapReason | None = None) -> None:
        """The connection is gone; ids may have jumped when the next one delivers. For its last
        `silent_s` seconds nothing of any stream came through it. `blame` is a cause that is known
        better than that.
        """
        if blame is not None:
            self.blame = blame
        end = CoverageEnd.SILENCE if self._may_be_deaf else CoverageEnd.RECONNECT
        self.stop_listening(end, self._heard_through(silent_s))
        if self.state not in _KEPT:
            self._enter("cut", StreamState.BACKOFF, why)
        self._blame_on(GapReason.RECONNECT)

    def poll_failed(self, why: str) -> None:
        """A request failed and is repeated; nothing is missed before the next one is due."""
        self._enter("poll_failed", StreamState.BACKOFF, why)

    def poll_missed(self) -> None:
        """No answer came before the next one was due: the next row follows a gap."""
        self._misses(GapReason.POLL_MISSED)

    def failed(self, why: str) -> None:
        """The stream cannot run; `why` says what to do."""
        self.stop_listening(CoverageEnd.FAILED, self.newest_ts)
        self._enter("failed", StreamState.FAILED, why)

    def ended(self, why: str, silent_s: float = 0.0, *, in_order: bool = True) -> None:
        """Nobody wants the stream any more, or the process ends. It keeps its place, should it be
        wanted again. `in_order`: it is let go of on purpose, and what is missed until then says so.
        """
        if in_order:
            until = self._heard_through(silent_s)
            if self._listening_on or self.blame is GapReason.SEQUENCE:
                self.blame = GapReason.STOPPED
            self.stop_listening(CoverageEnd.STOPPED, until)
        self.cut(why, silent_s)
        self._enter("ended", StreamState.STOPPED, why)

    def wanted_again(self, spec: StreamSpec) -> None:
        """The stream starts anew where it ended."""
        self.spec = spec
        self._enter("wanted_again", StreamState.PENDING, "")

    def explain(self, why: str) -> None:
        """Say more of the state it is in."""
        self.reason = why

    def _enter(self, event: str, state: StreamState, why: str) -> None:
        if self.state not in _FORESEEN[event]:
            _note_unforeseen(self, event)
        self.state, self.reason = state, why

    def _blame_on(self, cause: GapReason) -> None:
        """The first cause counts, until rows flow again."""
        if self.blame is GapReason.SEQUENCE:
            self.blame = cause

    def _misses(self, cause: GapReason) -> None:
        """Rows should have come and have not."""
        self.stop_listening(CoverageEnd.SILENCE, self.heard_until(0.0))
        self.has_data = False
        self._blame_on(cause)

    @property
    def is_wanted(self) -> bool:
        """Whether it runs, or will as soon as it can."""
        return self.state not in _KEPT

    @property
    def is_heard(self) -> bool:
        """Whether it is on record as listened to."""
        return bool(self._listening_on)

    @property
    def newest_ts(self) -> int:
        """Venue time of the newest row; 0 while there was none."""
        return self._last_ts

    @property
    def _may_be_deaf(self) -> bool:
        """Whether its socket was heard, and yet nothing of the stream may have come through it."""
        return self.blame is GapReason.SILENCE or self.state is StreamState.STALE

    def _heard_through(self, silent_s: float) -> int:
        return self.newest_ts if self._may_be_deaf else self.heard_until(silent_s)

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
        if self._listening_on or self.blame in (GapReason.SEQUENCE, GapReason.SILENCE):
            return last_ts
        known = [ts for ts in (self._heard_until, last_ts) if 0 < ts <= until_ts]
        return max(known, default=min(last_ts, until_ts))

    def carried_on(self, carrier: int) -> None:
        """Another socket goes on with the stream, and nothing is missing in between."""
        self.carrier = carrier
        if self._listening_on:
            self.stop_listening(CoverageEnd.HANDOVER, max(self.newest_ts, self._began_ts))
            self._listen(self._heard_until)

    def let_go(self) -> None:
        """What comes is kept for another process to go on with, or for this one to take back."""
        self.is_let_go, self.was_heard = True, self.is_heard
        self.stop_listening(CoverageEnd.HANDOVER, max(self.newest_ts, self._began_ts))

    def goes_on(self, carrier: int) -> None:
        """It goes on where it was let go of, there or here, and nothing is missing in between."""
        self.carrier, self.is_let_go = carrier, False
        if self.was_heard and not self._listening_on:
            self._listen(self._heard_until)

    def _listen(self, at: int) -> None:
        self._listening_on = self.carrier or 1
        self._began_ts = at
        self.coverage.began(self.slot, self._listening_on, at, self._heard_until)
        self._heard_until = 0

    def stop_listening(self, end: CoverageEnd, until: int) -> None:
        """The stream is not heard any more, only up to `until` (venue time; 0: since it began)."""
        if self._listening_on:
            self._heard_until = until or self._began_ts
            # A row may claim to be of the future.
            at = min(self._heard_until, max(self._began_ts, wall_ns()))
            self.coverage.ended(self.slot, self._listening_on, at, end)
            self._listening_on = 0


def _note_unforeseen(stream: Life, event: str) -> None:
    """Log the 1st, 2nd, 4th, 8th, … of its kind, so that a flood does not fill the log."""
    UNFORESEEN[event, stream.state] += 1
    seen = UNFORESEEN[event, stream.state]
    if seen & (seen - 1) == 0:
        _log.warning(
            "%s: unforeseen: %r while it is %s (%d so far); please report this",
            stream.key, event, stream.state, seen,
        )  # fmt: skip
