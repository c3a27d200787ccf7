"""Where the rows of a ledger come from."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from control.proof.verdict import Verdict
from engine.data.names import Transport
from shards.simulator.core.ledger import SETTLED, LedgerRows, Rows

__all__ = ["BySource", "LedgerSource", "by_source", "settled"]

_TRANSPORTS: Final = (Transport.WS, Transport.HTTP_POLL)
"""By the ledger's `rest`."""


class LedgerSource(NamedTuple):
    """Where rows come from: what the ledger knows of a stream."""

    venue: str
    symbol: str
    transport: Transport


BySource = dict[LedgerSource, Verdict]
"""Of one class of row."""


def by_source(ledger: LedgerRows, rows: Rows) -> Iterator[tuple[LedgerSource, Rows]]:
    """Rows of one file by the stream that they were sent to; not what was paid."""
    rests = _rests(rows)
    for rest, transport in enumerate(_TRANSPORTS):
        yield from _by_symbol(ledger, rows[rests == rest], transport)


def settled(ledger: LedgerRows, rows: Rows) -> Iterator[tuple[LedgerSource, Rows]]:
    """What was paid, by the stream that asked for it."""
    yield from _by_symbol(ledger, rows[_rests(rows) == SETTLED], Transport.HTTP_POLL)


def _rests(rows: Rows) -> npt.NDArray[np.uint8]:
    has_rest = "rest" in (rows.dtype.names or ())
    return rows["rest"] if has_rest else np.zeros(len(rows), np.uint8)


def _by_symbol(
    ledger: LedgerRows, part: Rows, transport: Transport
) -> Iterator[tuple[LedgerSource, Rows]]:
    for number in np.unique(part["symbol"]):
        venue, symbol = ledger.symbols[int(number)]
        yield LedgerSource(venue, symbol, transport), part[part["symbol"] == number]
