"""Coinbase: Advanced Trade here, and `exchange`, the older feed of the same spot market.

A socket of Advanced Trade numbers its messages, whatever they are about: a jump means that
something is missing, and says nothing of what. Books begin with a snapshot, and no id chains
their updates. Trades have ids without holes. Nothing is subscribed before the heartbeats, which
keep quiet sockets open.
"""

from shards.venues.coinbase.venue import VENUE

__all__ = ["VENUE"]
