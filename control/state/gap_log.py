"""The newest gaps of all streams, with their causes, from the rings that the writer reads as well.

An array of fixed size (`GAPS_MAX`, 0.15 MB) that survives whoever looks and the end of a shard, but
no restart of this process: that begins with what the rings still hold. Gaps that the writer
declares (rows lost or set aside after their reception) are in no ring, but in the database.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from control.state.ring_follower import RingFollower
from engine.data.kind import RecordArray
from engine.data.kinds import GAP
from engine.data.layout import Layout, shard_name
from engine.messages.status import StreamReport

GAPS_MAX: Final = 4096
GAP_SEEN: Final = np.dtype(
    [
        ("slot", "<u4"), ("reason", "u1"), ("found_ns", "<i8"), ("from_ns", "<i8"),
        ("to_ns", "<i8"), ("missing", "<i8"),
    ]
)  # fmt: skip
"""Of the stream `slot`, for a `GapReason`: found then by our clock, between two times of the venue
(where it names none, when it was found). `missing` is in rows, -1 where nobody knows."""
_POLLS: Final = 4
_HISTORY_ROWS: Final = 1 << 20
"""All that a ring holds."""

GapsSeen = npt.NDArray[np.void]


class GapLog:
    """Follows the gap ring of every shard process that there is."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rings: dict[str, RingFollower] = {}
        self._gaps = np.zeros(GAPS_MAX, GAP_SEEN)
        self.count = 0
        """How many there were, from the first on."""

    def look(self, streams: Iterable[StreamReport]) -> None:
        """Take in what is new, of the processes that have these streams."""
        places = {(each.process, each.shard) for each in streams}  # a few, of hundreds of streams
        wanted = {process or shard_name(shard) for process, shard in places if shard >= 0}
        for process in wanted - self._rings.keys():
            self._rings[process] = RingFollower(self._layout, GAP)
        for process, ring in list(self._rings.items()):
            self._take(ring)
            if ring.is_attached and not ring.is_replaced:
                continue  # without a stream as well: it may get one, and nothing is told twice
            ring.detach("")
            if process not in wanted:
                del self._rings[process]
            elif ring.attach(process, _HISTORY_ROWS):
                self._take(ring)

    def after(self, count: int) -> GapsSeen:
        """Those that came after the first `count`, oldest first, as far as they are still known."""
        numbers = np.arange(max(count, self.count - GAPS_MAX, 0), self.count)
        return self._gaps[numbers % GAPS_MAX]

    def _take(self, ring: RingFollower) -> None:
        for rows in ring.poll_all(_POLLS):
            self._put(rows[-GAPS_MAX:])

    def _put(self, rows: RecordArray) -> None:
        places = np.arange(self.count, self.count + len(rows)) % GAPS_MAX
        found = rows["ts_recv"]
        begins = np.where(rows["from_ts"] > 0, rows["from_ts"], found)
        ends = np.where(rows["to_ts"] > 0, rows["to_ts"], begins)
        named = {
            "slot": rows["stream"], "reason": rows["reason"], "found_ns": found,
            "from_ns": begins, "to_ns": np.maximum(begins, ends), "missing": rows["missing"],
        }  # fmt: skip
        for name, values in named.items():
            self._gaps[name][places] = values
        self.count += len(rows)
