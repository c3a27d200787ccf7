"""The journal of one ring and epoch: append, read back, trim.

It is always on, so that the path which matters in an outage is the path that runs every day. What
is appended survives the death of any process at once and of the machine after the next `sync`.

Files are read and not mapped: of a bad sector, or a file cut short, a read says so, where a mapped
page ends the process (SIGBUS).
"""

import contextlib
import errno
import logging
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engine.base.durable import sync_directory
from engine.base.errors import JournalError
from engine.data.kind import Kind, RecordArray
from engine.writer.sources import journal_format as fmt

_log = logging.getLogger(__name__)

_WINDOW_BYTES: Final = 1 << 20
"""Read at once; a block that is longer is read in one piece all the same."""


@dataclass(frozen=True, slots=True)
class Unsynced:
    """What a power cut could still take of a journal. `sync` may run in any thread, once."""

    fds: list[int]
    directories: tuple[Path, ...]
    """Where segments have been made: a file's data are safe only when its name is."""

    def sync(self) -> None:
        """Make it safe. Raises OSError, after which nobody must try again: the kernel may have
        dropped the pages.
        """
        try:
            for fd in self.fds:
                os.fdatasync(fd)
            for directory in self.directories:
                with contextlib.suppress(FileNotFoundError):  # delivered meanwhile, and removed
                    sync_directory(directory)
        finally:
            for fd in self.fds:
                os.close(fd)


class JournalLimit:
    """How much may wait in all journals of a writer together. Beyond it rows stay in their rings,
    and what finds no place there is declared: who sets it bounds how late rows are.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        """0: as much as the disk takes."""
        self._max_bytes = max_bytes
        self._is_reached = False

    def note(self, waiting_bytes: int) -> None:
        """How much waits now."""
        self._is_reached = 0 < self._max_bytes <= waiting_bytes

    def check(self) -> None:
        """Raises JournalError where no more is to wait."""
        if self._is_reached:
            limit = f"journal.max_mb = {self._max_bytes >> 20}"
            raise JournalError(f"as much waits for the database as may ({limit})")


class Journal:
    """Segments of one (ring, epoch), oldest first; the last one is open for appending.

    `next_seq` is the sequence the next record must have to continue the open segment; a record
    with another sequence starts a new segment, so a journal may have holes where the database had
    taken the rows before the disk could (see `append`).
    """

    def __init__(self, directory: Path, spec: Kind, epoch: int, segment_bytes: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.spec = spec
        self.epoch = epoch
        self.next_seq = 0
        self._segment_bytes = segment_bytes
        paths = directory.glob(f"*{fmt.SUFFIX}")
        self._firsts = sorted(int(path.stem) for path in paths if path.stem.isdecimal())
        self._fd = -1
        self._size = 0
        self._is_synced = True
        self._retired: list[int] = []
        """Segments that were full before they were synced."""
        self._has_new_names = True
        self._reader: _SegmentReader | None = None
        self._recover()

    @property
    def first_seq(self) -> int:
        """The oldest sequence still on disk (`next_seq` when there is none)."""
        return self._firsts[0] if self._firsts else self.next_seq

    @property
    def size_bytes(self) -> int:
        """Disk space of all segments."""
        paths = (self._path(first) for first in self._firsts)
        return sum(path.stat().st_size for path in paths if path.exists())

    def append(self, first_seq: int, records: RecordArray) -> None:
        """Append contiguous records. Raises JournalError (disk full, I/O error) with nothing of
        them left behind: the block is cut off again and the next attempt starts a new segment.
        """
        if self._fd < 0 or first_seq != self.next_seq or self._size >= self._segment_bytes:
            self._open_segment(first_seq)
        header = fmt.block_header(first_seq, records)
        size = len(header) + records.nbytes
        try:
            written = os.writev(self._fd, [header, fmt.raw_bytes(records)])
            if written != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._abandon_block()
            raise JournalError(f"cannot append to {self.directory}: {error.strerror}") from error
        self._size += size
        self._is_synced = False
        self.next_seq = first_seq + len(records)

    def take_unsynced(self) -> Unsynced | None:
        """What was appended since the last call, to be synced by the caller; None when nothing was.
        Should that fail, call `retire_segment`.
        """
        fds, self._retired = self._retired, []
        if self._fd >= 0 and not self._is_synced:
            fds.append(os.dup(self._fd))
        if not fds:
            return None
        folder = self.directory
        directories = (folder, folder.parent, folder.parent.parent) if self._has_new_names else ()
        self._is_synced, self._has_new_names = True, False
        return Unsynced(fds, directories)

    def retire_segment(self) -> None:
        """Append no more to the open segment."""
        if self._fd < 0:
            return
        if self._is_synced:
            os.close(self._fd)
        else:
            self._retired.append(self._fd)
        self._fd, self._is_synced = -1, True

    def read(self, from_seq: int, max_count: int) -> tuple[int, RecordArray]:
        """Return (sequence of the first record, records) at or after `from_seq`.

        The sequence is higher than asked when records are missing in between (damage, or a hole);
        the caller must account for the difference. Empty at the end of the journal.
        """
        while from_seq < self.next_seq:
            position = max(bisect_right(self._firsts, from_seq) - 1, 0)
            while position < len(self._firsts):
                reader = self._reader_of(self._firsts[position])
                found = reader.read(from_seq, max_count)
                if found is not None:
                    return found
                position += 1
            break
        return from_seq, np.empty(0, self.spec.dtype)

    def rows_before(self, seq: int) -> RecordArray:
        """The rows right below `seq`, as far back as their segment goes; empty without them."""
        position = bisect_left(self._firsts, seq) - 1
        found: list[RecordArray] = []
        if position >= 0:
            for block in fmt.blocks(_content(self._path(self._firsts[position])), self.spec):
                if block.first_seq >= seq:
                    break
                found.append(block.records[: seq - block.first_seq])
        return np.concatenate(found) if found else np.empty(0, self.spec.dtype)

    def newest_rows(self, seconds: float) -> Iterator[RecordArray]:
        """Segment by segment, what was written to in the last `seconds` of the journal."""
        paths = [path for first in self._firsts if (path := self._path(first)).exists()]
        written_s = [path.stat().st_mtime for path in paths]
        for path, at_s in zip(paths, written_s, strict=True):
            if at_s >= written_s[-1] - seconds:
                found = [block.records for block in fmt.blocks(_content(path), self.spec)]
                yield np.concatenate([np.empty(0, self.spec.dtype), *found])

    def trim(self, durable_seq: int) -> None:
        """Remove segments that end at or below `durable_seq`; the open one stays."""
        while len(self._firsts) > 1 and self._firsts[1] <= durable_seq:
            self._remove(self._firsts.pop(0))

    def close(self) -> None:
        """Close files; nothing is removed."""
        self.retire_segment()
        while self._retired:
            os.close(self._retired.pop())
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def remove(self) -> None:
        """Remove the whole journal: every row of it is durable in the database."""
        self.close()
        for first in self._firsts:
            self._path(first).unlink(missing_ok=True)
        self._firsts.clear()
        with contextlib.suppress(OSError):  # what was damaged stays, for whoever wants to look
            self.directory.rmdir()

    def _path(self, first_seq: int) -> Path:
        return fmt.segment_path(self.directory, first_seq)

    def _recover(self) -> None:
        """Cut the last segment at its last good block; drop segments that hold nothing."""
        while self._firsts:
            first = self._firsts[-1]
            path = self._path(first)
            if path.stat().st_size < fmt.SEGMENT_HEADER.size:
                path.unlink()  # its writer was killed before the header: there is no row in it
                self._firsts.pop()
                continue
            end_seq, end_offset = _good_end(path, self.spec, self.epoch)
            if end_offset is None:
                path.rename(path.with_suffix(".damaged"))
                self._firsts.pop()
                continue
            os.truncate(path, end_offset)
            self.next_seq = max(end_seq, first)
            if end_seq > first:
                return
            path.unlink()
            self._firsts.pop()

    def _open_segment(self, first_seq: int) -> None:
        self.retire_segment()
        path = self._path(first_seq)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise JournalError(f"cannot create {path}: {error.strerror}") from error
        header = fmt.segment_header(self.spec, self.epoch, first_seq)
        try:
            if os.write(fd, header) != len(header):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.close(fd)
            path.unlink()
            raise JournalError(f"cannot create {path}: {error.strerror}") from error
        self._fd, self._size = fd, len(header)
        self._has_new_names = True
        self._firsts.append(first_seq)

    def _abandon_block(self) -> None:
        """Cut a half-written block off; an empty segment goes altogether."""
        with contextlib.suppress(OSError):  # readers stop at half a block
            os.ftruncate(self._fd, self._size)
        self.retire_segment()
        if self._size == fmt.SEGMENT_HEADER.size:
            self._path(self._firsts.pop()).unlink()

    def _reader_of(self, first_seq: int) -> "_SegmentReader":
        if self._reader is None or self._reader.first_seq != first_seq:
            if self._reader is not None:
                self._reader.close()
            self._reader = _SegmentReader(self._path(first_seq), self.spec, first_seq)
        return self._reader

    def _remove(self, first_seq: int) -> None:
        if self._reader is not None and self._reader.first_seq == first_seq:
            self._reader.close()
            self._reader = None
        self._path(first_seq).unlink(missing_ok=True)


class _SegmentReader:
    """Walks one segment forwards; going back starts at its head again."""

    def __init__(self, path: Path, spec: Kind, first_seq: int) -> None:
        self.first_seq = first_seq
        self._spec = spec
        self._path = path
        self._fd = -1
        self._walked_seq = first_seq
        self._window = memoryview(b"")
        self._start = fmt.SEGMENT_HEADER.size
        self._offset = 0
        with contextlib.suppress(FileNotFoundError):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, from_seq: int, max_count: int) -> tuple[int, RecordArray] | None:
        """First records at or after `from_seq` in this segment, or None at its end."""
        if from_seq < self._walked_seq:
            self._rewind()
        while True:
            block = fmt.block_at(self._window, self._offset, self._spec)
            if block is None:
                if not self._read_on():
                    return None
                continue
            self._walked_seq = block.first_seq
            end = block.first_seq + len(block.records)
            if end <= from_seq:
                self._offset = block.next_offset
                continue
            skip = max(from_seq - block.first_seq, 0)
            return block.first_seq + skip, block.records[skip : skip + max_count]

    def close(self) -> None:
        """Let go of the file. Records handed out stay valid: their arrays keep the memory."""
        self._window = memoryview(b"")
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _rewind(self) -> None:
        self._window = memoryview(b"")
        self._start, self._offset = fmt.SEGMENT_HEADER.size, 0

    def _read_on(self) -> bool:
        """Move the window to where we are, with more behind; whether there is more."""
        if self._fd < 0:
            return False
        rest = len(self._window) - self._offset
        start = self._start + self._offset
        try:
            data = os.pread(self._fd, max(_WINDOW_BYTES, 2 * rest), start)
        except OSError as error:
            _log.error(f"{self._path} cannot be read from byte {start} on: {error.strerror}")
            return False
        self._window, self._start, self._offset = memoryview(data), start, 0
        return len(data) > rest


def _content(path: Path) -> memoryview:
    """A segment, as far as it can be read."""
    parts: list[bytes] = []
    try:
        with path.open("rb", buffering=0) as file:
            while part := os.read(file.fileno(), _WINDOW_BYTES):
                parts.append(part)
    except OSError as error:
        _log.error(f"{path} cannot be read whole: {error.strerror}")
    return memoryview(b"".join(parts))


def _good_end(path: Path, spec: Kind, epoch: int) -> tuple[int, int | None]:
    """(sequence after the last good record, offset after it); offset None for a foreign file."""
    if path.stat().st_size < fmt.SEGMENT_HEADER.size:
        return 0, None
    data = _content(path)
    try:
        header = fmt.read_segment_header(data, spec, path.name)
    except JournalError:
        return 0, None
    if header.epoch != epoch:
        return 0, None
    end_seq, end_offset = header.first_seq, fmt.SEGMENT_HEADER.size
    for block in fmt.blocks(data, spec):
        end_seq, end_offset = block.first_seq + len(block.records), block.next_offset
    return end_seq, end_offset
