"""What one commit stores: slices of rings, screened into rows to copy and rows to refuse."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.data.flags import Flag
from engine.data.kind import Kind, RecordArray
from engine.writer.rows.copy import StreamLookup
from engine.writer.rows.exact import raised_decimals
from engine.writer.rows.screen import (
    Offsets,
    days,
    is_clean,
    number_fields,
    scales,
    unproven,
    unstorable,
)
from engine.writer.rows.withheld import WithheldSpan


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one ring. The cursor stands at `start_seq`; the rows begin at `first_seq`, which is
    later only where rows were lost. Where knobs hold rows back, `kept` says which of the
    `row_count` rows are left in `records`. With a `row_count` of 0 the records are no rows of the
    ring, but come with its next ones: the gaps that declare a loss."""

    ring: str
    epoch: int
    start_seq: int
    first_seq: int
    records: RecordArray
    spec: Kind
    kept: Offsets | None = None
    row_count: int | None = None

    @property
    def end_seq(self) -> int:
        """Sequence after the last row."""
        return self.first_seq + (len(self.records) if self.row_count is None else self.row_count)

    def keeping(self, chosen: "np.ndarray[Any, np.dtype[np.bool_]] | None") -> "Slice":
        """The same piece of the ring with the chosen rows only; None chooses all."""
        if chosen is None:
            return self
        kept = np.flatnonzero(chosen)
        return replace(self, records=self.records[kept], kept=kept, row_count=len(self.records))

    def seq(self, offset: int) -> int:
        """Sequence in the ring of the row at `offset` of the records."""
        return self.first_seq + (offset if self.kept is None else int(self.kept[offset]))

    @property
    def withheld_count(self) -> int:
        """Rows that knobs hold back."""
        if self.kept is None or self.row_count is None:
            return 0
        return self.row_count - len(self.records)

    @property
    def lost_count(self) -> int:
        """Rows before these that are lost."""
        return self.first_seq - self.start_seq

    @property
    def is_declaration(self) -> bool:
        """Whether these are the gaps of a loss and no rows of the ring."""
        return self.row_count == 0 and len(self.records) > 0

    @property
    def last_recv_ns(self) -> int | None:
        """`ts_recv` of the last row; None when there is none."""
        if self.is_declaration or not len(self.records):
            return None
        return int(self.records["ts_recv"][-1])


@dataclass(slots=True)
class CommitResult:
    """What one commit did, by record kind."""

    stored_rows: Counter[str] = field(default_factory=Counter)
    """Rows of rings; gaps that declare a loss come with them and are not counted."""
    quarantined_rows: Counter[str] = field(default_factory=Counter)
    inexact_rows: int = 0
    gaps: RecordArray | None = None
    """What was declared for the quarantined rows."""
    interrupted: frozenset[tuple[str, int]] = frozenset()
    """Kinds and slots whose last row in this commit was quarantined."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a slice that go into a COPY. `offsets` are theirs in the slice; None means all."""

    origin: Slice
    records: RecordArray
    offsets: Offsets | None = None

    def cut(self, start: int, stop: int) -> "Piece":
        """Some of its rows."""
        offsets = np.arange(len(self.records)) if self.offsets is None else self.offsets
        return Piece(self.origin, self.records[start:stop], offsets[start:stop])

    def without(self, offsets: Offsets) -> "Piece":
        """The rows that are at none of these places of the slice."""
        mine = np.arange(len(self.records)) if self.offsets is None else self.offsets
        stays = ~np.isin(mine, offsets)
        return Piece(self.origin, self.records[stays], mine[stays])

    def offset(self, position: int) -> int:
        """Place in the slice of the row at `position`."""
        return position if self.offsets is None else int(self.offsets[position])

    def seq(self, position: int) -> int:
        """Sequence in the ring of the row at `position`."""
        return self.origin.seq(self.offset(position))

    def flagged(self, offsets: Offsets, flag: Flag) -> "Piece":
        """The same rows; those at these places of the slice have one more flag."""
        mine = np.arange(len(self.records)) if self.offsets is None else self.offsets
        records = self.records.copy()
        records["flags"][np.isin(mine, offsets)] |= int(flag)
        return replace(self, records=records)


Pieces = list[Piece]


@dataclass(frozen=True, slots=True)
class Blamed:
    """One row that is refused: its place in its slice, and why."""

    origin: Slice
    offset: int
    error: str


@dataclass(slots=True)
class Batch:
    """Screened slices."""

    slices: Sequence[Slice]
    pieces: dict[str, Pieces] = field(default_factory=dict)
    refused: list[Blamed] = field(default_factory=list)
    withheld: Sequence[WithheldSpan] = ()

    def days(self, kind: str) -> set[int]:
        """Days since 1970 UTC that the rows of a kind fall on."""
        found: set[int] = set()
        for piece in self.pieces[kind]:
            found |= days(piece.records)
        return found

    def refuse(self, blamed: Iterable[tuple[Piece, str]]) -> None:
        """Take out rows that the database does not take, each a piece of one row."""
        refused = [Blamed(piece.origin, piece.offset(0), error) for piece, error in blamed]
        self.refused += refused
        for kind, pieces in list(self.pieces.items()):
            left = [
                piece.without(np.array([b.offset for b in refused if b.origin is piece.origin]))
                for piece in pieces
            ]
            self.pieces[kind] = [piece for piece in left if len(piece.records)]
            if not self.pieces[kind]:
                del self.pieces[kind]

    def flag(self, origin: Slice, offsets: Offsets, flag: Flag) -> None:
        """Give rows of a slice one more flag; those that are not stored do not need it."""
        pieces = self.pieces.get(origin.spec.name, [])
        for place, piece in enumerate(pieces):
            if piece.origin is origin:
                pieces[place] = piece.flagged(offsets, flag)


def screen(slices: Sequence[Slice], lookup: StreamLookup) -> Batch:
    """Sort out the rows no database would take. The slots must have been looked up before."""
    batch = Batch(slices)
    for origin in slices:
        if not origin.spec.columns or not len(origin.records):
            continue
        piece = Piece(origin, origin.records)
        for group in unstorable(origin.records, origin.spec, lookup):
            batch.refused += [Blamed(origin, int(each), group.reason) for each in group.offsets]
            piece = piece.without(group.offsets)
        if len(piece.records):
            batch.pieces.setdefault(origin.spec.name, []).append(piece)
    return batch


def is_spotless(slices: Sequence[Slice], lookup: StreamLookup) -> bool:
    """Whether nothing has to be refused and no decimals raised. The usual case, in one pass."""
    rows = [s for s in slices if s.spec.columns and len(s.records)]
    return all(is_clean(s.records, s.spec, lookup) for s in rows)


def unscreened(slices: Sequence[Slice]) -> Batch:
    """A batch of slices that are spotless."""
    batch = Batch(slices)
    for origin in slices:
        if origin.spec.columns and len(origin.records):
            batch.pieces.setdefault(origin.spec.name, []).append(Piece(origin, origin.records))
    return batch


def raised(batch: Batch, lookup: StreamLookup) -> dict[int, tuple[int, int]]:
    """Slots whose rows prove with more decimals than they have: slot -> (price, qty) decimals."""
    needs: dict[int, tuple[int, int]] = {}
    for kind, pieces in batch.pieces.items():
        for name, transform in number_fields(pieces[0].origin.spec):
            scale_by_slot = scales(lookup, transform)
            doubtful = {
                int(slot)
                for piece in pieces
                for slot in np.unique(unproven(piece.records, name, scale_by_slot)["stream"])
            }
            for slot in doubtful:
                now = needs.get(slot, (int(lookup.price_decimals[slot]),
                                       int(lookup.qty_decimals[slot])))  # fmt: skip
                position = 0 if transform == "price" else 1
                values = _values(batch.pieces[kind], slot, name)
                better = raised_decimals(values, now[position])
                if better > now[position]:
                    needs[slot] = (better, now[1]) if position == 0 else (now[0], better)
    return needs


def halves(pieces: Pieces) -> tuple[Pieces, Pieces]:
    """Two or more rows in two parts of the same size, order kept."""
    room = sum(len(piece.records) for piece in pieces) // 2
    left: Pieces = []
    right: Pieces = []
    for piece in pieces:
        count = len(piece.records)
        taken = min(room, count)
        room -= taken
        if taken:
            left.append(piece if taken == count else piece.cut(0, taken))
        if taken < count:
            right.append(piece if taken == 0 else piece.cut(taken, count))
    return left, right


def nth(pieces: Pieces, place: int) -> Piece:
    """The row at `place`, counted over all of them, as a piece of its own."""
    for piece in pieces:
        if place < len(piece.records):
            return piece.cut(place, place + 1)
        place -= len(piece.records)
    raise IndexError(place)


def _values(pieces: Pieces, slot: int, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = np.concatenate(
        [piece.records[name][piece.records["stream"] == slot] for piece in pieces]
    )
    return values
