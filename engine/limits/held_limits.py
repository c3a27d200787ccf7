"""A limit on what may be held at once, and who holds how much of it. Pure.

Everybody says how many seats he wants in all. Fewer than he holds: the others are free at once, so
he says so when he has let go. More: he gets what is free, whoever came first before the others, and
the rest as soon as it is. What is held together never exceeds the limit.
"""

from collections.abc import Iterable

import msgspec

Holder = tuple[str, str]
"""A client, and who of those in it that hold a part each."""


class HeldShare(msgspec.Struct):
    """Of one holder."""

    request_id: int = 0
    wanted: int = 0
    held: int = 0


class HeldLimit:
    """One limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._shares: dict[Holder, HeldShare] = {}

    @property
    def held_count(self) -> int:
        """HeldLimit that are taken."""
        return sum(share.held for share in self._shares.values())

    @property
    def waiting_count(self) -> int:
        """HeldLimit that are wanted and not there."""
        return sum(share.wanted - share.held for share in self._shares.values())

    @property
    def shares(self) -> list[tuple[Holder, HeldShare]]:
        """Who wants and has what, whoever came first before the others."""
        return list(self._shares.items())

    def inherit(self, shares: Iterable[tuple[Holder, HeldShare]]) -> None:
        """They have what they have, also where that is more than the limit is now."""
        self._shares = dict(shares)

    def held_by(self, holder: Holder) -> tuple[int, int]:
        """The request a holder made last, and how many seats it has now."""
        share = self._shares[holder]
        return share.request_id, share.held

    def want(self, holder: Holder, request_id: int, count: int) -> set[Holder]:
        """A holder wants `count` in all. Returns who must hear how many they have."""
        share = self._shares.setdefault(holder, HeldShare())
        share.request_id, share.wanted = request_id, count
        share.held = min(share.held, count)
        return self._fill() | {holder}

    def forget_client(self, client: str) -> set[Holder]:
        """A client is gone, and what it held is free. Returns who must hear that they have more."""
        self._shares = {each: share for each, share in self._shares.items() if each[0] != client}
        return self._fill()

    def _fill(self) -> set[Holder]:
        free = self.limit - self.held_count
        served = set()
        for holder, share in self._shares.items():
            if (more := min(share.wanted - share.held, free)) > 0:
                share.held += more
                free -= more
                served.add(holder)
        return served
