"""The truth: every row the simulator sent, in append-only files of fixed-size binary rows.

| file           | row    | holds                                                          |
|----------------|--------|----------------------------------------------------------------|
| `trade.bin`    | TRADE  | trades written to at least one live subscribed socket          |
| `withheld.bin` | TRADE  | trades generated and deliberately never pushed (fault `gap`)   |
| `book.bin`     | BOOK   | levels of the book events written to at least one live socket  |
| `snapshot.bin` | BOOK   | levels of every REST snapshot served; `seq` = its last id      |
| `ledger.json`  | names  | symbols in the order the rows refer to                         |

A row is in `trade.bin` or `book.bin` once, however many sockets it went to. Prices and quantities
are integers: value = mantissa / 10**decimals. The decimals are the instrument's own, or the text's
own when a recorded session is replayed; compare values, not mantissas.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOOK", "TRADE", "Ledger", "LedgerRows", "Rows", "read_ledger"]

Rows: TypeAlias = NDArray[np.void]

TRADE: np.dtype[np.void] = np.dtype(
    [
        ("venue", "u1"),
        ("symbol", "<u4"),
        ("ts_event", "<i8"),
        ("trade_id", "<i8"),
        ("side", "u1"),
        ("price_mantissa", "<i8"),
        ("price_decimals", "u1"),
        ("qty_mantissa", "<i8"),
        ("qty_decimals", "u1"),
    ]
)
"""`side` is the taker's: ord('B') bought, ord('S') sold. `ts_event` in ns."""

BOOK: np.dtype[np.void] = np.dtype(
    [
        ("venue", "u1"),
        ("symbol", "<u4"),
        ("ts_event", "<i8"),
        ("seq", "<i8"),
        ("prev_seq", "<i8"),
        ("side", "u1"),
        ("price_mantissa", "<i8"),
        ("price_decimals", "u1"),
        ("qty_mantissa", "<i8"),
        ("qty_decimals", "u1"),
        ("snapshot", "u1"),
    ]
)
"""`side` is ord('b'), ord('a'), or ord('-') for an event that changed no level at all."""

_FILES = (("trade", TRADE), ("withheld", TRADE), ("book", BOOK), ("snapshot", BOOK))
_FLUSH_BYTES = 1 << 20
_DIRECT_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class LedgerRows:
    """A ledger read back."""

    venues: tuple[str, ...]
    symbols: tuple[tuple[str, str], ...]
    """(venue, symbol) by the number the rows carry."""
    trade: Rows
    withheld: Rows
    book: Rows
    snapshot: Rows


class _File:
    """One append-only file. Rows are handed to the kernel in large writes."""

    __slots__ = ("_chunks", "_pending", "_stream")

    def __init__(self, path: Path) -> None:
        self._stream: BinaryIO = path.open("ab", buffering=0)
        self._chunks: list[bytes] = []
        self._pending = 0

    def append(self, rows: Rows) -> None:
        if rows.nbytes >= _DIRECT_BYTES:
            self.flush()
            self._write(memoryview(rows.view(np.uint8).data))
            return
        self._chunks.append(rows.tobytes())
        self._pending += rows.nbytes
        if self._pending >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._chunks:
            self._write(memoryview(b"".join(self._chunks)))
            self._chunks.clear()
            self._pending = 0

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[self._stream.write(view) :]

    def close(self) -> None:
        self.flush()
        self._stream.close()


class Ledger:
    """Appends rows; without a directory it keeps none, and the counters elsewhere suffice."""

    def __init__(
        self, directory: Path | None, venues: tuple[str, ...], symbols: list[tuple[str, str]]
    ) -> None:
        """Open the files; an existing ledger in `directory` is continued only if it fits."""
        self._files: dict[str, _File] = {}
        self.enabled = directory is not None
        if directory is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        names = {"venues": list(venues), "symbols": [list(pair) for pair in symbols]}
        index = directory / "ledger.json"
        if index.exists() and json.loads(index.read_text("utf-8")) != names:
            message = f"{index} belongs to a ledger of other instruments"
            raise ValueError(message)
        index.write_text(json.dumps(names), "utf-8")
        self._files = {name: _File(directory / f"{name}.bin") for name, _ in _FILES}

    def trades(self, rows: Rows) -> None:
        """Record trades that were sent."""
        self._append("trade", rows)

    def withheld(self, rows: Rows) -> None:
        """Record trades that exist but were not sent."""
        self._append("withheld", rows)

    def book(self, rows: Rows) -> None:
        """Record the levels of a book event that was sent."""
        self._append("book", rows)

    def snapshot(self, rows: Rows) -> None:
        """Record the levels of a REST snapshot that was served."""
        self._append("snapshot", rows)

    def _append(self, name: str, rows: Rows) -> None:
        if self.enabled:
            self._files[name].append(rows)

    def flush(self) -> None:
        """Hand everything to the kernel, so that another process can read it."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Flush and close; the ledger takes no more rows."""
        for file in self._files.values():
            file.close()
        self._files = {}
        self.enabled = False


def read_ledger(path: Path) -> LedgerRows:
    """Read a ledger directory. Half a row at the end of a file (a kill) is not a row."""
    names: dict[str, Any] = json.loads((path / "ledger.json").read_text("utf-8"))
    rows: dict[str, Rows] = {}
    for name, dtype in _FILES:
        content = (path / f"{name}.bin").read_bytes()
        rows[name] = np.frombuffer(content, dtype, count=len(content) // dtype.itemsize)
    symbols = tuple((str(venue), str(symbol)) for venue, symbol in names["symbols"])
    return LedgerRows(venues=tuple(names["venues"]), symbols=symbols, **rows)
