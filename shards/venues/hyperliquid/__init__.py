"""Hyperliquid: perpetuals of its own (`PERP`) and of builders (`BUILDER`), and spot (`SPOT`).

One socket and one `POST /info` serve all of them, and only names and listings differ: `BTC`,
`xyz:TSLA`, `@107`. Books are whole snapshots without ids; trade ids are hashes, but the first
`trades` frame after a subscribe repeats the recent past. Subscribing a coin the venue does not list
drops the connection with everything on it, so only coins that a listing names are subscribed.
"""

from shards.venues.hyperliquid.venue import BUILDER, PERP, SPOT

__all__ = ["BUILDER", "PERP", "SPOT"]
