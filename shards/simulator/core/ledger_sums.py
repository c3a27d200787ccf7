"""The heavy kinds of a ledger as sums: what a run without end can keep.

For every instrument, the number of rows and the sums of their id and of every number in them. A row
that is missing, doubled or altered changes at least one of them. They take the room of a few dozen
integers an instrument however long it runs; rows wait to be added up in chunks of 1 MB.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FILE_NAME = "sums.json"
_CHUNK_BYTES = 1 << 20
_SIDES = (ord("B"), ord("b"))
Numbers: TypeAlias = npt.NDArray[np.int64]


class SumsKey(NamedTuple):
    """What rows are added up together. The decimals are those of their mantissas."""

    name: str
    """`trade`, `delta`, `whole` (books), or `quote`."""
    symbol: int
    price_decimals: int
    qty_decimals: int


Totals: TypeAlias = Mapping[SumsKey, tuple[int, ...]]
"""Rows, ids, prices, quantities, and how many rows buy or bid; of a quote: rows, bids, bid
quantities, asks, ask quantities (not every venue's have an id)."""

FIELDS: Mapping[str, tuple[str, ...]] = {
    "trade": ("trade_id", "price_mantissa", "qty_mantissa"),
    "withheld": ("trade_id", "price_mantissa", "qty_mantissa"),
    "book": ("seq", "price_mantissa", "qty_mantissa"),
    "quote": ("bid_mantissa", "bid_qty_mantissa", "ask_mantissa", "ask_qty_mantissa"),
}
"""What is added up of the rows of each file."""
SUMMED = frozenset({*FIELDS, "snapshot"})
"""What is added up; snapshots were asked for, and are in no proof."""


class SummedRows:
    """Takes the rows of one ledger file, and adds them to the totals."""

    def __init__(
        self, name: str, dtype: "np.dtype[np.void]", totals: "dict[SumsKey, Numbers]"
    ) -> None:
        self._name, self._dtype, self._totals = name, dtype, totals
        self._chunks: list[bytes] = []
        self._pending = 0

    def append(self, rows: "npt.NDArray[np.void]") -> None:
        """Rows are added up a megabyte at a time."""
        if self._name not in FIELDS:
            return
        self._chunks.append(rows.tobytes())
        self._pending += rows.nbytes
        if self._pending >= _CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Add up what waits."""
        if not self._chunks:
            return
        rows = np.frombuffer(b"".join(self._chunks), self._dtype)
        self._chunks.clear()
        self._pending = 0
        for key, sums in added(self._name, rows):
            self._totals[key] = self._totals.get(key, _NOTHING) + sums

    close = flush


_NOTHING = np.zeros(1, object)


def added(name: str, rows: "npt.NDArray[np.void]") -> Iterator[tuple[SumsKey, Numbers]]:
    """The sums of some rows of one file."""
    if name == "quote":
        rows = rows[rows["rest"] == 0]  # what REST serves is no stream's
    if not len(rows):
        return
    marks = rows["symbol"].astype(np.int64)
    for field in ("price_decimals", "qty_decimals", "snapshot"):
        marks = marks << 8 | (rows[field] if field in (rows.dtype.names or ()) else 0)
    groups, places = np.unique(marks, return_inverse=True)
    order = np.argsort(places, kind="stable")
    ends = np.cumsum(np.bincount(places, minlength=len(groups)))
    for mark, part in zip(groups, np.split(rows[order], ends[:-1]), strict=True):
        columns = [part[field].astype(np.int64) for field in FIELDS[name]]
        sums = [len(part), *map(exact_sum, columns)]
        if name != "quote":
            sums.append(int(np.isin(part["side"], _SIDES).sum()))
        symbol, price, qty, snapshot = (int(mark) >> shift for shift in (24, 16, 8, 0))
        kind = {"withheld": "trade", "book": "whole" if snapshot & 255 else "delta"}.get(name, name)
        yield SumsKey(kind, symbol, price & 255, qty & 255), np.array(sums, object)


def exact_sum(values: Numbers) -> int:
    """A sum that cannot overflow: high and low halves apart."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def write_sums(directory: Path, totals: Mapping[SumsKey, Numbers]) -> None:
    """Put the totals on disk, whole."""
    scratch = directory / f"{FILE_NAME}.new"
    scratch.write_text(json.dumps([[*key, *sums.tolist()] for key, sums in totals.items()]))
    scratch.replace(directory / FILE_NAME)


def read_sums(directory: Path) -> Totals | None:
    """The totals, or None where the ledger has rows."""
    path = directory / FILE_NAME
    if not path.exists():
        return None
    width = len(SumsKey._fields)
    return {SumsKey(*entry[:width]): tuple(entry[width:]) for entry in json.loads(path.read_text())}
