"""Files that outlive a power cut and a full disk: replaced whole, or appended by whole lines.

What is on disk when a call returns stays there; what a failed call left behind is gone before the
next line follows it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a damaged file can raise."""


def write_whole(path: Path, body: bytes, *, synced: bool = True) -> None:
    """Put `body` in place of `path` in one step (mode 0600). After an OSError `path` is as it was,
    or new and not yet safe from a power cut. What is not `synced` a power cut may take back, or
    leave empty; a kill may not.
    """
    _put(path, body, synced=synced)
    if synced:
        sync_directory(path.parent)


def _put(path: Path, body: bytes, *, synced: bool) -> None:
    """As `write_whole`, but for the name: after an OSError `path` is as it was."""
    half = path.with_name(f"{path.name}.tmp")
    try:
        with half.open("wb", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            _write_all(file.fileno(), body)
            if synced:
                os.fsync(file.fileno())
        half.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            half.unlink()
        raise


class LineFile:
    """A file of lines with one appender. Any process may read it with a `LineFile` of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        """How far the file is known: whole lines, read or written here."""

    def read(self) -> Iterator[bytes]:
        """The whole lines that came since; half a line waits for its end."""
        try:
            if self.path.stat().st_size <= self.size_bytes:
                return
        except FileNotFoundError:
            return
        with self.path.open("rb") as file:
            file.seek(self.size_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.size_bytes += len(line)
                yield line

    def append(self, lines: bytes) -> None:
        """Add whole lines, on disk before this returns. Raises OSError; then the file may hold
        some of them, until `cut`.
        """
        self.cut()
        is_new = not self.path.exists()
        with self.path.open("ab", buffering=0) as file:
            _write_all(file.fileno(), lines)
            os.fsync(file.fileno())
        if is_new:
            sync_directory(self.path.parent)
        self.size_bytes += len(lines)

    def cut(self) -> None:
        """Drop what lies beyond the known lines: what followed it would be glued to it."""
        if self.path.exists() and self.path.stat().st_size > self.size_bytes:
            os.truncate(self.path, self.size_bytes)

    def replace(self, lines: bytes) -> None:
        """These lines instead of all there were. Raises OSError, as `write_whole` does."""
        _put(self.path, lines, synced=True)
        self.size_bytes = len(lines)  # also where the name is not safe yet: they are there
        sync_directory(self.path.parent)


def _write_all(fd: int, body: bytes) -> None:
    """A full disk takes a part first and refuses the rest."""
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: Path) -> None:
    """Make names in a directory durable: until then a power cut may bring back the old file."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
