"""Bybit v5: linear contracts, inverse contracts, spot.

A socket belongs to one category. A book's snapshot and deltas come on one topic, whose update ids
grow by one a message; a ticker says everything once and then what has changed; the ids of trades
are UUIDs, on spot numbers. Times are milliseconds.
"""

from shards.venues.bybit.venue import INVERSE, LINEAR, SPOT

__all__ = ["INVERSE", "LINEAR", "SPOT"]
