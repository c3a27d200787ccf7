"""Which streams a ring has carried, and the sequence of each one's newest row.

When rows of a ring are lost, this says whose they may have been: a stream whose newest row is older
than the loss lost nothing, every other may have. It lies beside the journal of the same (ring,
epoch), and is written as rows are taken from the ring, so it also knows of rows that the journal
has lost: `end_seq` tells how far the ring once went.
"""

from pathlib import Path
from typing import Final

import numpy as np

from engine.mapped import MappedEntries
from engine.records import RecordArray

FILE_NAME: Final = "members"


class Members:
    """One 8-byte entry a slot: the sequence after the stream's newest row, 0 where it had none."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._file = MappedEntries(self._path, "<u8")

    def advance(self, first_seq: int, records: RecordArray) -> None:
        """Note the rows from `first_seq` on. Repeating old rows is harmless as long as the newest
        come last (numpy keeps the last of repeated indices).
        """
        streams = records["stream"]
        ends = np.arange(first_seq + 1, first_seq + 1 + len(records), dtype=np.uint64)
        self._file.up_to(int(streams.max()) if len(streams) else 0)[streams] = ends

    def since(self, seq: int) -> list[int]:
        """Slots of the streams whose newest row is at or after `seq`."""
        slots: list[int] = np.flatnonzero(self._file.up_to(0) > seq).tolist()
        return slots

    @property
    def end_seq(self) -> int:
        """Sequence after the newest row of all."""
        return int(self._file.up_to(0).max())

    def close(self) -> None:
        """Unmap; the file stays."""
        self._file.close()

    def remove(self) -> None:
        """Close and remove the file: no row of this ring is needed any more."""
        self.close()
        self._path.unlink(missing_ok=True)
