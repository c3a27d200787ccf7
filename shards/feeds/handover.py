"""A stream on its way to its next socket, while its present one still delivers.

Both sockets bring the same rows, the one a little before the other. The present one goes on storing
them; what the next one brings is kept here, until it certainly goes on from what is stored: each
kind of stream says when that is so (`Feed.following`). Then the next one takes over, with what
was kept and is not stored yet, and nothing is lost or repeated. The hot path knows nothing of this:
a decoder finds a `Handover` where it would find the stream.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import GapReason
from engine.messages.streams import StreamState
from shards.feeds.feed import Feed, Frame
from shards.feeds.passing.kept import KEPT_MAX, KeptFrames

_PATIENCE_S: Final = 30.0
"""For so long after its subscription the next socket may take to join."""
_SETTLED_S: Final = 5.0
"""Rows pushed before a subscription took effect have come through the present socket by then."""
_CONFIRMED_S: Final = 5.0
"""A socket that was silent and has not brought within that what another one has, is deaf."""


class Handover(KeptFrames):
    """Takes the frames of one stream on its next socket.

    `on_over` is called once, when the stream belongs to the next socket; its argument says whether
    it starts anew there, because rows may be missing in between.

    `ask_again` has the next socket subscribe once more, when it has brought nothing.

    With `is_for_silence` the present socket is suspected to bring nothing any more; the next one
    may take as long as it likes, for the instrument may be quiet.
    """

    def __init__(
        self,
        stream: Feed,
        on_over: Callable[[bool], None],
        ask_again: Callable[[], None],
        *,
        is_for_silence: bool = False,
    ) -> None:
        super().__init__(stream)
        self.is_for_silence = is_for_silence
        self._on_over = on_over
        self._ask_again = ask_again
        self._subscribed_s = math.inf
        self._first_s = math.inf
        self._heard_ns = 0

    def _kept(self) -> None:
        now_s = monotonic_s()
        self._first_s = min(self._first_s, now_s)
        # Sockets of one venue are not further apart than this.
        if not self._try(now_s) and len(self._frames) > KEPT_MAX:
            self._break("its two sockets are too far apart", 0.0)

    def subscribed(self, now_s: float) -> None:
        """The next socket has asked for the stream."""
        if self._subscribed_s == math.inf:
            self._subscribed_s = now_s
            self._heard_ns = self.stream.last_recv_ns

    def start_over(self) -> None:
        """The next socket is gone; it comes back. The present one goes on."""
        self._forget()
        self._subscribed_s = self._first_s = math.inf

    def lost(self, reason: str, silent_s: float) -> None:
        """The present socket is gone, and for its last `silent_s` seconds it brought nothing."""
        if not self._try(monotonic_s()):
            self._break(reason, silent_s)

    def tick(self, now_s: float) -> None:
        """Called a few times a second: the present socket may have caught up, or time is up."""
        if self._try(now_s):
            return
        is_stale = self.stream.state is StreamState.STALE
        if is_stale and now_s - self._first_s > _CONFIRMED_S:
            self._break("it fell silent on its socket", 0.0, blame=GapReason.SILENCE)
            return
        if self.is_for_silence or now_s - self._subscribed_s < _PATIENCE_S:
            return
        if self._frames:
            self._break("its next socket does not join", 0.0)
        elif self.stream.last_recv_ns == self._heard_ns:
            self._hand_over((), anew=False)  # both are quiet: nothing was missed
        else:  # the present socket is better than none
            self._subscribed_s, self._heard_ns = now_s, self.stream.last_recv_ns
            self._ask_again()

    def _try(self, now_s: float) -> bool:
        """Hand over if nothing can be missing; tell whether that was so."""
        stream, frames = self.stream, self._frames
        following: Sequence[Frame] | None = None
        if stream.in_any_order:
            following = frames if now_s - self._subscribed_s > _SETTLED_S else None
        elif frames:
            following = stream.following(frames) if stream.has_data else frames
        if following is None:
            return False
        self._hand_over(following, anew=False)
        return True

    def _break(self, why: str, silent_s: float, *, blame: GapReason | None = None) -> None:
        """Hand over without proof: the stream declares what its ids do not disprove."""
        self.stream.cut(why, silent_s, blame=blame)
        self._hand_over(self._frames, anew=True)

    def _hand_over(self, frames: Sequence[Frame], *, anew: bool) -> None:
        def before() -> None:
            self._on_over(anew)
            self.stream.handed_over(wall_ns())

        self._end(frames, before)
