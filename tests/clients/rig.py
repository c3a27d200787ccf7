"""A simulator for clients of others, and what it has sent, as their numbers can be compared."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shards.simulator.core.ledger import read_ledger
from shards.simulator.core.venue import SimVenue
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings

_PATIENCE_S = 60.0
"""Only a test that fails waits so long."""
_TRADES_PER_S = 200.0


def installed(module: str) -> Any:
    """The client, or the tests are skipped. What it warns of while it is imported is its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, exc_type=ImportError)


class Served:
    """A running simulator of one venue."""

    def __init__(self, simulator: Simulator, venue: str, ledger: Path) -> None:
        self.simulator, self.ledger = simulator, ledger
        self.market: SimVenue = simulator.venues[venue]
        base = f"127.0.0.1:{simulator.port}/{venue}"
        self.rest_url, self.ws_url = f"http://{base}", f"ws://{base}"

    async def settled(self) -> None:
        """Let nothing more happen; all that was sent is in the ledger then."""
        assert await self.simulator.pause()

    def sent(self, kind: str, symbol: str) -> list[dict[str, Any]]:
        """The ledger's rows of a kind of record, in the order they were sent: numbers as Decimals
        by their names (`price`, `bid_qty`, `rate`), times in ms, sides as letters.
        """
        ledger = read_ledger(self.ledger)
        number = ledger.symbols.index((self.market.encoder.name, symbol))
        rows = ledger.of(kind)
        assert rows is not None, kind
        return [_in_words(row) for row in rows[rows["symbol"] == number]]


@asynccontextmanager
async def serving(
    venue: str, ledger: Path, *, trades_per_s: float = _TRADES_PER_S, symbols: int = 3
) -> AsyncIterator[Served]:
    """Run a simulator of this venue alone."""
    settings = SimulatorSettings(
        venues=venue, ledger=ledger, trades_per_s=trades_per_s, symbols=symbols
    )
    simulator = Simulator(settings)
    await simulator.start()
    try:
        yield Served(simulator, venue, ledger)
    finally:
        await simulator.close()


async def gathered(
    next_ones: Callable[[], Awaitable[Any]], enough: Callable[[Sequence[Any]], bool]
) -> list[Any]:
    """What a client's `watch…` gives call by call, until there is `enough`."""
    found: list[Any] = []
    async with asyncio.timeout(_PATIENCE_S):
        while not enough(found):
            got = await next_ones()
            found += got if isinstance(got, list) else [got]
    return found


def number(value: object) -> Decimal:
    """A client's float, or text, as the decimal number it stands for."""
    return Decimal(str(value))


def by(name: str, rows: Iterable[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Rows by one of their values."""
    return {row[name]: row for row in rows}


def _in_words(row: Any) -> dict[str, Any]:
    names = row.dtype.names
    found: dict[str, Any] = {}
    for name in names:
        value = row[name].item()
        if name.endswith("_mantissa"):
            what = name.removesuffix("_mantissa")
            unit = "qty" if "qty" in what else "rate" if what == "rate" else "price"
            found[what] = Decimal(value).scaleb(-int(row[f"{unit}_decimals"]))
        elif name == "side":
            found[name] = chr(value)
        elif name in ("ts_event", "next_ts"):
            found[name] = value // 1_000_000
        elif not name.endswith("_decimals"):
            found[name] = value
    return found
