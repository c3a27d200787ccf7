"""What runs: which rows, over what, into what."""

from dataclasses import dataclass
from typing import Final

from engine.data.names import StreamKind

DATABASE: Final = "FTS_BENCH_DATABASE_URL"
"""A server of yours; a database is made there and dropped."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run an engine."""

    name: str
    kinds: tuple[StreamKind, ...]
    trade_part: float
    """Of all rows; the others are levels of books."""
    venues: tuple[str, ...] = ("binance_linear",)
    """Each in a simulator process of its own, with an equal share of the rows."""
    symbols: int = 10
    """At each venue."""
    redis: bool = True
    tls: bool = False

    @property
    def tables(self) -> list[str]:
        """What is stored."""
        names = {StreamKind.TRADES: "trade", StreamKind.L2_BOOK: "book"}
        return [names[kind] for kind in self.kinds]


_TRADES: Final = (StreamKind.TRADES,)
_BOOKS: Final = (StreamKind.L2_BOOK,)
_MARKETS: Final = ("binance_linear", "binance_inverse")
"""To move books costs a simulator more than to send them: one cannot keep an engine busy."""
_ALL: Final = (
    Setup("trades", _TRADES, 1.0),
    Setup("books", _BOOKS, 0.0, _MARKETS),
    Setup("mixed", _TRADES + _BOOKS, 0.5, _MARKETS),
    Setup("trades-without-redis", _TRADES, 1.0, redis=False),
    Setup("trades-over-tls", _TRADES, 1.0, tls=True),
)
SETUPS: Final = {each.name: each for each in _ALL}
