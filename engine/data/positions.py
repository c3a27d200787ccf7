"""The last row of every stream, by record kind: what a shard must know to go on without a hole.

One file a kind, one 32-byte entry a slot: id_hi, id, ts_event, ts_recv (i8 each); all zero means
the stream has never had a row. The writer updates it as it journals, so after `SyncRings` it is
current; a shard reads it once when it starts a stream. Being a mapped file it survives the death
of any process.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.data.flags import CoverageMark
from engine.data.kind import Kind, RecordArray
from engine.data.mapped import MappedEntries

ENTRY = np.dtype([("id_hi", "<i8"), ("id", "<i8"), ("ts_event", "<i8"), ("ts_recv", "<i8")])


class Position(NamedTuple):
    """The last row of a stream; times in ns."""

    id_hi: int
    id: int
    ts_event: int
    ts_recv: int


class Positions:
    """The writer's side: one kind's file, grown as slots appear."""

    def __init__(self, directory: Path, spec: Kind) -> None:
        self._spec = spec
        self._file = MappedEntries(_path(directory, spec.name), ENTRY)

    def advance(self, records: RecordArray) -> None:
        """Note the last row of each stream in `records`. Repeating old records is harmless as
        long as the newest come last (numpy keeps the last of repeated indices).
        """
        streams = records["stream"]
        entries = self._file.up_to(int(streams.max()) if len(streams) else 0)
        entries["id"][streams] = records[self._spec.id_field]
        entries["ts_event"][streams] = records["ts_event"]
        entries["ts_recv"][streams] = records["ts_recv"]
        if self._spec.wide_id_field:
            entries["id_hi"][streams] = records[self._spec.wide_id_field]

    def catch_up(self, records: RecordArray) -> None:
        """Note rows of which it is not known whether they were noted before: newer ones only."""
        slots, places = np.unique(records["stream"][::-1], return_index=True)
        newest = records[::-1][places]
        known = self._file.up_to(int(slots.max()) if len(slots) else 0)["ts_recv"][slots]
        self.advance(newest[newest["ts_recv"] > known])

    @property
    def newest_ns(self) -> int:
        """The latest `ts_event` of all streams; 0 without any."""
        return int(self._file.up_to(0)["ts_event"].max(initial=0))

    def close(self) -> None:
        """Unmap; the file stays."""
        self._file.close()


LISTENING = -1
"""In place of a `CoverageEnd`."""


class CoveragePositions(Positions):
    """How each stream's last interval of listening stands: `id_hi` is how it ended, or LISTENING,
    `id` its carrier, `ts_event` up to when the stream was heard.
    """

    def advance(self, records: RecordArray) -> None:
        """Note what is new. Few records: a stream has one when it begins and one when it ends."""
        entries = self._file.up_to(int(records["stream"].max(initial=0)))
        for record in records:
            slot, carrier, at = (int(record[name]) for name in ("stream", "carrier", "at"))
            if record["mark"] == CoverageMark.ALIVE:
                carried = (entries["id_hi"] == LISTENING) & (entries["id"] == carrier)
                entries["ts_event"][carried] = np.maximum(entries["ts_event"][carried], at)
                continue
            began = record["mark"] == CoverageMark.BEGAN
            end = LISTENING if began else int(record["end"])
            entries[slot] = (end, carrier, at, int(record["ts_recv"]))

    def catch_up(self, records: RecordArray) -> None:
        """Note what may have been noted before."""
        for place, record in enumerate(records):
            is_new = (
                record["ts_recv"]
                > self._file.up_to(int(record["stream"]))["ts_recv"][record["stream"]]
            )
            if is_new or record["mark"] == CoverageMark.ALIVE:
                self.advance(records[place : place + 1])


def read_position(directory: Path, kind: str, slot: int) -> Position | None:
    """Return the last row of a stream, or None when it never had one."""
    try:
        with _path(directory, kind).open("rb") as file:
            file.seek(slot * ENTRY.itemsize)
            raw = file.read(ENTRY.itemsize)
    except FileNotFoundError:
        return None
    if len(raw) < ENTRY.itemsize:
        return None
    entry = np.frombuffer(raw, dtype=ENTRY)[0]
    position = Position(*(int(value) for value in entry.tolist()))
    return position if position.ts_recv else None


def _path(directory: Path, kind: str) -> Path:
    return directory / f"{kind}.positions"
