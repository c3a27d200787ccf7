"""Shared-memory files: create, attach, lock, remove. Nothing else makes files in `/dev/shm`.

A segment is made with `O_EXCL` and `posix_fallocate`: on a full tmpfs, `ftruncate` and a later
write would end the process with SIGBUS, while `posix_fallocate` fails with ENOSPC at once. No
resource tracker is involved (`multiprocessing.shared_memory` unlinks a segment when any process
that attached it exits), so a file outlives every process until it is removed on purpose.

The producer holds a lock (`flock`), which the kernel frees when it dies, however it dies. It is on
a file of its own, which nobody else has a reason to open: whoever only reads a segment could keep
the next producer out with a lock on the segment itself.
"""

import errno
import fcntl
import mmap
import os
from pathlib import Path

from engine.base.errors import RingBusyError, SegmentError


class Segment:
    """A mapped file. `memory` is the whole of it; keep the object as long as any view of it."""

    def __init__(self, path: Path, fd: int, memory: mmap.mmap) -> None:
        self.path = path
        self.memory = memory
        self._fd = fd
        self._lock_fd = -1

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return len(self.memory)

    @property
    def is_removed(self) -> bool:
        """Whether the file has lost its name: whoever maps that name now gets another one."""
        return os.fstat(self._fd).st_nlink == 0

    @property
    def lock_path(self) -> Path:
        """The file that the producer locks, beside the segment."""
        return self.lock_of(self.path)

    @staticmethod
    def lock_of(path: Path) -> Path:
        """The same of a segment that is not mapped."""
        return path.with_suffix(".lock")

    def lock(self) -> None:
        """Become the one producer. Raises RingBusyError when somebody else is."""
        try:
            fd = os.open(
                self.lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise SegmentError(f"cannot open {self.lock_path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RingBusyError(f"{self.path.name} already has a producer") from None
        self._lock_fd = fd

    def close(self) -> None:
        """Unmap and unlock. Views of `memory` must be released first."""
        self.memory.close()
        os.close(self._fd)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)

    def unlink(self) -> None:
        """Remove the file and its lock; processes that have it mapped keep their mapping."""
        self.lock_path.unlink(missing_ok=True)  # first: a lock alone would be found by nobody
        self.path.unlink(missing_ok=True)


def create_segment(path: Path, size_bytes: int) -> Segment:
    """Create a zero-filled segment, mode 0600, in a directory of mode 0700.

    Raises SegmentError when the file exists or the memory is not there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SegmentError(f"{path} already exists") from None
    try:
        os.posix_fallocate(fd, 0, size_bytes)
        return Segment(path, fd, _map_populated(fd, size_bytes))
    except OSError as error:
        os.close(fd)
        path.unlink()
        if error.errno == errno.ENOSPC:
            raise SegmentError(
                f"no room for {size_bytes / 2**20:.0f} MiB in {path.parent.parent}: "
                "free some, enlarge the tmpfs, or lower shards.ring_records"
            ) from error
        raise SegmentError(f"cannot create {path}: {error.strerror}") from error


def attach_segment(path: Path, *, writable: bool) -> Segment:
    """Map an existing segment. Raises SegmentError when it is absent, foreign or empty."""
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise SegmentError(f"cannot open {path}: {error.strerror}") from error
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_size == 0:
        os.close(fd)
        raise SegmentError(f"{path} is empty or belongs to another user (uid {status.st_uid})")
    if not writable:
        return Segment(path, fd, mmap.mmap(fd, status.st_size, access=mmap.ACCESS_READ))
    return Segment(path, fd, _map_populated(fd, status.st_size))


def _map_populated(fd: int, size_bytes: int) -> mmap.mmap:
    """Map with all pages in place: a page fault in the frame callback costs as much as a frame."""
    populate = getattr(mmap, "MAP_POPULATE", 0)  # Linux
    return mmap.mmap(fd, size_bytes, flags=mmap.MAP_SHARED | populate)
