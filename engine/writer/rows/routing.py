"""Which rows of the sources are whose, where there are several databases.

The rules may change, but not for rows that were received before: a row is stored by the rules under
which it came, whatever dies or waits meanwhile. So the rules are kept in the state directory, era
by era, each with the sequence at which it begins in every source. A source that began later has
no rows of the eras before.

Every database's cursor passes all rows; those that are another one's are in no batch of it, are not
counted as withheld or lost, and no gap or coverage of their streams is told to it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from engine.base.durable import UNREADABLE, write_whole
from engine.base.errors import ConfigError, EngineError
from engine.data.kind import RecordArray
from engine.data.layout import SourceKey
from engine.data.names import DEFAULT_DATABASE
from engine.data.routes import Route, Routes
from engine.data.slots import Slots

Mask = npt.NDArray[np.bool_]

_SHOWN: Final = 3


class _Begin(msgspec.Struct, array_like=True):
    """Where an era begins in one source."""

    ring: str
    epoch: int
    seq: int


class _Era(msgspec.Struct):
    """Rules, and since when."""

    routes: list[Route] = []
    begins: list[_Begin] = []
    slots: dict[int, str] = {}
    """Streams that were given to a database by name, whatever the rules say."""

    @property
    def databases(self) -> set[str]:
        """All that are named."""
        return {*(route.database for route in self.routes), *self.slots.values()}


class Eras:
    """The rules of all rows that may still be in ring or journal; the last ones count now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._eras = _read(path)
        self._begins = [_by_source(era) for era in self._eras]

    def __len__(self) -> int:
        return len(self._eras)

    def forget(self, known: Collection[SourceKey]) -> None:
        """Forget eras of which no row is in these sources, which are all there are. Before anybody
        has a share: eras are known by their number.
        """
        while len(self._eras) > 1 and not any(self._begins[1].get(key, 0) for key in known):
            del self._eras[0], self._begins[0]

    def begin(
        self,
        routes: Sequence[Route],
        heads: Mapping[SourceKey, int],
        slots: Mapping[int, str] | None = None,
    ) -> None:
        """These rules count from now on, and before them what is said of single slots; `heads` are
        the ends of all sources that are known, also of those that were drained. On disk when this
        returns, before a row is stored by it. Raises EngineError; then nothing has changed.
        """
        began = [_Begin(*key, seq) for key, seq in sorted(heads.items()) if seq]
        era = _Era(list(routes), began, dict(slots or {}))
        if (era.routes, era.slots) == (self._eras[-1].routes, self._eras[-1].slots):
            return
        try:
            write_whole(self._path, msgspec.json.encode([*self._eras, era]))
        except OSError as error:
            raise EngineError(f"{self._path} cannot be written: {error.strerror}") from error
        self._eras.append(era)
        self._begins.append(_by_source(era))

    def pieces(self, source: SourceKey, start_seq: int, end_seq: int) -> Iterator[tuple[int, int]]:
        """(number of an era, where its part of the range ends), in order."""
        if start_seq >= self._begins[-1].get(source, 0):
            if start_seq < end_seq:
                yield len(self._begins) - 1, end_seq
            return
        begins = [begun.get(source, 0) for begun in self._begins]
        for number in range(len(begins)):
            ends_seq = min(begins[number + 1 :], default=end_seq)
            if start_seq < min(ends_seq, end_seq):
                start_seq = min(ends_seq, end_seq)
                yield number, start_seq

    def start(self, source: SourceKey, number: int) -> int:
        """Where an era begins in a source."""
        return self._begins[number].get(source, 0)

    def databases(self, number: int) -> set[str]:
        """All that an era names."""
        return self._eras[number].databases

    def owners(self, number: int, slots: Slots) -> list[str]:
        """By slot, whose its rows are in an era."""
        era = self._eras[number]
        routes = Routes(era.routes)
        return [era.slots.get(each.slot) or routes.database(each.key) for each in slots]


class Share:
    """What of the rows is one database's."""

    def __init__(self, sink: str, eras: Eras, slots: Slots) -> None:
        self._sink = sink
        self._eras = eras
        self._slots = slots
        self._masks: dict[int, Mask] = {}
        """By era, and slot; the last place stands for all slots that nobody knows."""

    def chosen(self, source: SourceKey, start_seq: int, records: RecordArray) -> Mask | None:
        """Which of a source's rows from `start_seq` on are its; None means all."""
        if not len(records):
            return None
        streams = records["stream"]
        most = int(streams.max())
        found, at_seq = [], start_seq
        for number, end_seq in self._eras.pieces(source, start_seq, start_seq + len(records)):
            mask = self._mask(number, most)
            part = streams[at_seq - start_seq : end_seq - start_seq]
            found.append(mask[np.minimum(part, len(mask) - 1)])
            at_seq = end_seq
        chosen = found[0] if len(found) == 1 else np.concatenate(found)
        return None if chosen.all() else chosen

    def start(self, source: SourceKey) -> int:
        """Where the first row is that may be its: before that it owes nothing. The default is owed
        all that no rule ever gave away.
        """
        if self._sink == DEFAULT_DATABASE:
            return 0
        for number in range(len(self._eras)):
            if self._sink in self._eras.databases(number):
                return self._eras.start(source, number)
        return self._eras.start(source, len(self._eras) - 1)

    def of_slots(
        self, source: SourceKey, start_seq: int, end_seq: int, slots: npt.NDArray[np.uint32]
    ) -> Mask:
        """Which of these streams may have had rows for it in a range of a source."""
        found = np.zeros(len(slots), np.bool_)
        if len(slots):
            for number, _ in self._eras.pieces(source, start_seq, end_seq):
                mask = self._mask(number, int(slots.max()))
                found |= mask[np.minimum(slots, len(mask) - 1)]
        return found

    def pieces(self, source: SourceKey, start_seq: int, end_seq: int) -> Iterator[tuple[int, int]]:
        """As `Eras.pieces`."""
        return self._eras.pieces(source, start_seq, end_seq)

    def left(self, source: SourceKey, number: int, from_seq: int) -> tuple[int, ...]:
        """Slots that were its in the era before, and are not in this one; none where a source was
        beyond the beginning of the era at `from_seq` already.
        """
        if not number or from_seq > self._eras.start(source, number):
            return ()
        most = max(len(self._slots) - 1, 0)
        before, now = self._mask(number - 1, most), self._mask(number, most)
        known = min(len(before), len(now)) - 1
        slots: list[int] = np.flatnonzero(before[:known] & ~now[:known]).tolist()
        return tuple(slots)

    def _mask(self, number: int, most_slot: int) -> Mask:
        mask = self._masks.get(number)
        if mask is None or most_slot >= len(mask) - 1:
            self._slots.refresh()
            if mask is None or len(mask) != len(self._slots) + 1:
                mask = self._masks[number] = self._made(number)
        return mask

    def _made(self, number: int) -> Mask:
        owners = self._eras.owners(number, self._slots)
        return np.array([owner == self._sink for owner in [*owners, DEFAULT_DATABASE]], np.bool_)


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of a source: from where to where, and of which streams that may be."""

    source: SourceKey
    start_seq: int
    end_seq: int
    slots: npt.NDArray[np.uint32]


def check_none_is_gone(
    eras: Eras, slots: Slots, databases: Collection[str], left: Sequence[Rest]
) -> None:
    """Raises ConfigError where rows may wait for a database that is not configured any more: nobody
    knows how many of them it has, so nobody else can have the rest.
    """
    every = set[str]().union(*map(eras.databases, range(len(eras))))
    for name in sorted(every - set(databases)):
        share = Share(name, eras, slots)
        waiting: set[int] = set()
        for rest in left:
            own = share.of_slots(rest.source, rest.start_seq, rest.end_seq, rest.slots)
            waiting.update(rest.slots[own].tolist())
        if waiting:
            entries = [slots.get(slot) for slot in sorted(waiting)[:_SHOWN]]
            names = ", ".join(str(each.key) for each in entries if each)
            raise ConfigError(
                f"{name} is not configured any more, and rows of {len(waiting)} streams may wait"
                f" for it ({names}): configure it until the engine has ended in order, or give"
                " its name the address of another database"
            )


def _by_source(era: _Era) -> dict[SourceKey, int]:
    return {SourceKey(each.ring, each.epoch): each.seq for each in era.begins}


def _read(path: Path) -> list[_Era]:
    if not path.exists():
        return [_Era()]
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[_Era]) or [_Era()]
    except (OSError, *UNREADABLE) as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
