"""OKX v5: swaps, dated futures and spot pairs, whose symbols no other of its types has.

A message says on which channel it comes and of which instrument (`arg`); what is about it is in
`data`. Trades come merged, and say how many ids they stand for. What a row of funding says comes on
three channels: the rate, the mark price and the index, which is another instrument.
"""

from shards.venues.okx.venue import VENUE

__all__ = ["VENUE"]
