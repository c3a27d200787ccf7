"""Parts of a batch, screened into rows to copy and rows to refuse."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.data.flags import Flag
from engine.writer.rows.copy import StreamLookup
from engine.writer.rows.exact import raised_decimals
from engine.writer.rows.screen import days, is_clean, number_fields, scales, unproven, unstorable
from engine.writer.rows.slice import IntArray, Part, Rows


@dataclass(frozen=True, slots=True)
class Blamed:
    """One row that is refused: its part, its sequence there, and why."""

    origin: Part
    seq: int
    error: str


@dataclass(slots=True)
class Screened:
    """Parts of a batch, their rows by kind, and what of them is refused."""

    parts: Sequence[Part]
    rows: dict[str, list[Rows]] = field(default_factory=dict)
    refused: list[Blamed] = field(default_factory=list)

    def days(self, kind: str) -> set[int]:
        """Days since 1970 UTC that the rows of a kind fall on."""
        return set().union(*(days(rows.records) for rows in self.rows[kind]))

    def refuse(self, blamed: Iterable[tuple[Rows, str]]) -> None:
        """Take out rows that the database does not take, one each."""
        refused = [Blamed(row.origin, int(row.numbers[0]), error) for row, error in blamed]
        self.refused += refused
        for kind, parts in list(self.rows.items()):
            left = [
                rows.without(
                    np.array([b.seq for b in refused if b.origin is rows.origin], np.int64)
                )
                for rows in parts
            ]
            self.rows[kind] = [rows for rows in left if len(rows.records)]
            if not self.rows[kind]:
                del self.rows[kind]

    def flag(self, origin: Part, seqs: IntArray, flag: Flag) -> None:
        """Give rows of a part one more flag; those that are not stored do not need it."""
        parts = self.rows.get(origin.spec.name, [])
        for place, rows in enumerate(parts):
            if rows.origin is origin:
                parts[place] = rows.flagged(seqs, flag)


def _with_rows(parts: Sequence[Part]) -> list[Part]:
    """Those of which something goes into a table of its kind."""
    return [part for part in parts if part.spec.columns and len(part.records)]


def screen(parts: Sequence[Part], lookup: StreamLookup) -> Screened:
    """Sort out the rows no database would take. The slots must have been looked up before."""
    screened = Screened(parts)
    for origin in _with_rows(parts):
        rows = Rows.of(origin)
        seqs = rows.numbers
        for group in unstorable(origin.records, origin.spec, lookup):
            bad = seqs[group.offsets]
            screened.refused += [Blamed(origin, seq, group.reason) for seq in bad.tolist()]
            rows = rows.without(bad)
        if len(rows.records):
            screened.rows.setdefault(origin.spec.name, []).append(rows)
    return screened


def is_spotless(parts: Sequence[Part], lookup: StreamLookup) -> bool:
    """Whether nothing has to be refused and no decimals raised. The usual case, in one pass."""
    return all(is_clean(part.records, part.spec, lookup) for part in _with_rows(parts))


def unscreened(parts: Sequence[Part]) -> Screened:
    """Parts that are spotless."""
    screened = Screened(parts)
    for origin in _with_rows(parts):
        screened.rows.setdefault(origin.spec.name, []).append(Rows.of(origin))
    return screened


def raised(screened: Screened, lookup: StreamLookup) -> dict[int, tuple[int, int]]:
    """Slots whose rows prove with more decimals than they have: slot -> (price, qty) decimals."""
    needs: dict[int, tuple[int, int]] = {}
    for parts in screened.rows.values():
        for name, transform in number_fields(parts[0].origin.spec):
            scale_by_slot = scales(lookup, transform)
            doubtful = {
                int(slot)
                for rows in parts
                for slot in np.unique(unproven(rows.records, name, scale_by_slot)["stream"])
            }
            for slot in doubtful:
                now = needs.get(slot, (int(lookup.price_decimals[slot]),
                                       int(lookup.qty_decimals[slot])))  # fmt: skip
                position = 0 if transform == "price" else 1
                values = _values(parts, slot, name)
                better = raised_decimals(values, now[position])
                if better > now[position]:
                    needs[slot] = (better, now[1]) if position == 0 else (now[0], better)
    return needs


def halves(parts: Sequence[Rows]) -> tuple[list[Rows], list[Rows]]:
    """Two or more rows in two parts of the same size, order kept."""
    room = sum(len(rows.records) for rows in parts) // 2
    left: list[Rows] = []
    right: list[Rows] = []
    for rows in parts:
        count = len(rows.records)
        taken = min(room, count)
        room -= taken
        if taken:
            left.append(rows if taken == count else rows.cut(0, taken))
        if taken < count:
            right.append(rows if taken == 0 else rows.cut(taken, count))
    return left, right


def nth(parts: Sequence[Rows], place: int) -> Rows:
    """The row at `place`, counted over all of them."""
    for rows in parts:
        if place < len(rows.records):
            return rows.cut(place, place + 1)
        place -= len(rows.records)
    raise IndexError(place)


def _values(
    parts: Sequence[Rows], slot: int, name: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = np.concatenate(
        [rows.records[name][rows.records["stream"] == slot] for rows in parts]
    )
    return values
