"""The simulated Coinbase: Advanced Trade, and the feed of the exchange."""

from shards.simulator.venues.coinbase.advanced import Coinbase
from shards.simulator.venues.coinbase.exchange import CoinbaseExchange

__all__ = ["Coinbase", "CoinbaseExchange"]
