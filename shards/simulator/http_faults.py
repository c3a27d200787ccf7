"""Refusals and used weight of a venue's REST side."""

from dataclasses import dataclass

from aiohttp import web

from engine.clock import wall_ns

__all__ = ["RestGate"]

_MINUTE_NS = 60_000_000_000


@dataclass(slots=True)
class RestGate:
    """Counts weight per wall-clock minute and refuses the next calls when told to."""

    weight_header: str | None
    refuse_count: int = 0
    refuse_status: int = 429
    retry_after_s: int = 1
    stale_count: int = 0
    """How many more depth calls answer with a snapshot that fits no event."""
    calls: int = 0
    _minute: int = 0
    _used: int = 0

    def headers(self, weight: int) -> dict[str, str]:
        """Charge a call and give the header that says so."""
        self.calls += 1
        minute = wall_ns() // _MINUTE_NS
        if minute != self._minute:
            self._minute, self._used = minute, 0
        self._used += weight
        return {self.weight_header: str(self._used)} if self.weight_header else {}

    def refusal(self) -> web.Response | None:
        """Give the error answer this call must get, if any."""
        if self.refuse_count <= 0:
            return None
        self.refuse_count -= 1
        headers = self.headers(1)
        if self.refuse_status < 500:
            headers["Retry-After"] = str(self.retry_after_s)
        return web.json_response(
            {"code": -1003, "msg": "Too many requests."},
            status=self.refuse_status,
            headers=headers,
        )

    def take_stale(self) -> bool:
        """Use up one stale depth answer, if one is due."""
        if self.stale_count <= 0:
            return False
        self.stale_count -= 1
        return True
