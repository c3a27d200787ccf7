"""One Parquet file of rows: written from batches, and read back as the table had them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from engine.data.kind import Kind
from engine.upkeep.lake.checksum import row_sum
from engine.upkeep.lake.manifest import Part
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.raw import BATCH_ROWS, EPOCH_2000_US, LakeError, RawRows
from engine.upkeep.lake.schema import SCHEMA_VERSION, arrow_schema, lake_columns, to_batch, to_rows
from engine.upkeep.lake.streams import STREAMS_KEY, LakeStream, Meanings, decoded

_VERSION: Final = b"fts.schema_version"
_LEVEL: Final = 6
"""Of zstd: a trade takes 5 % less than with 3, and the database is the slower one all the same."""
_DELTAS: Final = ("time", "timestamp")
_IDS: Final = ("trade_id", "seq", "prev_seq", "from_seq", "to_seq")


class PartWriter:
    """Writes one file, and counts what goes in. Close it before its bytes are looked at."""

    def __init__(self, half: Path, kind: Kind, streams: list[LakeStream]) -> None:
        self._half, self._kind, self._meanings = half, kind, Meanings(streams)
        self._rows = self._checksum = self._first_ns = self._last_ns = 0
        said = {STREAMS_KEY: msgspec.json.encode(streams), _VERSION: str(SCHEMA_VERSION).encode()}
        schema = arrow_schema(kind).with_metadata(said)
        self._writer = pq.ParquetWriter(str(half), schema, **_encodings(kind))

    def write(self, rows: RawRows) -> None:
        """Add rows, in their order."""
        self._writer.write_batch(to_batch(rows, self._kind, self._meanings), BATCH_ROWS)
        first, last = time_bounds_ns(rows)
        self._first_ns = min(self._first_ns, first) if self._rows else first
        self._last_ns = max(self._last_ns, last) if self._rows else last
        self._rows += len(rows)
        self._checksum += _checksum(rows, self._kind, self._meanings)

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.close()

    def part(self, file: str) -> Part:
        """What was written, after `close`."""
        return Part(
            file, self._rows, self._half.stat().st_size, file_digest(self._half), self._checksum,
            self._first_ns, self._last_ns,
        )  # fmt: skip


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_table(half: Path, table: Any, file: str) -> Part:
    """A `pyarrow.Table` that is no kind's rows."""
    pq.write_table(table, str(half), compression="zstd", compression_level=_LEVEL)
    return Part(file, table.num_rows, half.stat().st_size, file_digest(half))


def time_bounds_ns(rows: RawRows) -> tuple[int, int]:
    """Time of the first and last of some rows, ns since 1970; at least one row."""
    at_ns = (rows["time"] + EPOCH_2000_US) * 1000 + rows["time_sub_us"]
    return int(at_ns.min()), int(at_ns.max())


def _encodings(kind: Kind) -> dict[str, Any]:
    """Times and ids as differences, all else by dictionary as far as that pays."""
    deltas = [
        each.name
        for each in lake_columns(kind)
        if each.how in _DELTAS or (each.how == "integer" and each.name in _IDS)
    ]
    names = arrow_schema(kind).names
    return {
        "compression": "zstd",
        "compression_level": _LEVEL,
        "use_dictionary": [name for name in names if name not in deltas],
        "column_encoding": dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
        "version": "2.6",  # nanoseconds
    }


class PartReader:
    """Reads one file; a context manager. Raises LakeError for what is no file of a lake."""

    def __init__(self, place: LakePlace, name: str, kind: Kind) -> None:
        self._name, self._kind = name, kind
        self._source = place.open(name)
        try:
            self._file = pq.ParquetFile(self._source)
            said = self._file.schema_arrow.metadata or {}
            self.streams = decoded(said.get(STREAMS_KEY, b"null"))
        except (pa.ArrowException, OSError, LakeError) as error:
            self._source.close()
            raise LakeError(f"{name}: {error}") from None
        if not self._file.schema_arrow.remove_metadata().equals(arrow_schema(kind)):
            self._source.close()
            raise LakeError(f"{name}: its columns are not those of {kind.name}")
        self._meanings = Meanings(self.streams)

    def __enter__(self) -> "PartReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def batches(self, first: str = "", last: str = "") -> Iterator[RawRows]:
        """Its rows, with the stream ids of the database they are from; with `last`, row groups that
        have none of the symbols from `first` to `last` are left out. Raises LakeError.
        """
        groups = [
            number
            for number in range(self._file.num_row_groups)
            if not last or self._may_hold(number, first, last)
        ]
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, groups):
                yield to_rows(batch, self._kind, self._meanings)
        except (pa.ArrowException, OSError, LakeError) as error:
            raise LakeError(f"{self._name}: {error}") from None

    def _may_hold(self, number: int, first: str, last: str) -> bool:
        place = arrow_schema(self._kind).get_field_index("symbol")
        said = self._file.metadata.row_group(number).column(place).statistics
        return said is None or not said.has_min_max or (said.min <= last and first <= said.max)

    def checksum(self, rows: RawRows) -> int:
        """Of some of its rows."""
        return _checksum(rows, self._kind, self._meanings)


def _checksum(rows: RawRows, kind: Kind, meanings: Meanings) -> int:
    return row_sum(rows, kind, meanings.seeds(meanings.places(rows["stream_id"])))
