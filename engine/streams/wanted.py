"""Which streams are wanted, with their knobs: the truth that a restart goes by.

One truth, in a local file: JSON lines, appended and synced before a command is answered; the last
line of a stream wins. The table `stream_registry` is its mirror (`engine.streams.wanted_mirror`),
so that commands work while the database is away, and a lost state directory still resumes.

The configuration file and the registry: a stream of the file is added at the first start that sees
it there. Removed by command, it stays removed for as long as the file names it; taken out of the
file and put back, it starts again. A stream that came from the file goes when the file drops it; a
stream that was added by command stays until a command removes it.

A stream that a command removed is remembered as removed where forgetting it would undo that: while
the configuration names it, until the mirror has been met (whose rows may still want it), and where
its knobs keep its last rows out of a sink.
"""

import contextlib
import enum
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from engine.base.durable import UNREADABLE, LineFile
from engine.base.errors import EngineError
from engine.data.names import StreamKey
from engine.messages.streams import Knobs

_log = logging.getLogger(__name__)

_GROWTH_MAX: Final = 4
_COMPACT_MIN_BYTES: Final = 1 << 20
"""The file is rewritten when it has grown to so many times what it was when that was done last."""


class Origin(enum.StrEnum):
    """Who wanted a stream."""

    CONFIG = "config"
    COMMAND = "command"


class WantedStream(msgspec.Struct, frozen=True):
    """One stream. `removed` remembers that a command ended it."""

    key: StreamKey
    knobs: Knobs = Knobs()
    origin: Origin = Origin.COMMAND
    added_ns: int = 0
    removed: bool = False


class _Line(msgspec.Struct, omit_defaults=True):
    """One line of the file: an entry, a stream to forget, or the mirror it was joined with."""

    entry: WantedStream | None = None
    forget: StreamKey | None = None
    joined: str | None = None


class Wanted:
    """The wanted streams in memory, with their file behind them. One process owns it; others only
    look, which leaves it as it is.
    """

    def __init__(self, path: Path, *, owned: bool = True) -> None:
        self._file = LineFile(path)
        self._compact_at_bytes = _COMPACT_MIN_BYTES
        self._entries: dict[StreamKey, WantedStream] = {}
        self._configured: frozenset[StreamKey] = frozenset()
        self.joined_with: str | None = None
        """The mirror whose rows were adopted once; None: a new registry knows only itself."""
        self.revision = 0
        """Grows with every change."""
        self._read()
        if owned and self._file.size_bytes:
            self.compact()

    def entries(self) -> list[WantedStream]:
        """Everything that is remembered, removed streams of the configuration included."""
        return list(self._entries.values())

    def wanted(self) -> list[WantedStream]:
        """The streams to run, in the order in which they were added."""
        return [entry for entry in self._entries.values() if not entry.removed]

    def get(self, key: StreamKey) -> WantedStream | None:
        """The entry of a stream that is wanted."""
        entry = self._entries.get(key)
        return None if entry is None or entry.removed else entry

    def put(self, entries: Iterable[WantedStream]) -> None:
        """Want these streams, or want them differently; on disk before this returns."""
        self._append([_Line(entry=entry) for entry in entries])

    def remove(self, keys: Iterable[StreamKey]) -> None:
        """Want these streams no more; on disk before this returns."""
        lines = []
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                continue
            if key in self._configured:  # whoever wanted it last: the file would bring it back
                entry = msgspec.structs.replace(entry, origin=Origin.CONFIG)
            if self._must_remember(entry, self.joined_with):
                gone = msgspec.structs.replace(entry, removed=True)
                lines.append(_Line(entry=gone))
            else:
                lines.append(_Line(forget=key))
        self._append(lines)

    def seed(self, configured: Sequence[StreamKey], now_ns: int) -> None:
        """Bring in what the configuration file names now (the rules are above)."""
        named = self._configured = frozenset(configured)
        lines = [
            _Line(forget=entry.key)
            for entry in self._entries.values()
            if entry.origin is Origin.CONFIG and entry.key not in named
        ]
        lines += [
            _Line(entry=WantedStream(key, origin=Origin.CONFIG, added_ns=now_ns))
            for key in dict.fromkeys(configured)
            if (known := self._entries.get(key)) is None
            or (known.removed and known.origin is Origin.COMMAND)
        ]
        self._append(lines)

    def adopt(self, mirrored: Iterable[WantedStream], mirror: str) -> list[WantedStream]:
        """Take over what a mirror remembers of an earlier life; return the changed entries.

        What is known here wins, removals included, but for streams that only the configuration's
        seeding has brought in: the earlier life knew better whether they were removed, and with
        which knobs they ran. Then the removals have been heard by everybody.
        """
        changed = {}
        for entry in mirrored:
            known = self._entries.get(entry.key)
            if known is None or known == WantedStream(
                entry.key, origin=Origin.CONFIG, added_ns=known.added_ns
            ):
                changed[entry.key] = entry
        past = [
            _Line(forget=key)
            for key, entry in self._entries.items()
            if key not in changed and entry.removed and not self._must_remember(entry, mirror)
        ]
        self._append(
            [*(_Line(entry=entry) for entry in changed.values()), *past, _Line(joined=mirror)]
        )
        return list(changed.values())

    def compact(self) -> None:
        """Rewrite the file with one line a stream, in one step. A full disk puts that off."""
        lines = [_Line(entry=entry) for entry in self._entries.values()]
        if self.joined_with is not None:
            lines.append(_Line(joined=self.joined_with))
        try:
            self._file.replace(_encode(lines))
        except OSError as error:
            _log.warning(f"{self._file.path} cannot be rewritten shorter: {error.strerror}")
        self._compact_at_bytes = max(self._file.size_bytes * _GROWTH_MAX, _COMPACT_MIN_BYTES)

    def _must_remember(self, removed: WantedStream, joined_with: str | None) -> bool:
        is_named = removed.origin is Origin.CONFIG or joined_with is None
        return is_named or removed.knobs.of_sinks != Knobs()

    def _append(self, lines: Sequence[_Line]) -> None:
        """Write lines and obey them. Raises OSError; then nothing has happened, here or on disk:
        what was refused must not come back at the next start.
        """
        if not lines:
            return
        try:
            self._file.append(_encode(lines))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.cut()
            raise
        for line in lines:
            self._apply(line)
        if self._file.size_bytes > self._compact_at_bytes:
            self.compact()

    def _read(self) -> None:
        """Replay the file. A torn last line was never answered: it did not happen."""
        for number, line in enumerate(self._file.read(), 1):
            try:
                self._apply(msgspec.json.decode(line, type=_Line))
            except UNREADABLE as error:
                raise EngineError(
                    f"stream registry {self._file.path} is damaged in line {number}: {error}"
                ) from error

    def _apply(self, line: _Line) -> None:
        if line.entry is not None:
            self._entries[line.entry.key] = line.entry
            self.revision += 1
        if line.forget is not None:
            self._entries.pop(line.forget, None)
            self.revision += 1
        if line.joined is not None:
            self.joined_with = line.joined


def _encode(lines: Iterable[_Line]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
