"""Kraken spot.

Trades are numbered per pair. A book message has no id but a checksum of the ten best levels of each
side, made of the digits that the pair's precisions allow; levels that fall out of the subscribed
depth are not removed by a message. REST and the socket do not spell all pairs alike.
"""

from shards.venues.kraken_spot.venue import VENUE

__all__ = ["VENUE"]
