"""Hyperliquid's simulated venues: `encoder` is the protocol of sockets, `info` what REST says, and
`listed` which coins and pairs there are.
"""

from shards.simulator.venues.hyperliquid.encoder import (
    CoinTradeRows,
    Hyperliquid,
    HyperliquidBuilder,
    HyperliquidSpot,
    size_text,
)

__all__ = ["CoinTradeRows", "Hyperliquid", "HyperliquidBuilder", "HyperliquidSpot", "size_text"]
