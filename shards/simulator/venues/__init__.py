"""The simulated venues: their messages and what they answer.

Imports `core`.
Never knows the rest of `shards`: a judge does not use the decoder of the accused.
"""

from collections.abc import Callable

from shards.simulator.core.encoder import Encoder
from shards.simulator.venues.binance import Binance
from shards.simulator.venues.hyperliquid import Hyperliquid

__all__ = ["ENCODERS"]

ENCODERS: tuple[Callable[[], Encoder], ...] = (Binance, Hyperliquid)
"""All of them, in the order of their numbers in the ledger. A new one comes last."""
