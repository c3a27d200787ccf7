"""What lines are written to. None of them may hold up or end an engine: what cannot be written is
counted, and the count is said as soon as something can.
"""

import contextlib
import fcntl
import itertools
import os
import select
import stat
from pathlib import Path
from typing import Final

ROTATE_BYTES = 64 << 20
KEPT_COUNT = 5
"""Old logs, `fts.log.1` the youngest."""
_SLOW_READER_MS: Final = 20
_FILE_LINE_BYTES_MAX: Final = 64 << 10
_SHARED_LINE_BYTES_MAX: Final = select.PIPE_BUF
"""The kernel never mixes what processes write into one pipe, up to so much at a time."""


class Outlet:
    """A descriptor. Writes whole lines, or none and counts it."""

    line_bytes_max = _FILE_LINE_BYTES_MAX

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_torn = False
        self.unwritten = 0
        """Lines since the last one that was written."""
        self.problem = ""

    def write(self, line: bytes) -> bool:
        """Whether the line is there."""
        try:
            # The disk was full in the middle of a line: what comes is not to be taken for its rest.
            head = b"\n" if self._is_torn else b""
            written = self._write(head + line)
        except OSError as error:
            self.unwritten += 1
            self.problem = error.strerror or type(error).__name__
            return False
        self._is_torn = written < len(head) + len(line)
        if self._is_torn:
            self.unwritten += 1
            self.problem = "written in part"
            return False
        return True

    def _write(self, data: bytes) -> int:
        return os.write(self._fd, data)


class StandardError(Outlet):
    """Standard error, which may be a terminal that somebody stopped or a pipe that nobody reads: it
    is asked whether it has room, and a line that finds none is not waited for.
    """

    line_bytes_max = _SHARED_LINE_BYTES_MAX

    def __init__(self, fd: int = 2) -> None:
        super().__init__(_never_waiting(fd))
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def _write(self, data: bytes) -> int:
        # One that reads slowly has a moment, but not again for each line when it stands still.
        if not self._poll.poll(0 if self.unwritten else _SLOW_READER_MS):
            raise BlockingIOError(0, "nobody reads it")
        return super()._write(data)


class LogFile(Outlet):
    """The log of the instance, which does not grow for ever. All its processes append to it.

    Whoever finds it large puts it aside, under a lock; the others notice that their file has moved
    and go on in the new one.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        super().__init__(_open(path))
        self._path = path

    def _write(self, data: bytes) -> int:
        with contextlib.suppress(OSError):  # then the line goes where the last one went
            self._follow()
        return super()._write(data)

    def _follow(self) -> None:
        """Be in the file that has the name, and let that not be a large one."""
        if os.fstat(self._fd).st_size >= ROTATE_BYTES:
            # A lock of its own: one on the log itself could be held by whoever reads it.
            lock = _open(Path(f"{self._path}.lock"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._has_the_name():  # nobody else was faster
                    self._put_aside()
            finally:
                os.close(lock)
        if not self._has_the_name():
            fd = _open(self._path)
            os.close(self._fd)
            self._fd = fd

    def _has_the_name(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _put_aside(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{age + 1}") for age in range(KEPT_COUNT))]
        for younger, older in reversed(list(itertools.pairwise(names))):
            if younger.exists():
                younger.replace(older)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _never_waiting(fd: int) -> int:
    """The same pipe or terminal, opened once more so as not to wait: the flag on `fd` itself would
    be everybody's who has it. `fd` where that cannot be.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        pass
    return fd
