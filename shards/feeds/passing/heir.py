"""The two ends of a stream that passes from one shard to the next, both with an open socket.

The next shard keeps what its socket brings (`Heir`), and says so. The present one stops storing,
tells all that it knows, and keeps what still comes (`LetGo`). If what the heir has kept goes on
from there, it takes over, and the present shard drops the stream; if not, that takes it back with
what it has kept, and nothing has happened. Whoever dies, each row is in one of the two shards'
rings or in none, and then a gap names it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from engine.base.clock import monotonic_s, wall_ns
from shards.feeds.feed import Feed, Frame
from shards.feeds.passing.baton import inherit
from shards.feeds.passing.kept import KEPT_MAX, KeptFrames

_JOINED_S: Final = 0.3
"""Two sockets of one machine are seldom further apart; then the heir is refused, and asks again."""
_QUIET_S: Final = 3.0
"""A socket that has brought nothing for so long has nothing to bring."""
_SETTLED_S: Final = 5.0
"""Rows pushed before a subscription took effect have come through the other socket by then."""


class Heir(KeptFrames):
    """Takes the frames of a stream that another process still has. `ask_again` has its socket
    subscribe once more, where more came than can be kept.
    """

    def __init__(self, stream: Feed, ask_again: Callable[[], None]) -> None:
        super().__init__(stream)
        self._ask_again = ask_again
        self._subscribed_s = self._first_s = math.inf
        self._subscribed_ns = 0
        self._looked_ns = -1
        """When the stream was heard last, as its process said when it was asked last."""

    def subscribed(self, now_s: float) -> None:
        """Its socket has asked for the stream."""
        if self._subscribed_s == math.inf:
            self._subscribed_s, self._subscribed_ns = now_s, wall_ns()

    def start_over(self) -> None:
        """Its socket is gone, and comes back."""
        self._forget()
        self._subscribed_s = self._first_s = math.inf
        self._looked_ns = -1

    def _kept(self) -> None:
        self._first_s = min(self._first_s, monotonic_s())
        if len(self._frames) > KEPT_MAX:
            self.start_over()
            self._ask_again()

    def has_joined(self, now_s: float) -> bool:
        """Whether what it has kept probably goes on from what is stored by now."""
        if self.stream.in_any_order:
            return now_s - self._subscribed_s > _SETTLED_S
        if self._frames:
            return now_s - self._first_s > _JOINED_S
        return now_s - self._subscribed_s > _QUIET_S

    def take_over(self, said: str, before: Callable[[], None], *, is_sure: bool) -> bool:
        """Go on from what the stream's process has said, if what was kept goes on from there; tells
        whether it does. With `is_sure` it takes over in any case, for nobody else has the stream:
        ids tell what is missing. `before` is called once nothing can prevent it.
        """
        inherit(self.stream, said)
        frames = self.stream.as_first(self._frames) if is_sure else self._following()
        if frames is None:
            return False

        def is_next() -> None:
            before()
            self.stream.handed_over(wall_ns())

        self._end(frames, is_next)
        return True

    def _following(self) -> Sequence[Frame] | None:
        if self._subscribed_s == math.inf:
            return None
        if self.stream.in_any_order:
            return self._frames
        if self._frames:
            return self.stream.following(self._frames)
        # Both are quiet: nothing was missed, as far as this one was subscribed meanwhile.
        heard_ns = self.stream.last_recv_ns
        is_quiet = heard_ns <= self._subscribed_ns or heard_ns == self._looked_ns
        self._looked_ns = heard_ns
        return () if is_quiet else None


class LetGo(KeptFrames):
    """Keeps what still comes of a stream that another process is about to go on with."""

    def __init__(self, stream: Feed) -> None:
        super().__init__(stream)
        self.has_lost = False
        """Whether more came than could be kept."""

    def _kept(self) -> None:
        if len(self._frames) > KEPT_MAX:
            self._forget()
            self.has_lost = True

    def take_back(self, before: Callable[[], None]) -> None:
        """Go on as if nothing had been."""
        self._end(self._frames, before)
