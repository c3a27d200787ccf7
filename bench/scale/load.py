"""What an engine is to carry, and what of it is counted: the x of every cost."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

BURST_S: Final = 0.005
"""Rows of a stream within it come together: read at once by a shard, one entry in Redis. The
simulator's trades come every 5 ms; those of a venue come in crowds as well, when something happens.
"""
_FALL: Final = -0.9
"""The n-th symbol of a venue has n to this power of the first one's trades, as the simulator's."""


@dataclass(frozen=True, slots=True)
class Load:
    """Rows a second, of so many streams, taken by so many processes of one engine."""

    trades_per_s: float = 0.0
    levels_per_s: float = 0.0
    levels_per_message: float = 20.0
    symbols: int = 10
    """At each venue."""
    venues: int = 1
    """With equal parts of the rows."""
    shards: int = 1
    redis: bool = True
    databases: int = 1
    """Equal parts of the streams go to each."""

    @property
    def rows_per_s(self) -> float:
        """Of both kinds."""
        return self.trades_per_s + self.levels_per_s

    @property
    def streams(self) -> int:
        """Trades, books or both, of every symbol."""
        kinds = bool(self.trades_per_s) + bool(self.levels_per_s)
        return self.venues * self.symbols * kinds

    def times(self, part: float) -> "Load":
        """The same streams with more or fewer rows."""
        return replace(
            self,
            trades_per_s=self.trades_per_s * part,
            levels_per_s=self.levels_per_s * part,
        )

    def split(self, engines: int) -> "Load":
        """What one of several engines has that share the symbols."""
        return replace(self.times(1 / engines), symbols=max(1, round(self.symbols / engines)))

    @property
    def bursts_per_s(self) -> float:
        """How often a stream has something, in steps of `BURST_S`."""
        of_trades = _shares(self.symbols) * (self.trades_per_s / self.venues)
        messages_per_s = self.levels_per_s / self.levels_per_message / self.venues
        of_books = np.full(self.symbols, messages_per_s / self.symbols)
        return self.venues * (_bursts_per_s(of_trades) + _bursts_per_s(of_books))

    def counts(self) -> dict[str, float]:
        """What happens each second, by what a cost may depend on; `live` is what goes to Redis.

        Bursts of several streams that come at once are one awakening of a shard; `apart` are those
        whose neighbour is another shard's, which are one each.
        """
        live = float(self.redis)
        return {
            "engine": 1.0,
            "shard": float(self.shards),
            "database": float(self.databases),
            "stream": float(self.streams),
            "burst": self.bursts_per_s,
            "apart": self.bursts_per_s * (1 - 1 / self.shards),
            "trade": self.trades_per_s,
            "level": self.levels_per_s,
            "live burst": live * self.bursts_per_s,
            "live trade": live * self.trades_per_s,
            "live level": live * self.levels_per_s,
        }


def _shares(symbols: int) -> npt.NDArray[np.float64]:
    """Of a venue's trades, by symbol: (symbols,), 1 together."""
    weights: npt.NDArray[np.float64] = np.arange(1.0, symbols + 1) ** _FALL
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def _bursts_per_s(events_per_s: npt.NDArray[np.float64]) -> float:
    """Of streams (n,) whose events come at random."""
    return float((1 - np.exp(-events_per_s * BURST_S)).sum() / BURST_S)
