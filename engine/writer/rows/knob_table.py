"""The streams' knobs as the sinks use them: masks by slot, and the smallest limits.

While every stream is stored and published, which is nearly always, a mask is None and costs
nothing. Otherwise a look-up table of booleans picks the rows of a slice in one vector operation.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from engine.data.kind import RecordArray
from engine.data.kinds import GAP
from engine.messages.settings import WriterSettings
from engine.messages.streams import ROWS_PER_COPY_MIN, Knobs

Mask = npt.NDArray[np.bool_]


class KnobTable:
    """The knobs of all streams. `set` replaces them all; the sinks look here at every flush."""

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self._stored: Mask | None = None
        self._published: Mask | None = None
        self.flush_rows = settings.flush_rows
        self.flush_interval_s = settings.flush_interval_s
        self.max_rows_per_copy = settings.max_rows_per_copy
        self.set(settings.knobs)

    def set(self, knobs: Mapping[int, Knobs]) -> None:
        """Take over new knobs; absent slots have the defaults. The smallest limit governs."""
        settings, every = self._settings, list(knobs.values())
        self._stored = _mask(slot for slot, each in knobs.items() if not each.db_writes_enabled)
        self._published = _mask(
            slot for slot, each in knobs.items() if not each.redis_publishes_enabled
        )
        copies = [each.max_rows_per_copy for each in every if each.max_rows_per_copy]
        self.max_rows_per_copy = _least(
            settings.max_rows_per_copy, (max(rows, ROWS_PER_COPY_MIN) for rows in copies)
        )
        self.flush_rows = min(
            _least(settings.flush_rows, (each.flush_rows for each in every)),
            self.max_rows_per_copy,
        )
        interval_ms = [each.flush_interval_ms for each in every if each.flush_interval_ms]
        self.flush_interval_s = min([settings.flush_interval_s, *(ms / 1e3 for ms in interval_ms)])

    def stores(self, slot: int) -> bool:
        """Whether the database gets a stream's rows."""
        mask = self._stored
        return mask is None or bool(mask[min(slot, len(mask) - 1)])

    @property
    def withheld(self) -> list[int]:
        """Slots whose rows the database does not get."""
        mask = self._stored
        slots: list[int] = [] if mask is None else np.flatnonzero(~mask).tolist()
        return slots

    def to_store(self, records: RecordArray, kind: str) -> Mask | None:
        """Which rows the database gets; None means all. Gaps always: the ledger stays whole."""
        return None if kind == GAP.name else _pick(self._stored, records)

    def to_publish(self, records: RecordArray) -> Mask | None:
        """Which rows Redis gets; None means all."""
        return _pick(self._published, records)


def _mask(off: Iterable[int]) -> Mask | None:
    slots = list(off)
    if not slots:
        return None
    mask = np.ones(max(slots) + 2, np.bool_)  # the last entry stands for every slot above
    mask[slots] = False
    return mask


def _pick(mask: Mask | None, records: RecordArray) -> Mask | None:
    if mask is None:
        return None
    chosen: Mask = mask[np.minimum(records["stream"], len(mask) - 1)]
    return None if chosen.all() else chosen


def _least(configured: int, wanted: Iterable[int | None]) -> int:
    return min([configured, *(number for number in wanted if number)])
