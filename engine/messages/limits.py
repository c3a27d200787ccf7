"""Leases of the venues' budgets, and places held at once."""

import msgspec


class LeaseRequest(msgspec.Struct, tag=True):
    """Any child: book `units` of a venue's budget. Pools: `rest_weight`, `ws_connects`,
    `ws_messages`, and what `shards.venues.venue_limits` adds. Answered by `LeaseGranted`.
    """

    request_id: int
    venue: str
    pool: str
    units: float


class LeaseGranted(msgspec.Struct, tag=True):
    """Answer to `LeaseRequest`: go ahead. It comes when the units fit: a budget that says before
    how long to wait could not hold back what waits when the venue bans us meanwhile.
    """

    request_id: int


class LeaseBlocked(msgspec.Struct, tag=True):
    """To who waits for a lease: the venue lets nobody through for `blocked_s`, because it answered
    with `status` (0 where another engine was answered).
    """

    venue: str
    pool: str
    blocked_s: float
    status: int = 0


class BudgetAnnounced(msgspec.Struct, tag=True):
    """To who asks for leases: what is ours in a window, of what the venue has announced."""

    venue: str
    pool: str
    budget: float


class PlacesWanted(msgspec.Struct, tag=True):
    """Any child: of a limit on what may be held at once it wants `count` in all, those it has
    included. A smaller number lets go of the others; a child that ends lets go of all. `holder` is
    who in the child: one each of the venues that share a limit.
    """

    request_id: int
    venue: str
    pool: str
    count: int
    holder: str = ""


class PlacesGranted(msgspec.Struct, tag=True):
    """Answer to `PlacesWanted`, and again when others have let go: how many of these there may be
    now. It is about the request `request_id`; one about an earlier request says nothing.
    """

    request_id: int
    venue: str
    pool: str
    count: int
    holder: str = ""


class LimitFeedback(msgspec.Struct, tag=True):
    """Any child: what the venue itself said of a budget (header, 429, 418, announced limit)."""

    venue: str
    pool: str
    used: float | None = None
    retry_after_s: float | None = None
    status: int = 0
    budget: float | None = None
    """What may be spent in a window, as far as the settings allow as much."""


LeaseAnswer = LeaseGranted | LeaseBlocked | BudgetAnnounced | PlacesGranted
"""What a process that asks for leases and places is told."""
