"""Kraken futures.

Messages of a feed are numbered per contract: those of a book, of which each changes one level, and
trades. A forced liquidation is a trade of its own type. One feed has quotes, prices, funding and
open interest, about once a second. Contracts `PI_` and `FI_` are sized in US dollars, `PF_` in the
base currency.
"""

from shards.venues.kraken_futures.venue import VENUE

__all__ = ["VENUE"]
