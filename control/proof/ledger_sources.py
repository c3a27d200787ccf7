"""Where the rows of a ledger come from."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from engine.data.names import Transport
from shards.simulator.core.ledger import LedgerRows, Rows

__all__ = ["LedgerSource", "by_source"]

_TRANSPORTS: Final = (Transport.WS, Transport.HTTP_POLL)
"""By the ledger's `rest`."""


class LedgerSource(NamedTuple):
    """Where rows come from: what the ledger knows of a stream."""

    venue: str
    symbol: str
    transport: Transport


def by_source(ledger: LedgerRows, rows: Rows) -> Iterator[tuple[LedgerSource, Rows]]:
    """Rows of one file by the stream that they were sent to."""
    rests = rows["rest"] if "rest" in (rows.dtype.names or ()) else np.zeros(len(rows), np.uint8)
    for rest, transport in enumerate(_TRANSPORTS):
        part = rows[rests == rest]
        for number in np.unique(part["symbol"]):
            venue, symbol = ledger.symbols[int(number)]
            yield LedgerSource(venue, symbol, transport), part[part["symbol"] == number]
