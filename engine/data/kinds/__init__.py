"""The kinds of record, one file each, and the list of them.

Imports `engine.data.kind`.
Never knows who reads or writes.
"""

from collections.abc import Mapping
from typing import Final

from engine.data.kind import Kind
from engine.data.kinds.book import BOOK
from engine.data.kinds.coverage import COVERAGE
from engine.data.kinds.funding import FUNDING
from engine.data.kinds.gap import GAP
from engine.data.kinds.liquidation import LIQUIDATION
from engine.data.kinds.open_interest import OPEN_INTEREST
from engine.data.kinds.quote import QUOTE
from engine.data.kinds.trade import TRADE

__all__ = [
    "BOOK", "COVERAGE", "FUNDING", "GAP", "KINDS", "LIQUIDATION", "NOT_MARKET_DATA",
    "OPEN_INTEREST", "QUOTE", "TRADE",
]  # fmt: skip

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (TRADE, BOOK, QUOTE, FUNDING, OPEN_INTEREST, LIQUIDATION, GAP, COVERAGE)
}
"""By name. The order is that of rings and metrics."""
NOT_MARKET_DATA: Final = frozenset({GAP.name, COVERAGE.name})
"""What is said about rows, and counted apart from them."""
