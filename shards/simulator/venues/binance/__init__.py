"""The simulated Binance: USD-M, COIN-M and spot."""

from shards.simulator.venues.binance.linear import Binance
from shards.simulator.venues.binance.markets import BinanceInverse, BinanceSpot

__all__ = ["Binance", "BinanceInverse", "BinanceSpot"]
