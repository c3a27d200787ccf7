"""The REST side of a venue's limits: every call is charged before it is answered, refused ones too.

Above a limit the answer is an error. Where the venue bans, that is 429 with the seconds to wait,
and a client that goes on regardless is banned with 418, twice as long each time.
"""

from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from engine.base.clock import monotonic_ns
from shards.simulator.core.limits.table import MINUTE_NS, WEIGHT, ClockMeter, Meter
from shards.simulator.core.limits.use import LimitBook

__all__ = ["TOLERATED_VIOLATIONS", "RestGate"]

TOLERATED_VIOLATIONS: Final = 10
"""Calls refused with 429 in one minute before the ban."""

_BUSY: Final = b'{"code": -1003, "msg": "Too many requests."}'
_BROKEN: Final = b'{"code": -1001, "msg": "Internal error."}'


@dataclass(slots=True)
class RestGate:
    """Charges calls, and refuses some when it must or is told to."""

    limits: LimitBook
    weight_header: str | None = None
    bans: bool = False
    """Whether the venue bans with 418 and says in `Retry-After` how long to wait."""
    busy: tuple[int, bytes] = (429, _BUSY)
    """Status and body of the answer to a call above a limit."""
    ban_s: float = 120.0
    refuse_count: int = 0
    refuse_status: int = 429
    retry_after_s: int = 1
    stale_count: int = 0
    """How many more depth calls answer with a snapshot that fits no event."""
    calls: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    """Refusals by HTTP status."""
    own_calls: int = 0
    """Calls of pools beside that of weight."""
    _violations: Meter = field(default_factory=lambda: ClockMeter(MINUTE_NS))
    _banned_until_ns: int = 0

    @property
    def weight(self) -> Meter | None:
        """What was used of the weight, where that is limited."""
        return self.limits.meter(WEIGHT)

    @property
    def weight_limit(self) -> int:
        """The most of it; 0 without a limit."""
        limit = self.limits.limit(WEIGHT)
        return 0 if limit is None else limit.most

    def headers(self) -> dict[str, str]:
        """Give the header that says what has been used."""
        weight = self.weight
        return {self.weight_header: str(weight.used())} if self.weight_header and weight else {}

    def admit(self, weight: int, pool: str = WEIGHT) -> web.Response | None:
        """Charge a call; give the error answer it must get, if any."""
        self.calls += 1
        self.own_calls += pool != WEIGHT
        over = self.limits.spend(pool, weight)
        if self.refuse_count > 0:
            self.refuse_count -= 1
            if self.refuse_status >= 500:
                return self._refuse(self.refuse_status, None, _BROKEN)
            return self._refuse(self.refuse_status, self.retry_after_s, _BUSY)
        banned_ns = self._banned_until_ns - monotonic_ns()
        if banned_ns > 0 and self.limits.enforced:
            return self._refuse(418, -(-banned_ns // 1_000_000_000), _BUSY)
        return None if over is None else self._over(pool)

    def charge(self, extra_weight: int) -> None:
        """Charge what a call cost beyond what was known before."""
        if extra_weight:
            self.limits.spend(WEIGHT, extra_weight)

    def _over(self, pool: str) -> web.Response:
        meter = self.limits.meter(pool)
        if not self.bans or meter is None:
            return self._refuse(self.busy[0], None, self.busy[1])
        if pool != WEIGHT or self._violations.add() <= TOLERATED_VIOLATIONS:
            return self._refuse(429, meter.left_s(), _BUSY)
        ban_s, self.ban_s = self.ban_s, 2 * self.ban_s
        self._banned_until_ns = monotonic_ns() + int(ban_s * 1e9)
        return self._refuse(418, -int(-ban_s // 1), _BUSY)

    def _refuse(self, status: int, wait_s: int | None, body: bytes) -> web.Response:
        self.refused[status] = self.refused.get(status, 0) + 1
        headers = self.headers()
        if wait_s is not None:
            headers["Retry-After"] = str(wait_s)
        is_json = body[:1] == b"{"
        content_type = "application/json" if is_json else "text/plain"
        return web.Response(body=body, status=status, headers=headers, content_type=content_type)

    def take_stale(self) -> bool:
        """Use up one stale depth answer, if one is due."""
        if self.stale_count <= 0:
            return False
        self.stale_count -= 1
        return True

    def status(self) -> dict[str, object]:
        """Tell what was used and refused, as JSON."""
        weight = self.weight
        return {
            "calls": self.calls,
            "weight_used": weight.used() if weight else 0,
            "weight_peak_per_minute": weight.peak if weight else 0,
            "weight_limit": self.weight_limit,
            "funding_calls": self.own_calls,
            "enforced": self.limits.enforced,
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
        }
