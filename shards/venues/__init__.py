"""The venues. Adding one: its file, its line here, its folder in `tests/data/`."""

from shards.venues import binance_linear, hyperliquid_perp
from shards.venues.spec import Venue

VENUES: dict[str, Venue] = {
    venue.name: venue for venue in (binance_linear.VENUE, hyperliquid_perp.VENUE)
}
