"""Best bid and offer, as often as it changes.

The venue's number (an update id, or its time) orders the quotes and counts other
things as well, so a jump says nothing: only what is missed while disconnected is declared, as
unprovable. A side without an order has price and quantity 0.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

from engine.data.flags import GapReason, GapState
from engine.data.kinds import QUOTE
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec
from shards.feeds.declared.gaps import Edges, GapLedger
from shards.feeds.feed import Feed, Frame, is_renumbered, is_set_back

_PACK_QUOTE: Final = QUOTE.packer()
_NONE_YET: Final = -1


class Quotes(Feed):
    """Quotes whose number never goes back; one that repeats the last quote is dropped."""

    kind: ClassVar = QUOTE
    heirlooms: ClassVar = {
        "_last_seq": int, "_content": tuple[float, float, float, float] | None,
    }  # fmt: skip

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._last_seq = last.id if last else _NONE_YET
        self._content: tuple[float, float, float, float] | None = None

    @property
    def frame_count(self) -> int:
        """One frame a quote: counting them apart would cost the hot path."""
        return self._frame_count + self.row_count + self.duplicate_count

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """Those from the last one stored on: it is refused as repeated, but was heard. Quotes may
        share a number, so that very one is looked for.
        """
        last_seq = self._last_seq
        if frames[0][0] > last_seq:
            return None
        for index in reversed(range(len(frames))):
            seq, _, _, content = frames[index]
            if seq == last_seq and content == self._content:
                return frames[index:]
        if frames[-1][0] <= last_seq:
            return None  # it is about to come
        return [frame for frame in frames if frame[0] >= last_seq]

    def on_quote(
        self, seq: int, ts_event: int, ts_recv: int, content: tuple[float, float, float, float]
    ) -> None:
        """Take (bid, bid quantity, ask, ask quantity), checked by the venue's decoder."""
        self.last_recv_ns = ts_recv
        if (seq <= self._last_seq or not self.has_data) and not self._accept(
            seq, ts_event, ts_recv, content
        ):
            return
        self._last_seq = seq
        self._last_ts = ts_event
        self._content = content
        ring = self.ring
        slot_seq = ring.reserve()
        if slot_seq < 0:
            self.dropped(seq, ts_event, 1)
            return
        flags = self.next_flags and self.settle(ts_recv)
        _PACK_QUOTE(
            ring.buffer, ring.offset_of(slot_seq), self.slot, flags, ts_event, ts_recv, seq,
            *content,
        )  # fmt: skip
        self.row_count += 1

    def _accept(
        self, seq: int, ts_event: int, ts_recv: int, content: tuple[float, float, float, float]
    ) -> bool:
        """First quote on a connection, or a number that does not grow. False: nothing new."""
        last_seq, last_ts = self._last_seq, self._last_ts
        repeats = seq == last_seq and self._content in (None, content)
        set_back = seq < last_seq and is_set_back(ts_event, last_ts)
        renumbered = seq < last_seq and is_renumbered(seq, last_seq, ts_event, last_ts)
        if set_back:
            edges = Edges(0, 0, ts_event, ts_event, -1)
            self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, ts_recv)
        elif repeats:
            self.duplicate_count += 1
        elif seq < last_seq and not renumbered:
            if not self.came_late(ts_event, 1, ts_recv):
                return False
        elif renumbered:
            edges = Edges(0, 0, last_ts, ts_event, -1)
            self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, ts_recv)
        elif not self.has_data and last_seq != _NONE_YET:
            from_ts = self.missed_since(last_ts, ts_event)
            # Quotes may share a number: others of the last one's and of this one's may be missing.
            edges = Edges(last_seq, seq, from_ts, ts_event, -1)
            self.declare(self.blame, GapState.UNPROVABLE, edges, ts_recv)
        if not self.has_data:
            self.accepted(ts_event)
        return not repeats
