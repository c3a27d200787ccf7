"""What clients used of a venue's limits, counted by window, and the refusals of its REST side.

Every call is charged before it is answered, refused ones too. Above the limit of a minute the
answer is 429 with the seconds to wait; a client that goes on regardless is banned with 418, twice
as long each time. Nothing is refused for its weight until a simulator is told to enforce limits.
"""

from dataclasses import dataclass, field

from aiohttp import web

from engine.base.clock import monotonic_ns, wall_ns

__all__ = ["MINUTE_NS", "SECOND_NS", "Meter", "RestGate", "now_ms"]

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS

FUNDING_CALLS = 500
"""Binance answers so many `fundingInfo` and `fundingRate` calls in 5 minutes."""

TOLERATED_VIOLATIONS = 10
"""Calls refused with 429 in one minute before the ban."""


class Meter:
    """A running sum that starts anew with each window, as venues' budgets do."""

    __slots__ = ("_used", "_window", "_window_ns", "peak", "total")

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._window = 0
        self._used = 0
        self.peak = 0
        self.total = 0

    def add(self, amount: int = 1) -> int:
        """Add to the current window and give its sum."""
        self._used = self.used() + amount
        self.total += amount
        self.peak = max(self.peak, self._used)
        return self._used

    def used(self) -> int:
        """Give the sum of the current window."""
        window = wall_ns() // self._window_ns
        if window != self._window:
            self._window, self._used = window, 0
        return self._used

    def left_s(self) -> int:
        """Give the whole seconds until the next window, at least one."""
        return -(-(self._window_ns - wall_ns() % self._window_ns) // SECOND_NS)


@dataclass(slots=True)
class RestGate:
    """Counts weight per wall-clock minute and refuses calls when it must or is told to."""

    weight_header: str | None
    weight_limit: int
    bans: bool
    """Whether the venue bans with 418 and says in `Retry-After` how long to wait."""
    enforced: bool = False
    ban_s: float = 120.0
    refuse_count: int = 0
    refuse_status: int = 429
    retry_after_s: int = 1
    stale_count: int = 0
    """How many more depth calls answer with a snapshot that fits no event."""
    weight: Meter = field(default_factory=lambda: Meter(MINUTE_NS))
    funding_calls: Meter = field(default_factory=lambda: Meter(5 * MINUTE_NS))
    calls: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    """Refusals by HTTP status."""
    _violations: Meter = field(default_factory=lambda: Meter(MINUTE_NS))
    _banned_until_ns: int = 0

    def headers(self) -> dict[str, str]:
        """Give the header that says what has been used."""
        return {self.weight_header: str(self.weight.used())} if self.weight_header else {}

    def admit(self, weight: int) -> web.Response | None:
        """Charge a call; give the error answer it must get, if any."""
        self.calls += 1
        self.weight.add(weight)
        if self.refuse_count > 0:
            self.refuse_count -= 1
            wait_s = self.retry_after_s if self.refuse_status < 500 else None
            return self._refuse(self.refuse_status, wait_s)
        return self._over_limit() if self.enforced else None

    def admit_funding(self) -> web.Response | None:
        """The same for a call of no weight that has a limit of its own."""
        over = self.funding_calls.add() > FUNDING_CALLS
        if over and self.enforced:
            self.calls += 1
            return self._refuse(429, self.funding_calls.left_s())
        return self.admit(0)

    def _over_limit(self) -> web.Response | None:
        banned_ns = self._banned_until_ns - monotonic_ns()
        if banned_ns > 0:
            return self._refuse(418, -(-banned_ns // 1_000_000_000))
        if self.weight.used() <= self.weight_limit:
            return None
        if not self.bans:
            return self._refuse(429, None)
        if self._violations.add() <= TOLERATED_VIOLATIONS:
            return self._refuse(429, self.weight.left_s())
        ban_s, self.ban_s = self.ban_s, 2 * self.ban_s
        self._banned_until_ns = monotonic_ns() + int(ban_s * 1e9)
        return self._refuse(418, -int(-ban_s // 1))

    def _refuse(self, status: int, wait_s: int | None) -> web.Response:
        self.refused[status] = self.refused.get(status, 0) + 1
        headers = self.headers()
        if wait_s is not None:
            headers["Retry-After"] = str(wait_s)
        return web.json_response(
            {"code": -1003, "msg": "Too many requests."}, status=status, headers=headers
        )

    def take_stale(self) -> bool:
        """Use up one stale depth answer, if one is due."""
        if self.stale_count <= 0:
            return False
        self.stale_count -= 1
        return True

    def status(self) -> dict[str, object]:
        """Tell what was used and refused, as JSON."""
        return {
            "calls": self.calls,
            "weight_used": self.weight.used(),
            "weight_peak_per_minute": self.weight.peak,
            "weight_limit": self.weight_limit,
            "funding_calls": self.funding_calls.total,
            "enforced": self.enforced,
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
        }


def now_ms() -> int:
    """Give the time of the venues, ms."""
    return wall_ns() // 1_000_000
