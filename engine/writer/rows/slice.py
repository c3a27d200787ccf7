"""What goes from the sources to the sinks: contiguous pieces of sources, and what is lost between.

A row is known by its source and its sequence there, wherever it is cut out. The gaps that declare a
loss are rows of no ring: they are known by the loss, and are numbered from where it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.data.flags import Flag
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import GAP
from engine.data.layout import SourceKey
from engine.writer.rows.withheld import WithheldSpan

IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)  # to make a frozen one costs four times as much
class Slice:
    """Sequences `start_seq` up to `end_seq` of a source, none of them lost. Where knobs withhold
    rows, or they are another database's, there are fewer `records`, and `seqs` are theirs; None:
    one after the other."""

    source: SourceKey
    spec: Kind
    start_seq: int
    end_seq: int
    records: RecordArray
    seqs: IntArray | None = None
    elsewhere_count: int = 0
    """Rows that another database is to have."""
    left: tuple[int, ...] = ()
    """Slots that were the sink's up to this piece, and are another database's from it on."""

    @classmethod
    def whole(cls, source: SourceKey, spec: Kind, start_seq: int, records: RecordArray) -> "Slice":
        """All rows from `start_seq` on."""
        return cls(source, spec, start_seq, start_seq + len(records), records)

    @classmethod
    def foreign(cls, source: SourceKey, spec: Kind, start_seq: int, end_seq: int) -> "Slice":
        """A piece that another database is to have, whether it can be read or not."""
        none = np.empty(0, spec.dtype)
        return cls(source, spec, start_seq, end_seq, none, elsewhere_count=end_seq - start_seq)

    def keeping(self, chosen: Mask | None) -> "Slice":
        """The same piece of the source with the chosen rows only; None keeps all."""
        if chosen is None:
            return self
        kept = np.flatnonzero(chosen)
        seqs = self.start_seq + kept if self.seqs is None else self.seqs[kept]
        return replace(self, records=self.records[kept], seqs=seqs)

    def sharing(self, own: Mask | None) -> "Slice":
        """The same piece with the rows that are not another database's; None: none is."""
        if own is None:
            return self
        return replace(self.keeping(own), elsewhere_count=int(len(own) - np.count_nonzero(own)))

    @property
    def withheld_count(self) -> int:
        """Rows that knobs hold back."""
        return self.end_seq - self.start_seq - len(self.records) - self.elsewhere_count

    @property
    def last_recv_ns(self) -> int | None:
        """`ts_recv` of the last row; None when there is none."""
        return int(self.records["ts_recv"][-1]) if len(self.records) else None


@dataclass(frozen=True, slots=True)
class Loss:
    """Sequences `start_seq` up to `end_seq` of a source, whose rows of a kind nobody holds any
    more, and as `records` the gaps that say so."""

    source: SourceKey
    kind: str
    start_seq: int
    end_seq: int
    records: RecordArray

    @property
    def spec(self) -> Kind:
        """What the records are."""
        return GAP

    @property
    def seqs(self) -> None:
        """The gaps are numbered one after the other."""
        return None

    @property
    def count(self) -> int:
        """Rows that are lost."""
        return self.end_seq - self.start_seq


Part = Slice | Loss


@dataclass(slots=True)
class Batch:
    """What a sink takes at once. Parts of one source follow each other without a hole; `gaps` are
    what another sink has declared, for those that only tell."""

    parts: Sequence[Part] = ()
    withheld: Sequence[WithheldSpan] = ()
    gaps: Sequence[RecordArray] = ()

    @property
    def slices(self) -> list[Slice]:
        """The parts that are rows of rings."""
        return [part for part in self.parts if isinstance(part, Slice)]

    @property
    def losses(self) -> list[Loss]:
        """The parts that are lost."""
        return [part for part in self.parts if isinstance(part, Loss)]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one part that go into a COPY. `seqs` as in a slice."""

    origin: Part
    records: RecordArray
    seqs: IntArray | None = None

    @classmethod
    def of(cls, origin: Part) -> "Rows":
        """All of them."""
        return cls(origin, origin.records, origin.seqs)

    @property
    def numbers(self) -> IntArray:
        """The sequence of each row, ascending."""
        if self.seqs is not None:
            return self.seqs
        start_seq = self.origin.start_seq
        return np.arange(start_seq, start_seq + len(self.records))

    def cut(self, start: int, stop: int) -> "Rows":
        """Some of its rows."""
        return Rows(self.origin, self.records[start:stop], self.numbers[start:stop])

    def without(self, seqs: IntArray) -> "Rows":
        """The rows of other sequences."""
        stays = ~np.isin(self.numbers, seqs)
        return Rows(self.origin, self.records[stays], self.numbers[stays])

    def flagged(self, seqs: IntArray, flag: Flag) -> "Rows":
        """The same rows; those of these sequences have one more flag."""
        records = self.records.copy()
        records["flags"][np.isin(self.numbers, seqs)] |= int(flag)
        return replace(self, records=records)
