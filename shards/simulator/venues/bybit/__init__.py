"""The simulated Bybit v5: an encoder a category, their REST, and how trades are written.

Imports `core` and the list of instruments.
"""

from shards.simulator.venues.bybit.encoder import BybitInverse, BybitLinear, BybitSpot

__all__ = ["BybitInverse", "BybitLinear", "BybitSpot"]
