"""Where is measured: the loads that are fitted, and those that are predicted from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.flow.setups import Setup
from engine.data.names import StreamKind

_TRADES: Final = (StreamKind.TRADES,)
_BOOKS: Final = (StreamKind.L2_BOOK,)


@dataclass(frozen=True, slots=True)
class Series:
    """One engine, and the rates that it is given in turn."""

    setup: Setup
    rates: tuple[float, ...]
    """Rows a second."""
    quick_rates: tuple[float, ...] = ()
    """Where somebody waits; none: the engine is not started."""

    def chosen(self, *, quick: bool) -> tuple[float, ...]:
        """Those of this run."""
        return self.quick_rates if quick else self.rates


def _trades(
    name: str, symbols: int, *, redis: bool = True, shards: int = 1, simulators: int = 1
) -> Setup:
    return Setup(name, _TRADES, 1.0, simulators, symbols, redis=redis, shards=shards)


def _books(name: str, *, redis: bool) -> Setup:
    return Setup(name, _BOOKS, 0.0, redis=redis, shards=1)


FITTED: Final[Sequence[Series]] = (
    Series(_trades("10-streams", 10), (2e3, 1e4, 4e4, 1e5), (4e3, 8e4)),
    Series(_trades("10-streams-without-redis", 10, redis=False), (5e3, 4e4, 1e5), (6e4,)),
    Series(_books("10-books", redis=True), (1e4, 3e4, 8e4), (1e4, 6e4)),
    Series(_books("10-books-without-redis", redis=False), (1e4, 6e4)),
    Series(_trades("100-streams", 100), (4e3, 2e4)),
    Series(_trades("500-streams", 500), (4e3, 1e4), (3e3, 1e4)),
    Series(_trades("2000-streams", 1000, simulators=2), (2e3, 6e3)),
    Series(_trades("50-streams-two-shards", 50, shards=2), (5e3, 2e4)),
)
_SPANS: Final = 3
"""Of each prediction, at one rate: the median of them is what it is held against."""
_BOTH: Final = Setup("40-trades-and-books", _TRADES + _BOOKS, 0.5, symbols=20, shards=1)
PREDICTED: Final[Sequence[Series]] = (
    Series(_BOTH, _SPANS * (2.5e4,), _SPANS * (2.5e4,)),
    Series(_trades("200-streams", 200), _SPANS * (1.2e4,)),
    Series(_trades("20-streams-two-shards", 20, shards=2), _SPANS * (6e4,)),
)
"""None of these loads is fitted, nor the first one's mix."""
