"""The venues. Adding one: its file or folder, its line here, its folder in `tests/data/`."""

from engine.catalog import StreamKind, Transport
from engine.settings import LimitSettings, SeatSettings
from shards.venues import binance_linear, budgets, hyperliquid_perp, spec
from shards.venues.spec import Venue

VENUES: dict[str, Venue] = {
    venue.name: venue for venue in (binance_linear.VENUE, hyperliquid_perp.VENUE)
}


def preferred_transport(venue: str, kind: StreamKind) -> Transport:
    """How a kind comes from a venue (which may be unknown) when nobody said how."""
    return spec.preferred_transport(VENUES[venue], kind) if venue in VENUES else Transport.WS


def venue_limits() -> list[LimitSettings | SeatSettings]:
    """The limits that all processes of an engine share."""
    return [limit for venue in VENUES.values() for limit in budgets.limits_of(venue)]
