"""The venues. Adding one: its file or folder, its line here, its folder in `tests/data/`."""

from engine.catalog import StreamKind, Transport
from engine.settings import LimitSettings
from shards.venues import binance_linear, hyperliquid_perp, spec
from shards.venues.spec import Venue

VENUES: dict[str, Venue] = {
    venue.name: venue for venue in (binance_linear.VENUE, hyperliquid_perp.VENUE)
}


def preferred_transport(venue: str, kind: StreamKind) -> Transport:
    """How a kind comes from a venue (which may be unknown) when nobody said how."""
    return spec.preferred_transport(VENUES[venue], kind) if venue in VENUES else Transport.WS


_SHARE = 0.8
"""Of a venue's budget: other programs on the address want some too."""


def venue_limits() -> list[LimitSettings]:
    """The budgets that all processes of an engine share."""
    limits = []
    for venue in VENUES.values():
        per_minute = {
            "rest_weight": venue.rest_weight_per_minute,
            "ws_connects": venue.connects_per_minute,
            "ws_messages": venue.messages_per_minute,
        }
        limits += [
            LimitSettings(venue.name, pool, budget * _SHARE, 60.0)
            for pool, budget in per_minute.items()
            if budget is not None
        ]
        limits += [
            LimitSettings(venue.name, name, pool.budget * _SHARE, pool.window_s)
            for name, pool in venue.rest_pools.items()
        ]
    return limits
