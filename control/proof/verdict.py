"""What a comparison with the ledger found, and which losses the database itself declares."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

__all__ = ["Connection", "Ints", "Verdict", "covered_by_gaps", "total"]

Connection = psycopg.Connection[tuple[Any, ...]]
Ints = npt.NDArray[np.int64]

_GAPS = "SELECT from_seq, to_seq, from_ts, to_ts FROM gap WHERE stream_id = ANY(%s)"


@dataclass(slots=True)
class Verdict:
    """Sums over streams of one class."""

    sent: int = 0
    stored: int = 0
    duplicates: int = 0
    missing: int = 0
    declared_missing: int = 0
    altered: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether all that was sent is stored once and unchanged, or declared."""
        is_complete = self.sent == self.stored + self.declared_missing
        return is_complete and not (self.duplicates or self.missing or self.altered)

    def add(self, other: "Verdict") -> None:
        """Add another stream's."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def total(verdicts: Iterable[Verdict]) -> Verdict:
    """What several verdicts say together."""
    whole = Verdict()
    for verdict in verdicts:
        whole.add(verdict)
    return whole


def covered_by_gaps(
    connection: Connection, stream_ids: Sequence[int], seqs: Ints, ts_event: Ints, late_ns: int = 0
) -> npt.NDArray[np.bool_]:
    """Tell for each row whether a gap of its stream declares it missing. Where rows have the time
    at which they came, they may do so `late_ns` after what the ledger says.
    """
    covered = np.zeros(len(seqs), dtype=np.bool_)
    for from_seq, to_seq, from_ts, to_ts in connection.execute(_GAPS, (list(stream_ids),)):
        if from_seq or to_seq:
            covered |= (seqs >= from_seq) & (seqs <= to_seq)
        else:  # a venue without ids: the gap is a span of venue time
            covered |= (ts_event + late_ns >= from_ts) & (ts_event <= to_ts)
    return covered
