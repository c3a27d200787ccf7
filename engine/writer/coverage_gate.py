"""When what was listened to may be stored.

A coverage record says up to when everything is stored or declared, so it goes in only once all that
was received before it has. A shard publishes its coverage ring last; the gate notes how far the
coverage rings go, then how far every other one does, and lets the former through when the sink has
the latter. A sink that lags has claims that lag, and never wrong ones.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter

import numpy as np

from engine.data.flags import CoverageMark
from engine.data.kinds import GAP
from engine.writer.rows.routing import Share
from engine.writer.rows.slice import Loss, Part, Slice
from engine.writer.sources.source import Source

_NO_GAPS = np.empty(0, GAP.dtype)
"""Nobody misses rows when it is not known any more who listened."""


class CoverageGate:
    """Decides which coverage records go into the next batch of a sink."""

    def __init__(self, sink: str, share: Share | None = None) -> None:
        self._sink = sink
        self._share = share
        self._ends: dict[Source, int] = {}
        """How far coverage may be stored once the targets are."""
        self._targets: dict[Source, int] = {}

    def look(self, sources: Iterable[Source]) -> None:
        """Called before rows are read: note where everything stands, coverage first."""
        if self._targets:
            return
        known = list(sources)
        self._ends = {source: source.head_seq for source in known if source.is_coverage}
        self._targets = {source: source.head_seq for source in known if not source.is_coverage}

    def open(self, reached: Mapping[Source, int]) -> Iterator[Part]:
        """Called when the rows are chosen, with how far each source will be stored: the coverage
        records that may follow them."""
        if any(self._reached(reached, source) < end for source, end in self._targets.items()):
            return
        self._targets = {}
        found = [each for source, end in self._ends.items() for each in self._parts(source, end)]
        # What came under older rules is stored before newer ones end what it is about.
        yield from (part for _, part in sorted(found, key=itemgetter(0)))

    def _reached(self, reached: Mapping[Source, int], source: Source) -> int:
        return reached.get(source, source.progress(self._sink).seq)

    def _parts(self, source: Source, end_seq: int) -> Iterator[tuple[int, Part]]:
        """Pieces of a source, each with the number of the era that it is of."""
        seq = source.progress(self._sink).seq
        while seq < end_seq:
            first_seq, records = source.read(seq, end_seq - seq)
            if first_seq == seq and not len(records):
                return
            if first_seq > seq:
                loss = Loss(source.key, source.spec.name, seq, first_seq, _NO_GAPS)
                yield self._era(source, seq), loss
            if len(records):
                whole = Slice.whole(source.key, source.spec, first_seq, records)
                yield from self._own(whole, seq) if self._share else [(0, whole)]
            seq = first_seq + len(records)

    def _era(self, source: Source, seq: int) -> int:
        share = self._share
        return next((n for n, _ in share.pieces(source.key, seq, seq + 1)), 0) if share else 0

    def _own(self, whole: Slice, from_seq: int) -> Iterator[tuple[int, Slice]]:
        """Era by era and without other databases' streams. How far a carrier was heard concerns all
        of them.
        """
        share, key, first_seq = self._share, whole.source, whole.start_seq
        assert share is not None
        at_seq = first_seq
        for number, end_seq in share.pieces(key, first_seq, whole.end_seq):
            records = whole.records[at_seq - first_seq : end_seq - first_seq]
            own = share.chosen(key, at_seq, records)
            if own is not None:
                own |= records["mark"] == CoverageMark.ALIVE
            piece = Slice.whole(key, whole.spec, at_seq, records).sharing(own)
            yield number, replace(piece, left=share.left(key, number, from_seq))
            at_seq = from_seq = end_seq
