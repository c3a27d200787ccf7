"""A limit on what may be held at once, and who holds how much of it. Pure.

Everybody says how many seats he wants in all. Fewer than he holds: the others are free at once, so
he says so when he has let go. More: he gets what is free, whoever came first before the others, and
the rest as soon as it is. What is held together never exceeds the limit.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class _Share:
    request_id: int = 0
    wanted: int = 0
    held: int = 0


class HeldLimit:
    """One limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._shares: dict[str, _Share] = {}

    @property
    def held_count(self) -> int:
        """HeldLimit that are taken."""
        return sum(share.held for share in self._shares.values())

    @property
    def waiting_count(self) -> int:
        """HeldLimit that are wanted and not there."""
        return sum(share.wanted - share.held for share in self._shares.values())

    def held_by(self, client: str) -> tuple[int, int]:
        """The request a client made last, and how many seats it has now."""
        share = self._shares[client]
        return share.request_id, share.held

    def want(self, client: str, request_id: int, count: int) -> set[str]:
        """A client wants `count` in all. Returns who must hear how many they have."""
        share = self._shares.setdefault(client, _Share())
        share.request_id, share.wanted = request_id, count
        share.held = min(share.held, count)
        return self._fill() | {client}

    def forget_client(self, client: str) -> set[str]:
        """A client is gone, and what it held is free. Returns who must hear that they have more."""
        self._shares.pop(client, None)
        return self._fill()

    def _fill(self) -> set[str]:
        free = self.limit - self.held_count
        served = set()
        for client, share in self._shares.items():
            if (more := min(share.wanted - share.held, free)) > 0:
                share.held += more
                free -= more
                served.add(client)
        return served
