"""Which subscription made the venue hang up, where a venue does that and does not say why.

A venue may drop a connection, with everything on it, for a coin it does not know. Coins come from
its own listing, but a listing may be ahead of the sockets. So after a cut, what had been subscribed
a moment before is tried again alone; who is alone when the venue hangs up, and again when it is
tried once more, is left out for a while: seconds at first, for networks cut sockets as well. Pure:
time comes in as an argument.
"""

from collections.abc import Iterable
from typing import Final

MOMENT_S: Final = 0.5
"""The venue hangs up a tenth of a second after it reads the name."""
_STRIKES: Final = 2
_LEFT_OUT_S: Final = 10.0
_LEFT_OUT_S_MAX: Final = 300.0


class Hangups:
    """The topics of one connection."""

    def __init__(self) -> None:
        self._sent_s: dict[str, float] = {}
        self._suspected: set[str] = set()
        self._strikes: dict[str, int] = {}
        self._left_out: dict[str, float] = {}

    def opened(self) -> None:
        """A new socket, on which nothing has been sent."""
        self._sent_s.clear()

    def sent(self, topics: Iterable[str], now_s: float) -> None:
        """These were just subscribed."""
        self._sent_s.update(dict.fromkeys(topics, now_s))

    def hung_up(self, now_s: float) -> str | None:
        """The venue ended the socket. Returns the topic that did it, once that is certain."""
        recent = [topic for topic, at_s in self._sent_s.items() if now_s - at_s < MOMENT_S]
        if len(recent) != 1 or recent[0] not in self._suspected:
            self._suspected.update(recent)
            return None
        (topic,) = recent
        strikes = self._strikes[topic] = self._strikes.get(topic, 0) + 1
        if strikes < _STRIKES:
            return None
        self._leave_out(topic, now_s)
        return topic

    def refused(self, topic: str, now_s: float) -> None:
        """The venue said no to this topic: the same follows as if it had hung up for it again."""
        self._strikes[topic] = max(self._strikes.get(topic, 0) + 1, _STRIKES)
        self._leave_out(topic, now_s)

    def _leave_out(self, topic: str, now_s: float) -> None:
        self._suspected.discard(topic)
        wait_s = _LEFT_OUT_S * 2.0 ** min(self._strikes[topic] - _STRIKES, 10)
        self._left_out[topic] = now_s + min(wait_s, _LEFT_OUT_S_MAX)

    def must_go_alone(self, topic: str) -> bool:
        """Whether nothing else may be subscribed in the same moment."""
        return topic in self._suspected

    def pause_s(self, now_s: float) -> float:
        """Seconds until what was sent last is above suspicion."""
        last_s = max(self._sent_s.values(), default=float("-inf"))
        return max(last_s + MOMENT_S - now_s, 0.0)

    def cleared(self, topic: str) -> None:
        """It was subscribed, and the socket lives. Of one that was refused that says nothing."""
        if topic not in self._left_out:
            self._suspected.discard(topic)
            self._strikes.pop(topic, None)

    def is_left_out(self, topic: str) -> bool:
        """Whether it must not be subscribed now."""
        return topic in self._left_out

    def due_again(self, now_s: float) -> list[str]:
        """Topics that were left out long enough; they are tried alone."""
        due = [topic for topic, until_s in self._left_out.items() if now_s >= until_s]
        for topic in due:
            del self._left_out[topic]
            self._suspected.add(topic)
        return due

    def forget(self, topic: str) -> None:
        """Nobody wants it any more."""
        self._left_out.pop(topic, None)
        self.cleared(topic)
