"""A venue's limits as a table, and meters of what was used of one within its window."""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from engine.base.clock import monotonic_ns, wall_ns

__all__ = [
    "CONNECTS",
    "MESSAGES",
    "MINUTE_NS",
    "NAME_CHARS",
    "REQUESTS",
    "SECOND_NS",
    "SOCKETS",
    "SUBSCRIPTIONS",
    "TOPICS",
    "WEIGHT",
    "ClockMeter",
    "Meter",
    "Per",
    "Then",
    "VenueLimit",
    "Window",
    "meter_of",
    "now_ms",
]  # fmt: skip

SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS

CONNECTS: Final = "connects"
"""Handshakes, refused or not."""
MESSAGES: Final = "messages"
"""Whatever a client sends on a socket."""
REQUESTS: Final = "requests"
"""Messages that subscribe or unsubscribe."""
WEIGHT: Final = "weight"
"""Of REST calls. A call may be of a pool with another name (`ServedCall.pool`)."""
SOCKETS: Final = "sockets"
SUBSCRIPTIONS: Final = "subscriptions"
NAME_CHARS: Final = "name_chars"
"""Characters in the names of all topics that are subscribed."""
TOPICS: Final = "topics"
"""How many a request names."""


class Per(Enum):
    """Whose use is counted together."""

    ADDRESS = "address"
    SOCKET = "socket"
    REQUEST = "request"


class Then(Enum):
    """What a venue does to who exceeds a limit."""

    REFUSE = "refuses"
    """It answers with an HTTP error, or on a socket says why (`Encoder.over`)."""
    HANG_UP = "hangs up"
    """It says why, if it has words for it, and ends the socket."""
    NOTHING = "advises"


class Window(Enum):
    """Which seconds a limit is for."""

    SLIDES = "any"
    """All that are so long: what a venue does not say is taken for the strictest."""
    TURNS = "of the clock"
    """Those that begin at a multiple of their length."""
    FILLS = "refill"
    """A pool of `most` that fills up evenly, from nothing to all of it in so many seconds."""


@dataclass(frozen=True, slots=True)
class VenueLimit:
    """One of a venue's limits: at most so much of something."""

    what: str
    most: int
    window_s: float = 0.0
    """0: at once."""
    per: Per = Per.ADDRESS
    then: Then = Then.REFUSE
    window: Window = Window.SLIDES
    shared: str = ""
    """Venues that say the same name here have it together."""
    is_rule: bool = False
    """Whether a simulator that enforces no limits keeps it nevertheless."""


class Meter:
    """What was used of a limit within the window that ends now."""

    __slots__ = ("_spent", "_used", "_window_ns", "peak", "total")

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._used = 0.0
        self._spent: deque[tuple[int, int]] = deque()
        self.peak = 0
        self.total = 0

    def add(self, amount: int = 1) -> int:
        """Add to the window and give its sum, in whole units."""
        self._pass()
        self._used += amount
        self._keep(amount)
        self.total += amount
        self.peak = max(self.peak, self.used())
        return self.used()

    def used(self) -> int:
        """Give the sum of the window; of a part that has not been filled up again, all."""
        self._pass()
        return -int(-self._used // 1)

    def left_s(self) -> int:
        """Give the whole seconds until something of it is free again, at least one."""
        if not self._spent:
            return 1
        return max(1, -(-(self._spent[0][0] + self._window_ns - monotonic_ns()) // SECOND_NS))

    def _keep(self, amount: int) -> None:
        self._spent.append((monotonic_ns(), amount))

    def _pass(self) -> None:
        """Forget what the window has left behind."""
        begins_ns = monotonic_ns() - self._window_ns
        while self._spent and self._spent[0][0] <= begins_ns:
            self._used -= self._spent.popleft()[1]


class ClockMeter(Meter):
    """Of windows that begin at a multiple of their length."""

    __slots__ = ("_turn",)

    def __init__(self, window_ns: int) -> None:
        super().__init__(window_ns)
        self._turn = 0

    def left_s(self) -> int:
        return -(-(self._window_ns - wall_ns() % self._window_ns) // SECOND_NS)

    def _keep(self, amount: int) -> None:
        return

    def _pass(self) -> None:
        turn = wall_ns() // self._window_ns
        if turn != self._turn:
            self._turn, self._used = turn, 0.0


class PoolMeter(Meter):
    """Of a pool that fills up evenly."""

    __slots__ = ("_at_ns", "_per_ns")

    def __init__(self, window_ns: int, most: int) -> None:
        super().__init__(window_ns)
        self._at_ns = monotonic_ns()
        self._per_ns = most / window_ns

    def _keep(self, amount: int) -> None:
        return

    def _pass(self) -> None:
        now_ns = monotonic_ns()
        self._used = max(0.0, self._used - (now_ns - self._at_ns) * self._per_ns)
        self._at_ns = now_ns


def meter_of(limit: VenueLimit) -> Meter:
    """Open a meter for a limit in a time."""
    window_ns = int(limit.window_s * 1e9)
    if limit.window is Window.FILLS:
        return PoolMeter(window_ns, limit.most)
    return (ClockMeter if limit.window is Window.TURNS else Meter)(window_ns)


def now_ms() -> int:
    """Give the time of the venues, ms."""
    return wall_ns() // 1_000_000
