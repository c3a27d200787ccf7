"""Where a lake is: a directory, or an address that pyarrow's file systems know.

A file appears under its name whole or not at all, and in a directory it is on disk by then: what is
dropped from a database afterwards is nowhere else. A part is written aside on this machine first,
also for a lake that is elsewhere, since half an upload would be read as a file.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
from pyarrow import fs

from engine.base.durable import sync_directory
from engine.upkeep.lake.raw import LakeError

_CHUNK_BYTES: Final = 1 << 20
_WITHOUT_FOLDERS: Final = ("s3", "gcs", "abfs")
"""Where a folder would be one more object."""
_ASIDE: Final = ".tmp"
"""Ends the name of what is being written; it begins with a point, so readers leave it alone."""


class LakePlace:
    """One lake. Paths are relative to it, with `/`. What cannot be done there is a LakeError."""

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            if "://" in address:
                self._files, root = fs.FileSystem.from_uri(address)
            else:
                self._files, root = fs.LocalFileSystem(), str(Path(address).absolute())
        except (pa.ArrowException, OSError, ValueError) as error:
            raise LakeError(f"{address}: {error}") from None
        self._root = PurePosixPath(root)
        self.is_local = isinstance(self._files, fs.LocalFileSystem)

    def path(self, name: str) -> Path:
        """Of a file of a lake in a directory."""
        return Path(str(self._root / name))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes here meanwhile; where that is no directory, nobody watches over it."""
        if not self.is_local:
            yield
            return
        with _told(self.address):
            self._make(self.path("_manifest"))
            fd = os.open(self.path("_manifest/.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(fd)
            yield
        finally:
            os.close(fd)

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"{self.address}: somebody else writes there; try again later"
            raise LakeError(text) from None

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        """A file to write what shall be `name`; it is gone afterwards, unless `keep` took it. What
        cannot be written is a LakeError.
        """
        with _told(self.address if self.is_local else tempfile.gettempdir()):
            half = self._half(name)
            try:
                yield half
            finally:
                half.unlink(missing_ok=True)

    def _half(self, name: str) -> Path:
        if self.is_local:
            target = self.path(name)
            self._make(target.parent)
            return target.with_name(f".{target.name}{_ASIDE}")
        fd, text = tempfile.mkstemp(suffix=_ASIDE)
        os.close(fd)
        return Path(text)

    def keep(self, half: Path, name: str) -> None:
        """Let a file from `aside` be `name`, on disk, whatever was there before."""
        with _told(self.address):
            if not self.is_local:
                if self._files.type_name not in _WITHOUT_FOLDERS:
                    self._files.create_dir(self._at(name).rpartition("/")[0], recursive=True)
                with half.open("rb") as body, self._files.open_output_stream(self._at(name)) as out:
                    shutil.copyfileobj(body, out, _CHUNK_BYTES)
                return
            with half.open("rb") as file:
                os.fsync(file.fileno())
            target = self.path(name)
            half.replace(target)
            sync_directory(target.parent)

    def put(self, name: str, body: bytes) -> None:
        """Write a small file whole."""
        with self.aside(name) as half:
            with _told(self.address):
                half.write_bytes(body)
            self.keep(half, name)

    def get(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        with _told(self.address):
            if self._files.get_file_info(self._at(name)).type != fs.FileType.File:
                return None
            with self._files.open_input_stream(self._at(name)) as file:
                return bytes(file.read())

    def open(self, name: str) -> Any:
        """A `pyarrow.NativeFile` to read from anywhere in. Raises LakeError."""
        with _told(self.address):
            return self._files.open_input_file(self._at(name))

    def digest(self, name: str) -> str:
        """SHA-256 of a file, in hex."""
        found = hashlib.sha256()
        with _told(self.address), self._files.open_input_stream(self._at(name)) as file:
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
        return found.hexdigest()

    def drop(self, name: str) -> None:
        """Delete a file that may be there."""
        with _told(self.address), contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._at(name))

    def names(self, below: str) -> list[str]:
        """All files of a folder and of those in it, in order; none where there is no folder."""
        selector = fs.FileSelector(self._at(below), recursive=True, allow_not_found=True)
        with _told(self.address):
            found = [each.path for each in self._files.get_file_info(selector) if each.is_file]
        root = f"{self._root}/"
        return sorted(each.removeprefix(root) for each in found)

    def _make(self, folder: Path) -> None:
        """A folder, and those above it, on disk."""
        if not folder.exists():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            sync_directory(folder.parent)

    def _at(self, name: str) -> str:
        return str(self._root / name)


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        advice = "; make room there" if getattr(error, "errno", 0) == errno.ENOSPC else ""
        raise LakeError(f"{address}: {error}{advice}") from error


def is_aside(name: str) -> bool:
    """Whether a file is what a killed process was writing."""
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith(_ASIDE)
