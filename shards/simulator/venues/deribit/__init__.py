"""The simulated Deribit."""

from shards.simulator.venues.deribit.encoder import Deribit

__all__ = ["Deribit"]
