"""Books at a time, rebuilt from what the simulator noted: to be compared with those of SQL."""

from decimal import Decimal
from typing import TypeAlias

import numpy as np

from shards.simulator.core.ledger import LedgerRows, Rows

__all__ = ["Book", "book_at"]

Book: TypeAlias = dict[tuple[str, Decimal], Decimal]
"""Quantities by side (`bid` or `ask`) and price."""

_SIDES = {ord("b"): "bid", ord("a"): "ask"}


def book_at(ledger: LedgerRows, venue: str, symbol: str, at_ns: int) -> Book:
    """Give a book as it was said until a time of the venue: the last one that was said whole, and
    the changes since. Nothing if none was.
    """
    number = ledger.symbols.index((venue, symbol))
    said = np.concatenate([ledger.snapshot, ledger.book])
    said = said[(said["symbol"] == number) & (said["ts_event"] <= at_ns)]
    said = said[np.lexsort((said["seq"], said["ts_event"]))]
    wholes = said[said["snapshot"] == 1]
    if not len(wholes):
        return {}
    whole = wholes[-1]
    moment = (said["ts_event"] == whole["ts_event"]) & (said["seq"] == whole["seq"])
    later = (said["ts_event"] >= whole["ts_event"]) & (said["seq"] > whole["seq"])
    book: Book = {}
    for row in said[(moment & (said["snapshot"] == 1)) | (later & (said["snapshot"] == 0))]:
        _put(book, row)
    return book


def _put(book: Book, row: Rows) -> None:
    """Take one level over; without quantity there is none, and `-` is no level."""
    side = _SIDES.get(int(row["side"]))
    if side is None:
        return
    place = side, _number(row, "price")
    if quantity := _number(row, "qty"):
        book[place] = quantity
    else:
        book.pop(place, None)


def _number(row: Rows, name: str) -> Decimal:
    return Decimal(int(row[f"{name}_mantissa"])).scaleb(-int(row[f"{name}_decimals"]))
