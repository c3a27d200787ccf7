"""Which subscription made the venue hang up, where a venue does that and does not say why.

Hyperliquid drops a connection, with everything on it, for a coin it does not know. Coins come from
its own listing, but a listing may be ahead of the sockets. So after a cut, what had been subscribed
a moment before is tried again alone; who is alone when the venue hangs up once more is left out for
a while. Pure: time comes in as an argument.
"""

from collections.abc import Iterable
from typing import Final

MOMENT_S: Final = 1.0
"""The venue hangs up a tenth of a second after it reads the name."""
_LEFT_OUT_S: Final = 300.0


class Suspects:
    """The topics of one connection."""

    def __init__(self) -> None:
        self._sent_s: dict[str, float] = {}
        self._suspected: set[str] = set()
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
        if len(recent) == 1 and recent[0] in self._suspected:
            self._suspected.discard(recent[0])
            self._left_out[recent[0]] = now_s + _LEFT_OUT_S
            return recent[0]
        self._suspected.update(recent)
        return None

    def must_go_alone(self, topic: str) -> bool:
        """Whether nothing else may be subscribed in the same moment."""
        return topic in self._suspected

    def pause_s(self, now_s: float) -> float:
        """Seconds until what was sent last is above suspicion."""
        last_s = max(self._sent_s.values(), default=float("-inf"))
        return max(last_s + MOMENT_S - now_s, 0.0)

    def cleared(self, topic: str) -> None:
        """It was subscribed, and the socket lives."""
        self._suspected.discard(topic)

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
        self._suspected.discard(topic)
        self._left_out.pop(topic, None)
