"""The truth: every row the simulator sent, in append-only files of fixed-size binary rows.

| file           | row    | holds                                                          |
|----------------|--------|----------------------------------------------------------------|
| `trade.bin`    | TRADE  | trades written to at least one live subscribed socket          |
| `withheld.bin` | TRADE  | trades generated and deliberately never pushed (fault `gap`)   |
| `book.bin`     | BOOK   | levels of the book events written to at least one live socket  |
| `snapshot.bin` | BOOK   | levels of every REST snapshot served; `seq` = its last id      |
| `quote.bin`         | QUOTE         | best bid and offer, pushed or served                 |
| `funding.bin`       | FUNDING       | funding rate, mark and index price, pushed or served |
| `open_interest.bin` | OPEN_INTEREST | open interest, pushed or served                      |
| `liquidation.bin`   | LIQUIDATION   | forced orders written to at least one live socket    |
| `interval.bin`      | INTERVAL      | funding intervals, each time a venue says another    |
| `unreadable.bin`    | UNREADABLE    | elements sent that no client can read (same fault)   |
| `<kind>.bin`        | its own       | rows of kinds that only one venue's encoder knows    |
| `sums.json`    | sums   | instead of the first four and `quote.bin`, if there is no end  |
| `ledger.json`  | names  | symbols in the order the rows refer to; layouts of own kinds   |

A row is in a file once, however many sockets it went to. What REST served (`rest` is 1) is there
once per instrument and venue time, however often it was asked for. Prices, quantities and rates
are integers: value = mantissa / 10**decimals. The decimals are the instrument's own, or the text's
own when a recorded session is replayed; compare values, not mantissas.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shards.simulator.core.ledger_sums import (
    SUMMED,
    Numbers,
    SummedRows,
    SumsKey,
    Totals,
    read_sums,
    write_sums,
)

__all__ = [
    "ASK_PRESENT",
    "BID_PRESENT",
    "BOOK",
    "FUNDING",
    "INTERVAL",
    "LIQUIDATION",
    "NO_RATE",
    "OPEN_INTEREST",
    "QUOTE",
    "SETTLED",
    "TRADE",
    "UNREADABLE",
    "UNREADABLE_KINDS",
    "Ledger",
    "LedgerRows",
    "Rows",
    "read_ledger",
    "row_of",
]

Rows: TypeAlias = NDArray[np.void]


def row_of(**fields: str) -> "np.dtype[np.void]":
    """Lay out a row: whose it is, the venue's time in ns, and what else it says."""
    return np.dtype([("venue", "u1"), ("symbol", "<u4"), ("ts_event", "<i8"), *fields.items()])


TRADE = row_of(
    trade_id="<i8", side="u1",
    price_mantissa="<i8", price_decimals="u1", qty_mantissa="<i8", qty_decimals="u1",
)  # fmt: skip
"""`side` is the taker's: ord('B') bought, ord('S') sold."""

BOOK = row_of(
    seq="<i8", prev_seq="<i8", side="u1",
    price_mantissa="<i8", price_decimals="u1", qty_mantissa="<i8", qty_decimals="u1",
    snapshot="u1",
)  # fmt: skip
"""`side` is ord('b'), ord('a'), or ord('-') for an event that changed no level at all."""

QUOTE = row_of(
    seq="<i8", bid_mantissa="<i8", bid_qty_mantissa="<i8", ask_mantissa="<i8",
    ask_qty_mantissa="<i8", price_decimals="u1", qty_decimals="u1", sides="u1", rest="u1",
)  # fmt: skip
"""`sides` is the sum of BID_PRESENT and ASK_PRESENT; the numbers of an absent side are 0. `seq` is
the venue's update id; where it has none, the time in ms."""

BID_PRESENT, ASK_PRESENT = 1, 2

FUNDING = row_of(
    rate_mantissa="<i8", rate_decimals="u1", mark_mantissa="<i8", index_mantissa="<i8",
    price_decimals="u1", next_ts="<i8", rest="u1",
)  # fmt: skip
"""`rate_decimals` is NO_RATE where the contract pays no funding. `next_ts`, of the next payment, is
0 where the venue does not say. Hyperliquid states no time at
all: there `ts_event` is when the numbers came to be, which is when they are pushed."""

NO_RATE = 255
SETTLED = 2
"""As `rest` of funding: it was paid at this time, and REST said so."""

OPEN_INTEREST = row_of(qty_mantissa="<i8", qty_decimals="u1", rest="u1")

LIQUIDATION = row_of(
    side="u1", price_mantissa="<i8", avg_price_mantissa="<i8", price_decimals="u1",
    qty_mantissa="<i8", filled_qty_mantissa="<i8", qty_decimals="u1",
)  # fmt: skip
"""`side` is the forced order's: ord('S') when a long was liquidated. `price` is the order's limit,
`avg_price` what it filled at; `qty` is the order's, `filled_qty` what of it was."""

INTERVAL = row_of(interval_s="<u4")
"""`ts_event` is when this was said first; 0 for a venue whose interval never changes."""

UNREADABLE_KINDS = ("trade", "book", "quote", "funding", "open_interest", "liquidation")

UNREADABLE = row_of(seq="<i8", kind="u1", rows="<u4", rest="u1")
"""`kind` counts in UNREADABLE_KINDS; `rows` is how many rows the element would have been. Where the
venue numbers nothing `seq` is 0. These elements are in no other file."""

_FILES = (
    ("trade", TRADE),
    ("withheld", TRADE),
    ("book", BOOK),
    ("snapshot", BOOK),
    ("quote", QUOTE),
    ("funding", FUNDING),
    ("open_interest", OPEN_INTEREST),
    ("liquidation", LIQUIDATION),
    ("interval", INTERVAL),
    ("unreadable", UNREADABLE),
)
_NO_KINDS: Mapping[str, np.dtype[np.void]] = {}
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
    quote: Rows
    funding: Rows
    open_interest: Rows
    liquidation: Rows
    interval: Rows
    unreadable: Rows
    sums: Totals | None = None
    """Of the kinds that have no rows here."""
    own: Mapping[str, Rows] = field(default_factory=dict)
    """Of kinds that only one venue's encoder knows."""

    def of(self, kind: str) -> Rows | None:
        """Give the rows of a kind of record; None of one that no venue had a word for."""
        rows: Rows | None = self.own.get(kind, getattr(self, kind, None))
        return rows


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
        self,
        directory: Path | None,
        venues: tuple[str, ...],
        symbols: list[tuple[str, str]],
        *,
        in_sums: bool = False,
        own_kinds: Mapping[str, np.dtype[np.void]] = _NO_KINDS,
    ) -> None:
        """Open the files; an existing ledger in `directory` is continued only if it fits. With
        `in_sums` the heavy kinds take no room, and it is a new one. `own_kinds` are laid out as
        their venue's encoder says.
        """
        self._own_kinds = own_kinds
        self._files: dict[str, _File | SummedRows] = {}
        self._totals: dict[SumsKey, Numbers] | None = {} if in_sums else None
        self._venues = venues
        self._numbers = {pair: number for number, pair in enumerate(symbols)}
        self._index: Path | None = None
        self.enabled = directory is not None
        if directory is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._index = directory / "ledger.json"
        self._continue(self._index)
        for name, dtype in (*_FILES, *own_kinds.items()):
            if self._totals is not None and name in SUMMED:
                self._files[name] = SummedRows(name, dtype, self._totals)
            else:
                self._files[name] = _File(directory / f"{name}.bin")

    def _continue(self, index: Path) -> None:
        """Take over the numbers of an existing ledger; those listed while it ran come last."""
        if index.exists():
            known = json.loads(index.read_text("utf-8"))
            symbols = [(str(venue), str(symbol)) for venue, symbol in known["symbols"]]
            ours = list(self._numbers)
            if known["venues"] != list(self._venues) or symbols[: len(ours)] != ours:
                message = f"{index} belongs to a ledger of other instruments"
                raise ValueError(message)
            self._numbers = {pair: number for number, pair in enumerate(symbols)}
        self._write_index(index)

    def _write_index(self, index: Path) -> None:
        names: dict[str, object] = {"venues": self._venues, "symbols": list(self._numbers)}
        if self._own_kinds:
            names["kinds"] = {kind: layout.descr for kind, layout in self._own_kinds.items()}
        scratch = index.with_suffix(".new")
        scratch.write_text(json.dumps(names), "utf-8")
        scratch.replace(index)

    def number(self, venue: str, symbol: str) -> int:
        """Give the number rows carry for an instrument, a new one to a newly listed."""
        number = self._numbers.get((venue, symbol))
        if number is None:
            number = self._numbers[venue, symbol] = len(self._numbers)
            if self._index is not None:
                self._write_index(self._index)
        return number

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

    def quote(self, row: tuple[int, ...]) -> None:
        """Record a best bid and offer; `row` has the fields of QUOTE."""
        self._append_one("quote", row, QUOTE)

    def funding(self, row: tuple[int, ...]) -> None:
        """Record funding; `row` has the fields of FUNDING."""
        self._append_one("funding", row, FUNDING)

    def open_interest(self, row: tuple[int, ...]) -> None:
        """Record open interest; `row` has the fields of OPEN_INTEREST."""
        self._append_one("open_interest", row, OPEN_INTEREST)

    def liquidation(self, row: tuple[int, ...]) -> None:
        """Record a forced order; `row` has the fields of LIQUIDATION."""
        self._append_one("liquidation", row, LIQUIDATION)

    def interval(self, row: tuple[int, ...]) -> None:
        """Record what a venue says of a funding interval; `row` has the fields of INTERVAL."""
        self._append_one("interval", row, INTERVAL)

    def own(self, kind: str, row: tuple[int, ...]) -> None:
        """Record a row of whichever kind its venue's encoder wrote."""
        self._append_one(kind, row, {**dict(_FILES), **self._own_kinds}[kind])

    def unreadable(
        self, venue: int, number: int, kind: str, times: tuple[int, int], rows: int, rest: int = 0
    ) -> None:
        """Record an element that nobody can read; `times` are its time (ms) and its id."""
        at_ms, seq = times
        row = (venue, number, at_ms * 1_000_000, seq, UNREADABLE_KINDS.index(kind), rows, rest)
        self._append_one("unreadable", row, UNREADABLE)

    def _append_one(self, name: str, row: tuple[int, ...], dtype: np.dtype[np.void]) -> None:
        if self.enabled:
            self._files[name].append(np.array([row], dtype))

    def _append(self, name: str, rows: Rows) -> None:
        if self.enabled:
            self._files[name].append(rows)

    def flush(self) -> None:
        """Hand everything to the kernel, so that another process can read it."""
        for file in self._files.values():
            file.flush()
        if self._totals is not None and self._index is not None:
            write_sums(self._index.parent, self._totals)

    def close(self) -> None:
        """Flush and close; the ledger takes no more rows."""
        self.flush()
        for file in self._files.values():
            file.close()
        self._files = {}
        self.enabled = False


def read_ledger(path: Path) -> LedgerRows:
    """Read a ledger directory. Half a row at the end of a file (a kill) is not a row."""
    names: dict[str, Any] = json.loads((path / "ledger.json").read_text("utf-8"))
    rows = {name: _read(path / f"{name}.bin", dtype) for name, dtype in _FILES}
    own = {
        kind: _read(path / f"{kind}.bin", np.dtype([(name, text) for name, text in layout]))
        for kind, layout in names.get("kinds", {}).items()
    }
    symbols = tuple((str(venue), str(symbol)) for venue, symbol in names["symbols"])
    sums = read_sums(path)
    return LedgerRows(tuple(names["venues"]), symbols, sums=sums, own=own, **rows)


def _read(file: Path, layout: "np.dtype[np.void]") -> Rows:
    content = file.read_bytes() if file.exists() else b""  # a ledger older than the kind
    return np.frombuffer(content, layout, count=len(content) // layout.itemsize)
