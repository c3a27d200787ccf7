"""Hyperliquid perpetuals.

One socket serves everything. Books are whole snapshots without ids; trade ids are hashes, but the
first `trades` frame after a subscribe repeats the recent past. Subscribing a coin the venue does
not list drops the connection with everything on it, so only coins its `meta` names are subscribed.
"""

from shards.venues.hyperliquid_perp.venue import VENUE

__all__ = ["VENUE"]
