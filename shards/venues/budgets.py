"""What this engine lets itself spend of a venue's limits, pool by pool."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from engine.messages.settings import HeldLimitSettings, LimitOverride, LimitSettings
from shards.venues.kit import (
    MESSAGES,
    REST_WEIGHT,
    SOCKETS,
    Limit,
    Places,
    PollChannel,
    Venue,
    limit_of,
    limited_as,
    places_of,
)

REST_POLLS: Final = "rest_polls"
"""The part of `REST_WEIGHT` that polls may use. A poll needs both."""

_SHARE = 0.8
"""Of a venue's budget: other programs on the address want some too. What may be held at once is
taken whole, for what is in use does not grow by itself.
"""
_POLL_SHARE = 0.6
"""Of that: the rest is always there for the snapshots of books that broke."""


def with_limits(venue: Venue, overrides: Mapping[str, LimitOverride]) -> Venue:
    """The venue with these of its limits in place of what is known of it, by pool. Raises KeyError
    for a pool that it does not limit, and ValueError for a limit that leaves nothing to spend or
    that cannot be.
    """
    if not overrides:
        return venue
    known = {limit.pool: limit for limit in venue.limits}
    changed = known | {pool: _overridden(known[pool], each) for pool, each in overrides.items()}
    found = replace(venue, limits=tuple(changed.values()))
    for each in limits_of(found):
        if isinstance(each, LimitSettings) and each.budget <= 0:
            raise ValueError(f"{each.pool}: pings alone need more than that")
    return found


def _overridden(limit: Limit | Places, override: LimitOverride) -> Limit | Places:
    if isinstance(limit, Limit):
        return Limit(limit.pool, override.units, override.window_s or limit.window_s)
    if override.window_s is not None or override.units % 1:
        raise ValueError(f"{limit.pool}: a whole number that may be held at once, without window_s")
    return Places(limit.pool, int(override.units))


def raised(venue: Venue, overrides: Mapping[str, LimitOverride]) -> list[str]:
    """Which of these allow more than the venue is known to allow, in words."""
    found = []
    for limit in venue.limits:
        if (override := overrides.get(limit.pool)) is None:
            continue
        if isinstance(limit, Places):
            is_more, known = override.units > limit.count, f"{limit.count}"
        else:
            window_s = override.window_s or limit.window_s
            is_more = override.units > limit.within(window_s)
            known = f"{limit.units:g} in {limit.window_s:g} s"
        if is_more:
            found.append(f"{limit.pool}: more than the {known} that it is known to allow")
    return found


def limits_of(venue: Venue) -> list[LimitSettings | HeldLimitSettings]:
    """The limits of a venue that all processes share, by the name they have."""
    found: list[LimitSettings | HeldLimitSettings] = []
    for limit in venue.limits:
        if isinstance(limit, Limit):
            found += _budgets(venue, limit)
        else:
            found.append(HeldLimitSettings(limited_as(venue), limit.pool, limit.count))
    return found


def _budgets(venue: Venue, limit: Limit) -> Iterator[LimitSettings]:
    ours = {limit.pool: limit.units * _SHARE}
    if limit.pool == MESSAGES:
        ours[MESSAGES] -= _pings(venue, limit.window_s)
    if limit.pool == REST_WEIGHT:
        ours = spendable(limit.units)
        if not any(isinstance(channel, PollChannel) for channel in venue.channels.values()):
            del ours[REST_POLLS]
    for pool, budget in ours.items():
        yield LimitSettings(limited_as(venue), pool, budget, limit.window_s)


def spendable(rest_weight: float) -> dict[str, float]:
    """What we let ourselves spend of a venue's REST weight, by pool, in the window it is for."""
    ours = rest_weight * _SHARE
    return {REST_WEIGHT: ours, REST_POLLS: ours * _POLL_SHARE}


def weight_per_minute(venue: Venue) -> float:
    """What a venue lets an address spend in the long run."""
    limit = limit_of(venue, REST_WEIGHT)
    assert limit is not None, "every venue says what its calls may weigh"
    return limit.units * 60.0 / limit.window_s


def _pings(venue: Venue, window_s: float) -> float:
    """What all sockets send in a window besides subscriptions. It is set aside, for a ping that
    waited for its turn would come too late for its socket.
    """
    pinging = [group for group in venue.groups.values() if group.json_ping is not None]
    sockets = places_of(venue, SOCKETS) or 0
    return max((sockets * window_s / group.ping_interval_s for group in pinging), default=0.0)
