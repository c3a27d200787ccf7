"""Books at a time, rebuilt from what the simulator noted: to be compared with those of SQL."""

from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np

from shards.simulator.core.ledger import LedgerRows, Rows

__all__ = ["Book", "LedgerBook"]

Book: TypeAlias = dict[tuple[str, Decimal], Decimal]
"""Quantities by side (`bid` or `ask`) and price."""

_SIDES = {ord("b"): "bid", ord("a"): "ask"}
_LEVEL = ["side", "price_mantissa", "price_decimals", "qty_mantissa", "qty_decimals"]


class LedgerBook:
    """All that was said of one book, in the order in which it applies."""

    def __init__(self, ledger: LedgerRows, venue: str, symbol: str) -> None:
        number = ledger.symbols.index((venue, symbol))
        said = np.concatenate(
            [rows[rows["symbol"] == number] for rows in (ledger.snapshot, ledger.book)]
        )
        self._said = said[np.lexsort((said["seq"], said["ts_event"]))]

    def at(self, at_ns: int) -> Book:
        """Give it as it was said until a time of the venue: the last one that was said whole, and
        the changes since. Nothing if none was.
        """
        said = self._said[: np.searchsorted(self._said["ts_event"], at_ns, side="right")]
        wholes = np.flatnonzero(said["snapshot"] == 1)
        if not len(wholes):
            return {}
        whole = said[wholes[-1]]
        moment = (said["ts_event"] == whole["ts_event"]) & (said["seq"] == whole["seq"])
        later = (said["ts_event"] >= whole["ts_event"]) & (said["seq"] > whole["seq"])
        known = said[(moment & (said["snapshot"] == 1)) | (later & (said["snapshot"] == 0))]
        book: Book = {}
        for level in known[_last_of_each_place(known)][_LEVEL].tolist():
            _put(book, *level)
        return book


def _last_of_each_place(rows: Rows) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Where each side and price, as it is written, stands for the last time, in their order."""
    place = rows["side"], rows["price_mantissa"], rows["price_decimals"]
    order = np.lexsort(place)  # of one place in the order of the rows
    is_last = np.ones(len(rows), dtype=bool)
    is_last[:-1] = np.any([each[order][1:] != each[order][:-1] for each in place], axis=0)
    return np.sort(order[is_last])


def _put(
    book: Book, side: int, price: int, price_decimals: int, qty: int, qty_decimals: int
) -> None:
    """Take one level over; without quantity there is none, and `-` is no level."""
    if side in _SIDES:
        place = _SIDES[side], Decimal(price).scaleb(-price_decimals)
        if qty:
            book[place] = Decimal(qty).scaleb(-qty_decimals)
        else:
            book.pop(place, None)
