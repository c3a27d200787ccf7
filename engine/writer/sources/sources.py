"""All sources of the writer: the rings it must have ready, and what earlier runs left behind.

At start every ring file found in shared memory is attached (a crash leaves them), rings the
configuration wants and that are not there are created with a new epoch, and journals of other
epochs become sources without a ring. All of it is delivered before anything is removed.

How far drained epochs went is remembered: one that a database lacks rows of, because it was set
back, becomes a source again, and its rows are declared lost.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

from engine.base.clock import wall_ns
from engine.data.kind import Kind
from engine.data.kinds import BOOK, COVERAGE, KINDS, LIQUIDATION, QUOTE, TRADE
from engine.data.layout import Layout, SourceKey
from engine.data.positions import CoveragePositions, Positions
from engine.data.ring import RingReader
from engine.data.ring_files import kind_of, make_ring
from engine.data.segment import Segment, attach_segment
from engine.messages.settings import RingSettings
from engine.writer.sources.journal import Journal, JournalLimit
from engine.writer.sources.source import (
    NOBODY,
    LiveRing,
    PumpLatencies,
    Readers,
    Source,
    journal_directory,
)

_log = logging.getLogger(__name__)

_POSITIONS_AGE_S: Final = 120.0
"""After a power cut positions are as the kernel wrote them last, which it does twice a minute. A
shard that goes on from there would take rows for new which are in the journal."""
_REMEMBERED_NS: Final = 30 * 86_400 * 1_000_000_000
"""The age of the oldest backup that is noticed for sure; cursors are kept as long."""
_REMEMBERED_EPOCHS: Final = 64
"""Of one ring, 8 KB each: somebody may start and stop all day."""
_STAMPED_BY_VENUES: Final = (
    TRADE.name, BOOK.name, QUOTE.name, LIQUIDATION.name,
)  # fmt: skip
"""Not funding and open interest, which have our time where a venue gives none."""


class Sources:
    """The list, and the parts its members share."""

    def __init__(
        self, layout: Layout, segment_bytes: int, readers: Readers, journal_max_bytes: int = 0
    ) -> None:
        """Of `journal_max_bytes` see `JournalLimit`."""
        self._limit = JournalLimit(journal_max_bytes)
        self._layout = layout
        self._readers = readers
        self._segment_bytes = segment_bytes
        self._positions = {kind: _positions(layout, spec) for kind, spec in KINDS.items()}
        self._sources: tuple[Source, ...] = ()
        self.live: tuple[Source, ...] = ()
        """Those with a ring. It is another object whenever one has come or gone."""
        self._rings: list[RingReader] = []
        self._drained: dict[SourceKey, int] = {}
        self._wanted: frozenset[str] = frozenset()
        """Rings that somebody writes to, or will."""
        self.latencies = PumpLatencies()
        self.on_delivered: Callable[[], object] = lambda: None
        """Called before sources go of which the database has everything: the last chance to say
        how they stand."""

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources)  # a tuple: who waits between two does not miss one

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def instance(self) -> str:
        """Whose rings they are: the first part of their names in shared databases."""
        return self._layout.instance

    @property
    def drained(self) -> dict[SourceKey, int]:
        """How far each went of which a database had all, for good."""
        recalled = {s.key: s.head_seq for s in self._sources if s.is_drained}
        return self._drained | recalled

    def recall(self, lacking: Iterable[SourceKey]) -> None:
        """Make sources again of drained epochs that the database has not all of."""
        for key in lacking:
            if self._drained.pop(key, None) is not None:
                self._hold([*self._sources, self._without_ring(self._ring_of(key), key.epoch)])

    def open(self, wanted: list[RingSettings]) -> None:
        """Attach and create rings, then find older journals."""
        self.want(settings.ring for settings in wanted)
        found = {path.stem: path for path in sorted(self._layout.shm_dir.glob("*.ring"))}
        for ring, path in found.items():
            self._add(ring, attach_segment(path, writable=True))
        for settings in wanted:
            if settings.ring not in found:
                self._add(settings.ring, make_ring(self._layout, settings.ring, settings.capacity))
        live = {(source.name, source.epoch) for source in self._sources}
        for directory in sorted(self._layout.journal_dir.glob("*/*")):
            ring = directory.parent.name
            if not _is_journal(directory):
                _log.warning("%s is no journal of ours: left alone", directory)
            elif (ring, int(directory.name)) not in live:
                self._add_journal(ring, int(directory.name))
        self._forget_old()

    def want(self, rings: Iterable[str]) -> None:
        """Nobody writes to any other ring: they go when everybody has their rows."""
        self._wanted = frozenset(rings)

    def note_waiting(self) -> None:
        """See how much waits, which may be limited; about once a second."""
        self._limit.note(sum(source.waiting_bytes for source in self._sources))

    def ask_for_doorbell(self, wanted: bool) -> None:
        """Ask the producers to ring when they publish. After asking, look at the heads once more.
        Whoever is rung asks that nobody rings, until somebody wants to sleep again.
        """
        for reader in self._rings:
            reader.ask_for_doorbell(wanted)

    def let_go(self) -> None:
        """Where nobody wants every row: what the rings have is not waited for."""
        if not self._readers.every_row:
            for source in self._sources:
                source.advance(NOBODY, source.head_seq, durable=True)

    def remove_delivered(self) -> None:
        """Forget sources that nobody writes to and whose rows the database has for good; rings
        among them once the readers of live rows have them, too.
        """
        delivered = [
            source
            for source in self._sources
            if (not source.is_live or (source.name not in self._wanted and source.is_read))
            and source.is_delivered
        ]
        if delivered:
            self.on_delivered()
        for source in delivered:
            _log.info("delivered what was left in %s/%d", source.name, source.epoch)
            source.remove()
            self._hold([each for each in self._sources if each is not source])
            self._remember(source)
        self._forget_old()

    def remove_all(self) -> int:
        """Clean end: remove rings and delivered journals. Returns the rows not yet delivered."""
        undelivered = sum(source.backlog_rows for source in self._sources)
        for source in self._sources:
            source.remove()
            self._remember(source)
        self._hold([])
        self._forget_old()
        for positions in self._positions.values():
            positions.close()
        if self._layout.shm_dir.exists() and not any(self._layout.shm_dir.iterdir()):
            self._layout.shm_dir.rmdir()
        return undelivered

    def _hold(self, sources: Iterable[Source]) -> None:
        """These are all. The oldest rows are delivered first."""
        self._sources = tuple(sorted(sources, key=lambda source: source.epoch))
        self.live = tuple(source for source in self._sources if source.is_live)
        self._rings = [source.reader for source in self.live if source.reader]

    def _remember(self, source: Source) -> None:
        """Close a source; what the database has all of is not looked at again without need."""
        if source.is_drained and source.head_seq:
            self._drained[source.key] = source.head_seq
        source.close()

    def _forget_old(self) -> None:
        """Each ring's newest drained epoch stays, and what was drained as long ago as no backup is
        restored goes: when its successor was made is when it had ended.

        A clock of ours that is a year ahead for a minute must not empty the memory: it is as late
        as it says and as the venues say.
        """
        oldest = min(wall_ns(), self._venues_ns()) - _REMEMBERED_NS
        for _, found in groupby(sorted(self._drained), key=lambda key: key.ring):
            keys = list(found)
            for place, (key, successor) in enumerate(pairwise(keys), start=1):
                if successor.epoch < oldest or len(keys) - place >= _REMEMBERED_EPOCHS:
                    del self._drained[key]
                    self._without_ring(self._ring_of(key), key.epoch).forget()

    def _venues_ns(self) -> int:
        """The newest time that a venue told."""
        return max(self._positions[kind].newest_ns for kind in _STAMPED_BY_VENUES)

    def _add(self, ring: str, segment: Segment) -> None:
        spec = kind_of(ring)
        reader = RingReader(memoryview(segment.memory), spec)
        journal = self._journal(ring, reader.epoch, spec)
        positions = self._positions[spec.name]
        source = Source(
            self._layout.instance,
            ring,
            spec,
            journal,
            positions,
            self.latencies,
            LiveRing(reader, segment),
            self._readers,
            self._limit,
        )
        waiting = source.head_seq - source.journal_seq
        if waiting:
            _log.info("%s holds %d rows of an earlier run", ring, waiting)
        self._hold([*self._sources, source])

    def _add_journal(self, ring: str, epoch: int) -> None:
        source = self._without_ring(ring, epoch)
        if source.head_seq == 0:
            source.forget()
            return
        if source.is_drained:
            source.remove()  # whatever of it was left when the writer was killed
            self._remember(source)
            return
        for rows in source.journal.newest_rows(_POSITIONS_AGE_S):
            self._positions[source.spec.name].catch_up(rows)
        directory = source.journal.directory
        _log.info("the journal of %s/%d holds rows of an earlier run: %s", ring, epoch, directory)
        self._hold([*self._sources, source])

    def _without_ring(self, ring: str, epoch: int) -> Source:
        spec = kind_of(ring)
        journal = self._journal(ring, epoch, spec)
        positions = self._positions[spec.name]
        return Source(
            self.instance, ring, spec, journal, positions, self.latencies, None, self._readers,
            self._limit,
        )  # fmt: skip

    def _ring_of(self, key: SourceKey) -> str:
        return key.ring.removeprefix(f"{self.instance}/")

    def _journal(self, ring: str, epoch: int, spec: Kind) -> Journal:
        directory = journal_directory(self._layout.journal_dir, ring, epoch)
        return Journal(directory, spec, epoch, self._segment_bytes)


def _positions(layout: Layout, spec: Kind) -> Positions:
    made = CoveragePositions if spec.name == COVERAGE.name else Positions
    return made(layout.positions_dir, spec)


def _is_journal(directory: Path) -> bool:
    kind = directory.parent.name.rpartition(".")[2]
    return directory.is_dir() and directory.name.isdecimal() and kind in KINDS
