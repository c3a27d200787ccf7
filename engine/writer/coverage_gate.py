"""When what was listened to may be stored.

A coverage record says up to when everything is stored or declared, so it goes in only once all that
was received before it has. A shard publishes its coverage ring last; the gate notes how far the
coverage rings go, then how far every other one does, and lets the former through when the sink has
the latter. A sink that lags has claims that lag, and never wrong ones.
"""

from collections.abc import Iterable, Iterator, Mapping

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
        for source, end_seq in self._ends.items():
            yield from self._parts(source, end_seq)

    def _reached(self, reached: Mapping[Source, int], source: Source) -> int:
        return reached.get(source, source.progress(self._sink).seq)

    def _parts(self, source: Source, end_seq: int) -> Iterator[Part]:
        seq = source.progress(self._sink).seq
        while seq < end_seq:
            first_seq, records = source.read(seq, end_seq - seq)
            if first_seq == seq and not len(records):
                return
            if first_seq > seq:
                yield Loss(source.key, source.spec.name, seq, first_seq, _NO_GAPS)
            if len(records):
                yield self._own(Slice.whole(source.key, source.spec, first_seq, records))
            seq = first_seq + len(records)

    def _own(self, whole: Slice) -> Slice:
        """Without other databases' streams. How far a carrier was heard concerns all of them."""
        if self._share is None:
            return whole
        own = self._share.chosen(whole.source, whole.start_seq, whole.records)
        if own is None:
            return whole
        return whole.sharing(own | (whole.records["mark"] == CoverageMark.ALIVE))
