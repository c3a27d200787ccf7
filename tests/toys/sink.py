"""A sink in one file: JSON lines, each with the cursor of its source, every row exactly once.

A line is written in one piece and says both what was taken and how far that goes, so that no crash
comes between the two; half a line, which a power cut may leave, is cut off. Whoever finds the file
longer than it left it has a successor.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from engine.base.errors import EngineError, FencedError
from engine.data.layout import SourceKey
from engine.writer.rows.slice import Batch, Loss, Part
from engine.writer.sinks.sink import Cursor, Promise, Sink, Taken

KNOWN_SLOTS = 100
"""It has no use for rows of others."""


class ToyAwayError(EngineError):
    """The file cannot be written."""

    retriable = True


class Line(msgspec.Struct):
    """A part of a batch."""

    ring: str
    epoch: int
    end_seq: int
    kind: str = ""
    ids: list[int] = []
    lost: int = 0
    refused: int = 0
    withheld: int = 0
    recv_ns: int = 0


class ToySink(Sink):
    """Rows by their kind and id."""

    name = "toy"
    promise = Promise.EVERY_ROW

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0
        self._cursors: dict[SourceKey, Cursor] = {}

    async def open(self, drained: Mapping[SourceKey, int]) -> Collection[SourceKey]:
        """Read everything anew."""
        await self.close()
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ToyAwayError(str(error)) from error
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        os.ftruncate(self._fd, len(whole))
        self._size, self._cursors = len(whole), {}
        for line in lines(whole):
            key = SourceKey(line.ring, line.epoch)
            before = self._cursors.get(key, Cursor(0))
            self._cursors[key] = Cursor(line.end_seq, line.recv_ns or before.last_recv_ns)
        known = {key: self._cursors.get(key, Cursor(0)).seq or 0 for key in drained}
        return [key for key, end_seq in drained.items() if self._cursors and known[key] < end_seq]

    async def cursors(self, starts: Mapping[SourceKey, int]) -> Mapping[SourceKey, Cursor]:
        """As the file says."""
        return {key: self._cursors.get(key, Cursor(None)) for key in starts}

    async def take(self, batch: Batch, *, durable: bool) -> Taken:
        """Append a line for each part, in one write."""
        taken = Taken()
        text = b"".join(msgspec.json.encode(self._line(p, taken)) + b"\n" for p in batch.parts)
        await asyncio.sleep(0)
        if self._fd < 0 or not self._path.exists():
            raise ToyAwayError("no file")
        if os.fstat(self._fd).st_size != self._size:
            raise FencedError("somebody else has written")
        os.write(self._fd, text)
        self._size += len(text)
        if durable:
            os.fsync(self._fd)
        await asyncio.sleep(0)
        return taken

    async def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            os.close(fd)

    def _line(self, part: Part, taken: Taken) -> Line:
        line = Line(*part.source, part.end_seq)
        if isinstance(part, Loss):
            line.lost = part.count
            return line
        if not part.spec.columns:
            return line
        is_known = part.records["stream"] < KNOWN_SLOTS
        rows = part.records[is_known]
        line.refused, line.withheld = len(part.records) - len(rows), part.withheld_count
        line.recv_ns = part.last_recv_ns or 0
        line.kind, line.ids = part.spec.name, rows[part.spec.id_field].tolist()
        counts = Counter({part.spec.name: len(rows)})
        taken.rows.update(+counts)
        taken.refused.update(+Counter({part.spec.name: line.refused}))
        return line


def lines(content: bytes) -> list[Line]:
    """What a file says."""
    return [msgspec.json.decode(text, type=Line) for text in content.splitlines()]
