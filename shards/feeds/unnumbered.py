"""Streams whose rows are known by their time alone: the venue numbers nothing here.

What is missed while nobody listens cannot be counted, so it is an unprovable gap between two times.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from engine.base.clock import monotonic_ns
from engine.data.flags import CoverageEnd, GapReason, GapState
from engine.data.names import Transport
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.declared.coverage import LATE_NS
from shards.feeds.declared.gaps import Edges, GapLedger
from shards.feeds.feed import Feed, Frame, is_set_back


class UnnumberedFeed(Feed):
    """Accepts rows in the order of their time and declares what lies between two connections."""

    heirlooms: ClassVar = {"_before_last_ts": int, "due_s": float}
    silence_is_loss: ClassVar = True
    _rows_per_element: ClassVar = 1

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._before_last_ts = 0
        self._content: Any = None
        self._clock_ns = 0
        self.due_s = 0.0
        """While it is let go of: when its next sample is due (monotonic, on one machine the same
        for all processes); 0 where it is not polled."""

    def tick(self, now_ns: int) -> None:
        """Also: where times are those of our own clock, and it was set, listening begins anew."""
        super().tick(now_ns)
        clock_ns, self._clock_ns = self._clock_ns, now_ns - monotonic_ns()
        was_set = abs(self._clock_ns - clock_ns) > LATE_NS and clock_ns
        if was_set and self.is_heard and self._is_own_clock:
            self.stop_listening(CoverageEnd.SILENCE, self.newest_ts)
            self._heard_until = 0
            self._listen(self._begins_anew(now_ns))

    def _begins_anew(self, now_ns: int) -> int:
        """From when on it is heard after our clock was set, in the time of its rows."""
        return now_ns

    @property
    def _is_own_clock(self) -> bool:
        return self._last_ts == self.last_recv_ns

    @property
    def since_ms(self) -> int:
        """From when on (ms) its venue is asked for rows, where a call says it."""
        return self._last_ts // 1_000_000

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """All, once a row as new as the first is stored. Where rows are stamped by our own clock,
        which differs between two sockets, those after the one that says what the last one said.
        """
        ts_event, ts_recv = frames[0][:2]
        if ts_event != ts_recv:
            return frames if ts_event <= self._last_ts else None
        for index in reversed(range(len(frames))):
            if self._content_of(frames[index]) == self._content:
                return frames[index + 1 :]
        return None

    def _content_of(self, frame: Frame) -> Any:
        """What a frame says, as `_accept` is given it."""
        return frame[2]

    def _accept(self, ts_event: int, ts_recv: int, content: Any) -> bool:
        """Whether a row is new. A pushed one that repeats the last one's time and content is not,
        nor is an older one. A row stamped by our own clock is never old: that clock may be set
        back. Nor is a polled one: it is what the venue said when it was asked, once more.
        """
        self._frame_count += 1
        self.last_recv_ns = ts_recv
        is_own_clock = ts_event == ts_recv
        is_sample = is_own_clock or self.key.transport is Transport.HTTP_POLL
        is_late = ts_event < self._last_ts and not is_sample
        set_back = not is_own_clock and is_set_back(ts_event, self._last_ts)
        if set_back:
            edges = Edges(0, 0, ts_event, ts_event, -1)
            self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, ts_recv)
        elif is_late and not self.came_late(ts_event, self._rows_per_element, ts_recv):
            return False
        set_back = set_back or is_late
        is_new = (
            is_sample
            or set_back
            or ts_event > self._last_ts
            or self._content not in (None, content)
        )
        if set_back:
            pass  # that is on record
        elif not is_new:
            self.duplicate_count += self._rows_per_element
        elif not self.has_data and self._last_ts:
            from_ts = min(self._gap_from(is_own_clock=is_own_clock), ts_event)
            edges = Edges(0, 0, from_ts, ts_event, -1)
            self.declare(self.blame, GapState.UNPROVABLE, edges, ts_recv)
        if is_new:
            self._before_last_ts = self._last_ts
        self._last_ts = ts_event if set_back or is_own_clock else max(self._last_ts, ts_event)
        self._content = content
        if not self.has_data or self.state is not StreamState.LIVE:
            self.accepted(ts_event)
        return is_new

    def heard_until(self, silent_s: float) -> int:
        """What comes at a steady pace is heard up to its last row: if a later one is missing, that
        is when nobody can say since when.
        """
        return self._gap_from(is_own_clock=self._is_own_clock)

    def _gap_from(self, *, is_own_clock: bool) -> int:
        """Where a gap after the last row begins."""
        from_ts = self._last_ts
        if is_own_clock and self.key.transport is Transport.WS:
            # What followed the last row may have left the venue before that one came.
            from_ts = min(max(self._before_last_ts, from_ts - LATE_NS), from_ts)
        return from_ts

    def _store(
        self, ring: RingProducer, pack: Callable[..., None], ts_event: int, ts_recv: int, *rest: Any
    ) -> None:
        """Put one row into `ring`: slot, flags, then `rest` as `pack` wants it."""
        seq = ring.reserve()
        if seq < 0:
            self.dropped(0, ts_event, 1)  # no ids: the span of time names the rows
            return
        flags = self.next_flags and self.settle(ts_recv)
        pack(ring.buffer, ring.offset_of(seq), self.slot, flags, *rest)
        self.row_count += 1
