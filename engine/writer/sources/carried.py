"""Which streams a ring has carried, and the sequence of each one's newest row.

When rows of a ring are lost, this says whose they may have been: a stream whose newest row is older
than the loss lost nothing, every other may have. It lies beside the journal of the same (ring,
epoch), and is written as rows are taken from the ring, so it also knows of rows that the journal
has lost: `end_seq` tells how far the ring once went.

When the database has all of a ring for good, the file is renamed and stays for as long as backups
are restored: a database that does not know of it then has been set back.
"""

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.base.clock import wall_ns
from engine.data.kind import RecordArray
from engine.data.mapped import MappedEntries

_LIVING: Final = "members"
_DRAINED: Final = "drained"
_ROW_NS: Final = 100
"""No ring has taken a row so often, on average."""
_CLOCK_STEP_NS: Final = 3600 * 1_000_000_000
"""So far the clock may have been set back since the ring was made."""

_log = logging.getLogger(__name__)


class Carried:
    """One 8-byte entry a slot: the sequence after the stream's newest row, 0 where it had none."""

    def __init__(self, directory: Path, epoch: int) -> None:
        self._directory = directory
        self.is_drained = (directory / _DRAINED).exists()
        self._path = directory / (_DRAINED if self.is_drained else _LIVING)
        self._file = MappedEntries(self._path, "<u8")
        self._repair(self._file.up_to(0), epoch)

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

    def drain(self) -> None:
        """The database has every row for good: the file says so from now on."""
        self.is_drained = True
        self._path = self._path.rename(self._directory / _DRAINED)

    def remove(self) -> None:
        """Remove the closed file: no row of this ring is asked for any more."""
        self._path.unlink(missing_ok=True)

    def _repair(self, ends: npt.NDArray[Any], epoch: int) -> None:
        """Entries the ring cannot have reached since it was made are damaged. Their streams have
        had rows up to the newest known one, for all that is known.
        """
        damaged = ends > (abs(wall_ns() - epoch) + _CLOCK_STEP_NS) // _ROW_NS
        if damaged.any():
            _log.error("%s: %d entries are damaged", self._path, np.count_nonzero(damaged))
            ends[damaged] = ends[~damaged].max(initial=0)
