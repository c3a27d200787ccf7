"""A mapped file of equal entries, one a slot of the stream table. It outlives its writer.

On a full disk it is plain memory, until the next start: what it notes is worth less than the rows
of whoever notes it.
"""

import logging
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_GROW_SLOTS = 1024
_log = logging.getLogger(__name__)


class MappedEntries:
    """The writing side. What no one has written is zero."""

    def __init__(self, path: Path, entry: npt.DTypeLike) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._entry: np.dtype[Any] = np.dtype(entry)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        slots = max(os.fstat(self._fd).st_size // self._entry.itemsize, _GROW_SLOTS)
        self._map(slots)

    def up_to(self, slot: int) -> npt.NDArray[Any]:
        """All entries, at least up to `slot`. Keep no reference: the next call may map anew."""
        if slot >= len(self._entries):
            known = self._entries.copy()
            self._unmap()
            self._map((slot // _GROW_SLOTS + 1) * _GROW_SLOTS)
            self._entries[: len(known)] = known
        return self._entries

    def close(self) -> None:
        """Unmap; the file stays, and a power cut cannot take from it."""
        self._memory.flush()
        self._unmap()
        os.close(self._fd)

    def _map(self, slots: int) -> None:
        size = slots * self._entry.itemsize
        try:
            os.posix_fallocate(self._fd, 0, size)
            self._memory = mmap.mmap(self._fd, size)
        except OSError as error:
            _log.error(f"{self._path} cannot grow: {error.strerror}; it is kept in memory only")
            self._memory = mmap.mmap(-1, size)
        self._entries: npt.NDArray[Any] = np.frombuffer(self._memory, dtype=self._entry)

    def _unmap(self) -> None:
        self._entries = np.empty(0, self._entry)
        self._memory.close()
