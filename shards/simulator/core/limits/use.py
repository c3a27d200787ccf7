"""What clients used of a venue's limits: counted, judged, and told at the end."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from shards.simulator.core.limits.table import (
    NAME_CHARS,
    REQUESTS,
    SOCKETS,
    SUBSCRIPTIONS,
    TOPICS,
    Meter,
    Per,
    Then,
    VenueLimit,
    meter_of,
)

__all__ = ["Holder", "LimitBook", "LimitUse", "Pools"]


class Holder(Protocol):
    """A socket, as limits see it."""

    @property
    def names(self) -> Collection[str]:
        """What it has subscribed."""

    @property
    def meters(self) -> dict[VenueLimit, "Meter"]:
        """What it used of the limits for each socket."""


class Pools:
    """What the venues of a simulator have together."""

    def __init__(self) -> None:
        self._meters: dict[tuple[str, str, float], Meter] = {}
        self._sockets: defaultdict[str, list[Collection[Holder]]] = defaultdict(list)

    def meter(self, whose: str, limit: VenueLimit) -> Meter:
        """Give the meter of a limit of an address."""
        place = whose, limit.what, limit.window_s
        return self._meters.setdefault(place, meter_of(limit))

    def sockets(self, whose: str) -> list[Collection[Holder]]:
        """Give the sockets of those that have limits together, venue by venue."""
        return self._sockets[whose]


_Size: TypeAlias = Callable[[Holder], int]

_HELD: Mapping[str, _Size] = {
    SOCKETS: lambda _: 1,
    SUBSCRIPTIONS: lambda client: len(client.names),
    NAME_CHARS: lambda client: sum(map(len, client.names)),
    TOPICS: lambda _: 0,
}
"""What is limited at once, and how much of it a client has."""


class LimitUse:
    """A line of the ledger of limits."""

    __slots__ = ("exceeded_count", "limit", "most_used")

    def __init__(self, limit: VenueLimit) -> None:
        self.limit = limit
        self.most_used = 0
        """The highest use; of a limit for each socket or request, that of any."""
        self.exceeded_count = 0
        """How often more was tried."""

    def note(self, used: int) -> bool:
        """Take a use in; tell whether it is too much."""
        self.most_used = max(self.most_used, used)
        self.exceeded_count += used > self.limit.most
        return used > self.limit.most

    def said(self) -> dict[str, object]:
        """Give it as JSON."""
        limit = self.limit
        return {
            "limit": limit.what, "per": limit.per.value, "window_s": limit.window_s,
            "window": limit.window.value, "used_max": self.most_used, "most": limit.most,
            "exceeded": self.exceeded_count, "then": limit.then.value, "shared": limit.shared,
        }  # fmt: skip


class LimitBook:
    """What was used of a venue's limits."""

    def __init__(
        self, venue: str, table: Sequence[VenueLimit], pools: Pools, *, enforced: bool
    ) -> None:
        self.enforced = enforced
        self.uses = {limit: LimitUse(limit) for limit in table}
        self._venue, self._pools = venue, pools

    def follow(self, sockets: Collection[Holder]) -> None:
        """Count what is held by the venue's sockets, as they come and go in this collection."""
        for whose in {limit.shared or self._venue for limit in self.uses}:
            self._pools.sockets(whose).append(sockets)

    def limit(self, what: str) -> VenueLimit | None:
        """Give the first limit of something."""
        return next((limit for limit in self.uses if limit.what == what), None)

    def meter(self, what: str, client: Holder | None = None) -> Meter | None:
        """Give the meter of the first limit of something."""
        limit = self.limit(what)
        return None if limit is None else self._meter(limit, client)

    def spend(self, what: str, amount: int = 1, client: Holder | None = None) -> VenueLimit | None:
        """Count a use of what is limited in a time. Returns the limit that it exceeds, if that has
        consequences.
        """
        found = None
        for limit in self._limits(what):
            if self.uses[limit].note(self._meter(limit, client).add(amount)):
                found = self._consequent(limit) or found
        return found

    def hold(self, what: str, more: int, client: Holder | None = None) -> VenueLimit | None:
        """Count what is held at once with so much `more`; the rest as `spend`."""
        found = None
        for limit in self._limits(what):
            used = more + sum(map(_HELD[what], self._clients(limit, client)))
            if self.uses[limit].note(used):
                found = self._consequent(limit) or found
        return found

    def ask(self, client: Holder, topics: Collection[str], *, begins: bool) -> VenueLimit | None:
        """Count a request of a client about topics; the rest as `spend`."""
        over = self.spend(REQUESTS, 1, client) or self.hold(TOPICS, len(topics), client)
        if over or not begins:
            return over
        new = [topic for topic in dict.fromkeys(topics) if topic not in client.names]
        chars = sum(map(len, new))
        return self.hold(SUBSCRIPTIONS, len(new), client) or self.hold(NAME_CHARS, chars, client)

    def ledger(self) -> list[dict[str, object]]:
        """Tell of each limit the highest use against it, as JSON."""
        return [use.said() for use in self.uses.values()]

    def _limits(self, what: str) -> Sequence[VenueLimit]:
        return [limit for limit in self.uses if limit.what == what]

    def _consequent(self, limit: VenueLimit) -> VenueLimit | None:
        is_kept = self.enforced or limit.is_rule
        return limit if is_kept and limit.then is not Then.NOTHING else None

    def _meter(self, limit: VenueLimit, client: Holder | None) -> Meter:
        if limit.per is Per.ADDRESS or client is None:
            return self._pools.meter(limit.shared or self._venue, limit)
        return client.meters.setdefault(limit, meter_of(limit))

    def _clients(self, limit: VenueLimit, client: Holder | None) -> Collection[Holder]:
        if limit.per is Per.ADDRESS:
            crowds = self._pools.sockets(limit.shared or self._venue)
            return [each for crowd in crowds for each in crowd]
        return [] if client is None else [client]
