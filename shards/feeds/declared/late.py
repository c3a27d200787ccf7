"""Rows that are older than the newest one: late copies, or all that comes now.

A venue repeats itself, and the next socket may lie a little behind the last one: such rows are
stored already. But the venue's clock may also have been set back, or one row was of the future by
mistake; then every row is older until time has caught up, and none of them is stored. Which it is,
only time can tell: what goes on for longer than any repetition is the venue's new time.
"""

from typing import Final

from engine.base.clock import monotonic_s
from shards.feeds.declared.gaps import Edges

_REPEATED_S: Final = 2.0
"""No venue repeats itself for longer."""
_BEHIND_S: Final = 10.0
"""Nor is the next socket further behind."""


class LateRows:
    """Of one stream, since its newest row."""

    __slots__ = (
        "_count", "_first_s", "_from_ts", "_is_behind", "_last_s", "_newest_before", "_newest_ts",
        "_to_ts",
    )  # fmt: skip

    def __init__(self) -> None:
        self._newest_before = self._newest_ts = -1
        self._first_s = self._last_s = 0.0
        self._from_ts = self._to_ts = 0
        self._count = 0
        self._is_behind = True

    def socket_begins(self, newest_ts: int) -> None:
        """Another socket brings the rows from now on; the ones before have come to `newest_ts`."""
        self._newest_before = newest_ts

    def add(self, ts_event: int, newest_ts: int) -> bool:
        """Note one that is older than the newest. Returns whether the venue means it: that is its
        time now.
        """
        self._last_s = monotonic_s()
        if newest_ts != self._newest_ts:
            self._newest_ts, self._first_s = newest_ts, self._last_s
            if not self.is_open:
                self._count, self._from_ts, self._to_ts = 0, ts_event, ts_event
        self._is_behind = newest_ts == self._newest_before and not self.is_open
        self._count += 1
        self._from_ts = min(self._from_ts, ts_event)
        self._to_ts = max(self._to_ts, ts_event)
        lasted_s = self._last_s - self._first_s
        return lasted_s > (_BEHIND_S if self._is_behind else _REPEATED_S)

    @property
    def is_open(self) -> bool:
        """Whether some came that may be stored nowhere. A single one among new ones is a copy. What
        a socket brings before it has brought anything new was brought by the one before.
        """
        return self._count > 1 and not self._is_behind

    @property
    def is_over(self) -> bool:
        """Whether no more of them come."""
        return self.is_open and monotonic_s() - self._last_s > _REPEATED_S

    def take(self) -> Edges:
        """Between which times they were, and start afresh."""
        edges = Edges(0, 0, self._from_ts, self._to_ts, -1)
        self._newest_ts, self._count = -1, 0
        return edges
