"""What runs: which rows, over what, into what."""

import os
from dataclasses import dataclass, replace
from typing import Final

from engine.data.names import StreamKind

DATABASE: Final = "FTS_BENCH_DATABASE_URL"
"""A server of yours; a database is made there and dropped."""


SIMULATORS: Final = "FTS_BENCH_SIMULATORS"
"""How many processes send, 1 to 3."""
MARKETS: Final = ("binance_linear", "binance_inverse", "binance_spot")


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run an engine."""

    name: str
    kinds: tuple[StreamKind, ...]
    trade_part: float
    """Of all rows; the others are levels of books."""
    simulators: int = 1
    """Processes, each a venue of its own with an equal share of the rows."""
    symbols: int = 10
    """At each venue."""
    redis: bool = True
    tls: bool = False
    shards: int = 0
    """Processes that collect; 0 for as many as an engine has by itself."""

    @property
    def venues(self) -> tuple[str, ...]:
        """One for each simulator."""
        return MARKETS[: self.simulators]

    @property
    def tables(self) -> list[str]:
        """What is stored."""
        names = {StreamKind.TRADES: "trade", StreamKind.L2_BOOK: "book"}
        return [names[kind] for kind in self.kinds]


_TRADES: Final = (StreamKind.TRADES,)
_BOOKS: Final = (StreamKind.L2_BOOK,)
_ALL: Final = (
    Setup("trades", _TRADES, 1.0),
    Setup("books", _BOOKS, 0.0, simulators=2),  # to move one costs more than to take it
    Setup("mixed", _TRADES + _BOOKS, 0.5, simulators=2),
    Setup("trades-without-redis", _TRADES, 1.0, redis=False),
    Setup("trades-over-tls", _TRADES, 1.0, tls=True),
)
SETUPS: Final = {each.name: each for each in _ALL}


def as_asked(setup: Setup) -> Setup:
    """With as many simulators as the environment says, else with more where there are CPUs for
    them. Raises ValueError.
    """
    many = min(len(MARKETS), len(os.sched_getaffinity(0)) // 4 + 1)
    asked = os.environ.get(SIMULATORS) or max(setup.simulators, many)
    count = int(asked)
    if not 1 <= count <= len(MARKETS):
        raise ValueError(f"{SIMULATORS}={asked}: 1 to {len(MARKETS)} simulators")
    return replace(setup, simulators=count)
