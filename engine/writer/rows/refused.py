"""Rows that are refused, as the gaps that declare them. Pure: nothing here reads or writes.

A gap holds rows of one stream that follow each other in the ring, with none stored in between. It
names ids where these tell exactly which rows: the ids of trades where each is one more than the one
before, the sequences of book changes and quotes. Otherwise it names the time of the first and of
the last, and always how many there are. A refused record of a gap is declared with what it said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.data.flags import Flag, GapReason, GapState
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, GAP, QUOTE, TRADE
from engine.data.layout import SourceKey
from engine.writer.rows.screen import time_is_sane
from engine.writer.rows.screened import Blamed, Screened
from engine.writer.rows.slice import Loss, Part, Rows

_PARTS_MAX: Final = 8
"""More runs of ids than this, and the venue's ids do not order: one gap of times says as much."""

_Ints = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """One row with its place in the stream of things. `row` is a one-element array, and
    `detected_ns` names the gap of its stream that declares it."""

    table: str
    ring: str
    epoch: int
    seq: int
    row: RecordArray
    error: str
    detected_ns: int

    @property
    def slot(self) -> int:
        """Whose row it is."""
        return int(self.row["stream"][0])


@dataclass(frozen=True, slots=True)
class Refusals:
    """What becomes of the refused rows of a batch."""

    rows: Sequence[RefusedRow]
    gaps: RecordArray
    interrupted: frozenset[tuple[str, int]]
    """Kinds and slots whose last row is refused: their next one follows a gap."""


def declare(screened: Screened, now_ns: int) -> Refusals:
    """The refused rows with their gaps; rows that follow one are flagged AFTER_GAP.

    `now_ns` and the nanoseconds after it name the gaps: no two have the same.
    """
    rows: list[RefusedRow] = []
    gaps: list[RecordArray] = []
    interrupted: set[tuple[str, int]] = set()
    for line in _lines(screened):
        for part in line.gaps():
            gap = _gap(line.kind, line.records[part], now_ns + len(gaps))
            gaps.append(gap)
            rows += [line.row(int(place), now_ns + len(gaps) - 1) for place in part]
        if line.kind != GAP.name:
            line.flag_followers(screened)
            interrupted |= {(line.kind, slot) for slot in line.interrupted()}
    joined = np.concatenate(gaps) if gaps else np.empty(0, GAP.dtype)
    return Refusals(rows, joined, frozenset(interrupted))


class _Line:
    """Parts of one source that follow each other, with what is refused of them."""

    def __init__(self, origins: Sequence[Part], blamed: Sequence[Blamed]) -> None:
        self.kind = origins[0].spec.name
        self.records = np.concatenate([origin.records for origin in origins])
        self._origins = origins
        self._source = origins[0].source
        self._seqs = np.concatenate([Rows.of(origin).numbers for origin in origins])
        places = np.searchsorted(self._seqs, [each.seq for each in blamed])
        self._errors = {int(at): each.error for at, each in zip(places, blamed, strict=True)}
        self._bad: _Mask = np.zeros(len(self.records), np.bool_)
        self._bad[places] = True

    def row(self, place: int, detected_ns: int) -> RefusedRow:
        """The refused row at a place of the line."""
        return RefusedRow(
            table=self.kind,
            ring=self._source.ring,
            epoch=self._source.epoch,
            seq=int(self._seqs[place]),
            row=self.records[place : place + 1].copy(),
            error=self._errors[place],
            detected_ns=detected_ns,
        )

    def gaps(self) -> Iterator[_Ints]:
        """Places of refused rows, a gap each."""
        for mine in self._streams():
            edges = np.flatnonzero(np.diff(self._bad[mine].astype(np.int8))) + 1
            for run in np.split(mine, edges):
                if self._bad[run[0]]:
                    yield from _parts(self.kind, self.records, run)

    def flag_followers(self, screened: Screened) -> None:
        """Flag the rows before which one is refused."""
        follows = [
            mine[1:][self._bad[mine[:-1]] & ~self._bad[mine[1:]]] for mine in self._streams()
        ]
        seqs = self._seqs[np.concatenate(follows)]
        for origin in self._origins:
            inside = seqs[(seqs >= origin.start_seq) & (seqs < origin.end_seq)]
            if len(inside):
                screened.flag(origin, inside, Flag.AFTER_GAP)

    def interrupted(self) -> list[int]:
        """Slots whose last row is refused."""
        return [
            int(self.records["stream"][mine[-1]])
            for mine in self._streams()
            if self._bad[mine[-1]]
        ]  # fmt: skip

    def _streams(self) -> Iterator[_Ints]:
        """Places of all rows of each stream that has a refused one."""
        slots = self.records["stream"]
        for slot in np.unique(slots[self._bad]):
            yield np.flatnonzero(slots == slot)


def _lines(screened: Screened) -> Iterator[_Line]:
    """The parts with refused rows, joined by source. What declares a loss stands alone."""
    blamed_of: dict[int, list[Blamed]] = {}
    for blamed in screened.refused:
        blamed_of.setdefault(id(blamed.origin), []).append(blamed)
    lines: dict[tuple[SourceKey, int], list[Part]] = {}
    for origin in screened.parts:
        if len(origin.records):
            alone = id(origin) if isinstance(origin, Loss) else 0
            lines.setdefault((origin.source, alone), []).append(origin)
    for origins in lines.values():
        found = [blamed for origin in origins for blamed in blamed_of.get(id(origin), ())]
        if found:
            yield _Line(origins, found)


def _parts(kind: str, records: RecordArray, run: _Ints) -> list[_Ints]:
    """A run of refused rows, cut where that makes ids exact."""
    if kind == GAP.name:
        return np.split(run, len(run))
    if kind != TRADE.name:
        return [run]
    parts = np.split(run, np.flatnonzero(np.diff(records["trade_id"][run]) != 1) + 1)
    return parts if len(parts) <= _PARTS_MAX else [run]


def _gap(kind: str, rows: RecordArray, detected_ns: int) -> RecordArray:
    gap = np.zeros(1, GAP.dtype)
    if kind == GAP.name:
        gap[:] = rows
    else:
        times = np.where(time_is_sane(rows["ts_event"]), rows["ts_event"], rows["ts_recv"])
        gap["from_ts"], gap["to_ts"] = times.min(), times.max()
        gap["from_seq"], gap["to_seq"] = _ids(kind, rows)
        gap["missing"] = len(rows)
    gap["stream"] = rows["stream"][0]
    gap["reason"], gap["state"] = GapReason.QUARANTINED, GapState.OPEN
    gap["ts_event"] = gap["ts_recv"] = detected_ns
    return gap


def _ids(kind: str, rows: RecordArray) -> tuple[int, int]:
    """First and last id; zeros where they tell nothing."""
    match kind:
        case TRADE.name:
            ids = rows["trade_id"]
            exact = not rows["trade_id_hi"].any() and bool((np.diff(ids) == 1).all())
            return (int(ids[0]), int(ids[-1])) if exact else (0, 0)
        case BOOK.name | QUOTE.name:
            return int(rows["seq"].min()), int(rows["seq"].max())
        case _:
            return 0, 0
