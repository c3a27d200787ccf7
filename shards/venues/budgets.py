"""What this engine lets itself spend of a venue's limits, pool by pool."""

from typing import Final

from engine.messages.settings import HeldLimitSettings, LimitSettings
from shards.venues.kit import REST_WEIGHT, PollChannel, Venue

REST_POLLS: Final = "rest_polls"
"""The part of `REST_WEIGHT` that polls may use. A poll needs both."""

SUBSCRIPTIONS: Final = "ws_subscriptions"
SOCKETS: Final = "ws_sockets"
"""What may be held at once: all of it, for what is in use does not grow by itself."""

_SHARE = 0.8
"""Of a venue's budget: other programs on the address want some too."""
_POLL_SHARE = 0.6
"""Of that: the rest is always there for the snapshots of books that broke."""


def limits_of(venue: Venue) -> list[LimitSettings | HeldLimitSettings]:
    """The limits of a venue that all processes share."""
    rest = spendable(venue.rest_weight_per_minute)
    if not any(isinstance(channel, PollChannel) for channel in venue.channels.values()):
        del rest[REST_POLLS]
    per_minute = {**rest, "ws_connects": venue.connects_per_minute * _SHARE}
    limits: list[LimitSettings | HeldLimitSettings] = [
        LimitSettings(venue.name, pool, budget, 60.0) for pool, budget in per_minute.items()
    ]
    if venue.messages_per_minute is not None:
        budget = venue.messages_per_minute * _SHARE - _pings_per_minute(venue)
        limits.append(LimitSettings(venue.name, "ws_messages", budget, 60.0))
    held = {SUBSCRIPTIONS: venue.subscriptions_max, SOCKETS: venue.sockets_max}
    limits += [
        HeldLimitSettings(venue.name, pool, count)
        for pool, count in held.items()
        if count is not None
    ]
    limits += [
        LimitSettings(venue.name, name, pool.budget * _SHARE, pool.window_s)
        for name, pool in venue.rest_pools.items()
    ]
    return limits


def spendable(rest_weight_per_minute: float) -> dict[str, float]:
    """What we let ourselves spend of a venue's REST weight, by pool."""
    ours = rest_weight_per_minute * _SHARE
    return {REST_WEIGHT: ours, REST_POLLS: ours * _POLL_SHARE}


def _pings_per_minute(venue: Venue) -> float:
    """What all sockets send besides subscriptions. It is set aside, for a ping that waited for its
    turn would come too late for its socket.
    """
    pinging = [group for group in venue.groups.values() if group.json_ping is not None]
    sockets = venue.sockets_max or 0
    return max((sockets * 60.0 / group.ping_interval_s for group in pinging), default=0.0)
