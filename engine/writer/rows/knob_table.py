"""The streams' knobs as the consumers use them: masks by slot, and the smallest limits.

While a sink gets every stream, which is nearly always, a mask is None and costs
nothing. Otherwise a look-up table of booleans picks the rows of a slice in one vector operation.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from engine.data.kind import RecordArray
from engine.data.names import DEFAULT_DATABASE, is_database
from engine.messages.settings import FlushSettings, WriterSettings
from engine.messages.streams import KNOB_OF_SINK, ROWS_PER_COPY_MIN, Knobs

Mask = npt.NDArray[np.bool_]


class KnobTable:
    """The knobs of all streams. `set` replaces them all; consumers look here at every flush."""

    def __init__(self, settings: WriterSettings) -> None:
        self._configured = FlushSettings(
            settings.flush_rows, settings.flush_interval_s, settings.max_rows_per_copy
        )
        self._database = settings.database
        self._set: Mapping[int, Knobs] = {}
        self._masks: dict[str, Mask | None] = {}
        self.flush_rows = settings.flush_rows
        self.flush_interval_s = settings.flush_interval_s
        self.max_rows_per_copy = settings.max_rows_per_copy
        self.set(settings.knobs)

    def reconfigure(self, configured: FlushSettings) -> None:
        """Take over what holds where no stream's knobs say less."""
        self._configured = configured
        self.set(self._set)

    def set(self, knobs: Mapping[int, Knobs]) -> None:
        """Take over new knobs; absent slots have the defaults. The smallest limit governs, of the
        streams that no knob has given to another database.
        """
        self._set = knobs
        settings = self._configured
        every = [each for each in knobs.values() if each.database in (None, self._database)]
        self._masks = {
            sink: _mask(slot for slot, each in knobs.items() if not each.wants(sink))
            for sink in KNOB_OF_SINK
        }
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

    def wants(self, sink: str, slot: int) -> bool:
        """Whether a sink gets a stream's rows."""
        mask = self._mask(sink)
        return mask is None or bool(mask[min(slot, len(mask) - 1)])

    def withheld(self, sink: str) -> list[int]:
        """Slots whose rows a sink does not get."""
        mask = self._mask(sink)
        slots: list[int] = [] if mask is None else np.flatnonzero(~mask).tolist()
        return slots

    def chosen(self, sink: str, records: RecordArray) -> Mask | None:
        """Which rows a sink gets; None means all."""
        mask = self._mask(sink)
        if mask is None:
            return None
        chosen: Mask = mask[np.minimum(records["stream"], len(mask) - 1)]
        return None if chosen.all() else chosen

    def _mask(self, sink: str) -> Mask | None:
        return self._masks.get(DEFAULT_DATABASE if is_database(sink) else sink)


def _mask(off: Iterable[int]) -> Mask | None:
    slots = list(off)
    if not slots:
        return None
    mask = np.ones(max(slots) + 2, np.bool_)  # the last entry stands for every slot above
    mask[slots] = False
    return mask


def _least(configured: int, wanted: Iterable[int | None]) -> int:
    return min([configured, *(number for number in wanted if number)])
