"""What a proof found, as lines of at most 80 columns: by kind, and by venue where there are
several.

Books that were pushed whole and their changes are one kind to whoever reads this.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final, NamedTuple, Self

from control.proof.ledger_check import Unequal
from control.proof.verdict import Verdict, total

__all__ = ["proof_lines", "unequal_lines"]

_COLUMNS: Final = ("sent", "stored", "declared", "gaps", "equal")
_SHOWN_MAX: Final = 10
"""A loss of all streams is no longer to read than one of a few."""
_KIND_OF: Final = {"delta": "book", "whole": "book"}


class _Row(NamedTuple):
    """One line. Without `gaps` it is of what has none of its own."""

    name: str
    verdict: Verdict
    gaps: int | None

    @classmethod
    def sum_of(cls, name: str, rows: Iterable[Self]) -> Self:
        """A line for several."""
        rows = list(rows)
        return cls(name, total(row.verdict for row in rows), sum(row.gaps or 0 for row in rows))

    @property
    def cells(self) -> tuple[str, ...]:
        """As shown."""
        it = self.verdict
        gaps = "-" if self.gaps is None else f"{self.gaps:,}"
        numbers = (f"{number:,}" for number in (it.sent, it.stored, it.declared_missing))
        return self.name, *numbers, gaps, "yes" if it.is_equal else "NO"


def proof_lines(
    verdicts: Mapping[str, Mapping[str, Verdict]], gaps: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """A table of verdicts by venue and class of row, and of gaps by venue and kind of record. It is
    sorted by name and ends with the sums; of one venue it has a line a kind. Empty where nothing
    was sent and nothing declared.
    """
    venues = {
        venue: rows
        for venue in sorted(verdicts.keys() | gaps.keys())
        if (rows := list(_kinds(verdicts.get(venue, {}), gaps.get(venue, {}))))
    }
    if not venues:
        return []
    rows = [row for of_venue in venues.values() for row in of_venue]
    table = list(_grouped(venues)) if len(venues) > 1 else rows
    heading = "venue, kind" if len(venues) > 1 else "kind"
    cells = [row.cells for row in (*table, _Row.sum_of("all", rows))]
    return _aligned([(heading, *_COLUMNS), *cells])


def unequal_lines(unequal: Sequence[Unequal]) -> list[str]:
    """The streams to look at, where both sides are not equal."""
    lines = [
        f"not equal: {' '.join(each.stream)} {each.row_class}: "
        + ", ".join(f"{name} {count:,}" for name, count in asdict(each.verdict).items() if count)
        for each in unequal[:_SHOWN_MAX]
    ]
    more = len(unequal) - len(lines)
    return [*lines, f"and {more} more; --json names all"] if more else lines


def _kinds(verdicts: Mapping[str, Verdict], gaps: Mapping[str, int]) -> Iterator[_Row]:
    found = {kind: Verdict() for kind in gaps}
    for name, verdict in verdicts.items():
        found.setdefault(_KIND_OF.get(name, name), Verdict()).add(verdict)
    for kind, verdict in sorted(found.items()):
        of_kind = None if kind == "unreadable" else gaps.get(kind, 0)
        if verdict != Verdict() or of_kind:
            yield _Row(kind, verdict, of_kind)


def _grouped(venues: Mapping[str, list[_Row]]) -> Iterator[_Row]:
    for venue, rows in venues.items():
        yield _Row.sum_of(venue, rows)
        yield from (row._replace(name=f"  {row.name}") for row in rows)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{'>' if place else '<'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
