"""The files of rows that are refused: readable JSON, one row a line, synced.

A row is in its file before the commit that moves the cursor past it, and that commit notes it in
table `quarantined_row`. A crash between the two writes it twice, or writes a row that is stored
later after all: the table says which rows are in quarantine, the files say what they were.
"""

import datetime as dt
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.base.clock import wall_ns
from engine.base.durable import sync_directory
from engine.base.errors import DatabaseUnavailableError, QuarantineError
from engine.data.kind import RecordArray
from engine.data.kinds import KINDS
from engine.writer.rows.refused import RefusedRow

RowKey = tuple[str, int, int, str]
"""Ring, epoch, sequence, table."""


class QuarantinedRow(msgspec.Struct, frozen=True):
    """One line of a file."""

    table: str
    ring: str
    epoch: int
    seq: int
    stream: str
    """For people; what counts is the slot in `row`."""
    error: str
    row: dict[str, int | float | str]
    detected: int = 0
    """Names the row's gap; 0 in files of versions that declared none."""

    @property
    def key(self) -> RowKey:
        """What makes it this row and no other."""
        return self.ring, self.epoch, self.seq, self.table

    def record(self) -> RecordArray:
        """The row as it was, an array of one. Raises ValueError for what is no row of its table."""
        spec = KINDS[self.table]
        record = np.zeros(1, spec.dtype)
        try:
            for name, value in self.row.items():
                record[name] = float(value) if isinstance(value, str) else value
        except (OverflowError, TypeError) as error:
            raise ValueError(str(error)) from error
        return record

    @property
    def is_whole(self) -> bool:
        """Whether the line holds a row; somebody may have edited it."""
        try:
            return len(self.record()) == 1
        except ValueError:
            return False


class Quarantine:
    """Appends to `<directory>/<table>-<date>.jsonl`, and reads it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, rows: Iterable[RefusedRow], name_of: Callable[[int], str]) -> None:
        """Append and sync; `name_of` a slot names its stream. Raises DatabaseUnavailableError when
        the disk refuses: the rows then stay where they are, in journal and ring."""
        day = dt.datetime.fromtimestamp(wall_ns() / 1e9, dt.UTC).strftime("%Y-%m-%d")
        lines: dict[str, list[bytes]] = {}
        for row in rows:
            line = msgspec.json.encode(_readable(row, name_of(row.slot)))
            lines.setdefault(row.table, []).append(line + b"\n")
        try:
            for table, texts in lines.items():
                self._append(self._directory / f"{table}-{day}.jsonl", b"".join(texts))
        except OSError as error:
            raise DatabaseUnavailableError(
                f"refused rows cannot be written to {self._directory}: {error.strerror}"
            ) from error

    def read(self) -> Iterator[QuarantinedRow]:
        """Every line, oldest file first, twice where it was written twice. Half a line, which a
        crash leaves, is no row: its cursor never moved. Raises QuarantineError.
        """
        for path in sorted(self._directory.glob("*.jsonl")):
            try:
                with path.open("rb") as file:
                    yield from _entries(file)
            except OSError as error:
                raise QuarantineError(f"refused rows: {path}: {error.strerror}") from error

    def _append(self, path: Path, text: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("ab+") as file:
            if _ends_torn(file.fileno()):
                text = b"\n" + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_directory(self._directory)


def _entries(lines: Iterable[bytes]) -> Iterator[QuarantinedRow]:
    for line in lines:
        try:
            entry = msgspec.json.decode(line, type=QuarantinedRow)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if entry.table in KINDS:
            yield entry


def _ends_torn(fd: int) -> bool:
    """Whether a crash left half a line at the end, to which the next must not be added."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _readable(row: RefusedRow, stream: str) -> QuarantinedRow:
    fields: dict[str, Any] = {
        name: _plain(row.row[name][0].item())
        for name in row.row.dtype.names or ()
        if not name.startswith("_")
    }
    return QuarantinedRow(
        row.table, row.ring, row.epoch, row.seq, stream, row.error, fields, row.detected_ns
    )


def _plain(value: float | int) -> float | int | str:
    """JSON has no word for NaN and infinities."""
    return value if isinstance(value, int) or math.isfinite(value) else str(value)
