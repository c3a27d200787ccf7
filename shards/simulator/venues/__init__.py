"""The simulated venues: their messages and what they answer.

Imports `core`.
Never knows the rest of `shards`: a judge does not use the decoder of the accused.
"""

from collections.abc import Callable, Sequence
from typing import Final

from shards.simulator.core.encoder import Encoder
from shards.simulator.venues.binance import Binance, BinanceInverse, BinanceSpot
from shards.simulator.venues.bybit import BybitInverse, BybitLinear, BybitSpot
from shards.simulator.venues.coinbase import Coinbase, CoinbaseExchange
from shards.simulator.venues.deribit import Deribit
from shards.simulator.venues.hyperliquid import (
    Hyperliquid,
    HyperliquidBuilder,
    HyperliquidSpot,
)
from shards.simulator.venues.kraken_futures import KrakenFutures
from shards.simulator.venues.kraken_spot import KrakenSpot
from shards.simulator.venues.okx import Okx

__all__ = ["ALL", "ENCODERS", "USUAL", "chosen"]

ENCODERS: tuple[Callable[[], Encoder], ...] = (
    Binance,
    Hyperliquid,
    Deribit,
    KrakenSpot,
    KrakenFutures,
    Okx,
    Coinbase,
    CoinbaseExchange,
    BybitLinear,
    BybitInverse,
    BybitSpot,
    BinanceSpot,
    BinanceInverse,
    HyperliquidBuilder,
    HyperliquidSpot,
)
USUAL: Final = (Binance.name, Hyperliquid.name)
"""What is simulated where nobody says what."""
ALL: Final = "all"


def chosen(names: str) -> Sequence[Callable[[], Encoder]]:
    """The encoders of venues, by names with commas between them; `all` are all, and nothing the
    usual ones. Raises ValueError for a name that nobody has.
    """
    known = {make().name: make for make in ENCODERS}
    if names == ALL:
        return ENCODERS
    wanted = [name.strip() for name in names.split(",")] if names else USUAL
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"no venue {unknown[0]!r}; there are {', '.join(known)}, and {ALL}")
    return [known[name] for name in dict.fromkeys(wanted)]


"""All of them, in the order of their numbers in the ledger. A new one comes last."""
