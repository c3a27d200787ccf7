"""The file for rows the database refuses for good: readable JSON, one row a line, synced.

A row is in the file before the commit that moves the cursor past it. A crash between the two
writes it twice; it is never in neither place.
"""

import datetime as dt
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.clock import wall_ns
from engine.durable import sync_directory
from engine.errors import DatabaseUnavailableError
from engine.records import RecordArray


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """One row with its place in the stream of things. `row` is a one-element array."""

    table: str
    ring: str
    epoch: int
    seq: int
    row: RecordArray
    stream: str
    error: str


class Quarantine:
    """Appends to `<directory>/<table>-<date>.jsonl`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, rows: Iterable[RefusedRow]) -> None:
        """Append and sync. Raises DatabaseUnavailableError when the disk refuses: the rows then
        stay where they are, in journal and ring."""
        day = dt.datetime.fromtimestamp(wall_ns() / 1e9, dt.UTC).strftime("%Y-%m-%d")
        lines: dict[str, list[bytes]] = {}
        for row in rows:
            lines.setdefault(row.table, []).append(msgspec.json.encode(_readable(row)) + b"\n")
        try:
            for table, texts in lines.items():
                self._append(self._directory / f"{table}-{day}.jsonl", b"".join(texts))
        except OSError as error:
            raise DatabaseUnavailableError(
                f"refused rows cannot be written to {self._directory}: {error.strerror}"
            ) from error

    def _append(self, path: Path, text: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_directory(self._directory)


def _readable(row: RefusedRow) -> dict[str, Any]:
    fields = {
        name: _plain(row.row[name][0].item())
        for name in row.row.dtype.names or ()
        if not name.startswith("_")
    }
    return {
        "table": row.table,
        "ring": row.ring,
        "epoch": row.epoch,
        "seq": row.seq,
        "stream": row.stream,
        "error": row.error,
        "row": fields,
    }


def _plain(value: float | int) -> float | int | str:
    """JSON has no word for NaN and infinities."""
    return value if isinstance(value, int) or math.isfinite(value) else str(value)
