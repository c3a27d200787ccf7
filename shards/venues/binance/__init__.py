"""Binance USD-M linear futures.

Since 2026-04 a socket belongs to one category: book data on `/public`, the rest on `/market`. A
subscription on the wrong one is acknowledged and stays silent. Aggregate trade ids (`a`) grow by
one per symbol; depth events chain by `pu` (previous `u` of this stream); times are milliseconds.
"""

from shards.venues.binance_linear.venue import VENUE

__all__ = ["VENUE"]
