"""The stream table: which slot of the rings is which stream, and its instrument's facts.

A record carries a slot (`stream u4`), not a name. Slots are given out once per state directory and
never reused, so that a journal written months ago still names its streams while the database was
away. The file is JSON lines, appended and synced by the supervisor alone; the last line of a slot
wins. An instrument's facts are in the file before its stream subscribes, so the writer never meets
a record whose slot it cannot look up.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from engine.base.durable import UNREADABLE, LineFile
from engine.base.errors import EngineError
from engine.data.instrument import Instrument
from engine.data.names import StreamKey


class Slot(msgspec.Struct, frozen=True):
    """One slot. `instrument` is None until the venue has named it."""

    slot: int
    key: StreamKey
    instrument: Instrument | None = None


class Slots:
    """The stream table in memory, with its file behind it.

    One process (the supervisor) calls `assign` and `describe`; any other opens the same path and
    calls `refresh` when it meets a slot it does not know.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self._by_slot: dict[int, Slot] = {}
        self._by_key: dict[StreamKey, Slot] = {}
        self._by_symbol: dict[tuple[str, str], Instrument] = {}
        self._doubtful: dict[int, Slot] = {}
        self.line_count = 0
        """Lines read or written so far: who keeps what an entry said looks again when it grows."""
        self.refresh()

    def refresh(self) -> list[Slot]:
        """Read the lines appended since the last call. A torn last line waits for its end."""
        entries = []
        for line in self._file.read():
            try:
                entries.append(msgspec.json.decode(line, type=Slot))
            except UNREADABLE as error:
                raise EngineError(
                    f"stream table {self._file.path} is damaged near byte {self._file.size_bytes},"
                    f" or a newer version wrote it: {error}"
                ) from error
            self._remember(entries[-1])
        return entries

    def assign(self, key: StreamKey) -> Slot:
        """Return the slot of `key`, giving it the next free one at first sight."""
        return self.assign_all([key])[0]

    def assign_all(self, keys: Iterable[StreamKey]) -> list[Slot]:
        """The same for many, with one write to disk."""
        wanted = list(keys)
        fresh = dict.fromkeys(key for key in wanted if key not in self._by_key)
        first = len(self._by_slot)
        self._append(Slot(slot, key) for slot, key in enumerate(fresh, first))
        return [self._by_key[key] for key in wanted]

    def describe(self, slot: int, instrument: Instrument) -> Slot:
        """Record the instrument behind a slot, on disk before this returns."""
        self.describe_all({slot: instrument})
        return self._by_slot[slot]

    def describe_all(self, instruments: Mapping[int, Instrument]) -> None:
        """The same for many, with one write to disk."""
        self._append(
            Slot(slot, self._by_slot[slot].key, instrument)
            for slot, instrument in instruments.items()
            if self._by_slot[slot].instrument != instrument
        )

    def get(self, slot: int) -> Slot | None:
        """The entry of a slot, or None."""
        return self._by_slot.get(slot)

    def find(self, key: StreamKey) -> Slot | None:
        """The entry of a stream that has a slot already, or None."""
        return self._by_key.get(key)

    def instrument(self, venue: str, symbol: str) -> Instrument | None:
        """An instrument as any of its streams described it last, or None."""
        return self._by_symbol.get((venue, symbol))

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._by_slot.values())

    def __len__(self) -> int:
        return len(self._by_slot)

    def _append(self, entries: Iterable[Slot]) -> None:
        """Write entries and remember them. Raises OSError.

        Whole lines that a failed write left may have been read by the writer already: taking them
        back would give their slots away twice. So they count, and are written once more, because
        nobody knows whether they are safe on disk; only half a line is cut off.
        """
        entries = [*self._doubtful.values(), *entries]
        if not entries:
            return
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
        try:
            self._file.append(lines)
        except OSError:
            self._doubtful |= {entry.slot: entry for entry in self.refresh()}
            raise
        self._doubtful.clear()
        for entry in entries:
            self._remember(entry)

    def _remember(self, entry: Slot) -> None:
        self.line_count += 1
        self._by_slot[entry.slot] = entry
        self._by_key[entry.key] = entry
        if entry.instrument is not None:
            self._by_symbol[entry.key.venue, entry.key.symbol] = entry.instrument
