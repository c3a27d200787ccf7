"""Why rows wait although the database is there: a table that takes none, or a clock that is wrong.

What waits is a source (a ring and its journal): its cursor stands, and the others go on.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

import numpy as np

from engine.backoff import Backoff
from engine.clock import monotonic_s, wall_ns
from engine.errors import TableRefusesError
from engine.keep_trying import Trouble
from engine.records import RecordArray, RecordKind
from engine.writer.screen import FUTURE_NS

_log = logging.getLogger(__name__)

_TABLE_FIRST_S: Final = 0.25
_TABLE_MOST_S: Final = 5.0
_PATIENCE_S: Final = 600.0
"""For this long the rows of a table wait for it to change, even if it takes others than these: a
chunk may be frozen while it is being moved. Then they are to blame, such as a late row for a day
that is archived for good."""

_CLOCK_RETRY_S: Final = 1.0
_WITNESS_S: Final = 60.0
_AGREEMENT_NS: Final = 300_000_000_000
_CLOCK_STEP_NS: Final = 60_000_000_000
_LATEST_NS: Final = 4_102_444_800_000_000_000
"""2100-01-01 UTC. No clock is that far behind: such a row is refused for what it is."""
_ONE_VENUE_S: Final = 3600.0
"""For so long a venue that nobody contradicts is believed. Then its rows are refused, declared and
kept: were they right after all, `fts quarantine retry` stores them."""


class TableWaits:
    """Tables that take no rows for now. Each is tried again at its own pace."""

    def __init__(self, clock_s: Callable[[], float] = monotonic_s) -> None:
        self._clock_s = clock_s
        self._troubles: dict[str, Trouble] = {}
        self._next_s: dict[str, float] = {}

    def refused(self, error: TableRefusesError) -> None:
        """A table took none of the rows."""
        trouble = self._troubles.get(error.table)
        if trouble is None:
            trouble = self._troubles[error.table] = Trouble(
                "database",
                "its rows wait in the journal, other tables go on",
                Backoff(_TABLE_FIRST_S, _TABLE_MOST_S),
                _log,
                self._clock_s,
            )
        self._next_s[error.table] = self._clock_s() + trouble.met(error)

    def taken(self, tables: Iterable[str]) -> None:
        """These took rows."""
        for table in tables:
            if table in self._next_s:
                self._troubles[table].over()
                del self._next_s[table]

    def only(self, tables: Collection[str]) -> None:
        """These are all tables that rows wait for: what another one said is over."""
        self.taken([table for table in self._next_s if table not in tables])

    def waits(self, table: str) -> bool:
        """Whether it is not to be tried yet."""
        return self._clock_s() < self._next_s.get(table, 0.0)

    @property
    def impatient(self) -> frozenset[str]:
        """Tables that have been in this state for so long that rows may be set aside."""
        long_ago_s = self._clock_s() - _PATIENCE_S
        return frozenset(t for t in self._next_s if self._troubles[t].since_s <= long_ago_s)

    @property
    def text(self) -> str:
        """What the first of them says; empty while all take rows."""
        return next((self._troubles[table].text for table in self._next_s), "")


class ClockDoubt:
    """Judges whose clock is wrong when a venue's rows seem to come from the future.

    Where a live row of any stream agrees with our clock (within five minutes, in the last minute,
    without a step of our clock since), the others are wrong, and are refused for it. Where none
    does, our clock is behind: a machine without a battery starts in the past, and is put right a
    moment later. Such rows wait until then, in ring and journal; nothing else bounds it, unless
    there is only one venue, which may be wrong itself.
    """

    def __init__(
        self,
        venue_of: Callable[[int], str],
        clock_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._venue_of = venue_of
        self._clock_s = clock_s
        self._next_s: dict[object, float] = {}
        """When to look again at each source whose rows wait."""
        self._venues: set[str] = set()
        self._since_s = 0.0
        self._witness: tuple[float, int] | None = None
        """When a row agreed with our clock, and how far that was from the monotonic one (ns)."""
        self._trouble = Trouble(
            "clock", "rows wait in the journal until it is right", Backoff(), _log, clock_s
        )

    @property
    def text(self) -> str:
        """By how much our clock is wrong; empty while nothing waits for it."""
        return self._trouble.text if self._next_s else ""

    def waits(self, source: object) -> bool:
        """Whether the source's next rows were in doubt a moment ago."""
        return self._clock_s() < self._next_s.get(source, 0.0)

    def only(self, sources: Collection[object]) -> None:
        """These are all sources with rows that wait: others need not wait any more."""
        for source in [source for source in self._next_s if source not in sources]:
            self._settled(source)

    def doubts(self, source: object, kind: RecordKind, records: RecordArray) -> bool:
        """Whether the next rows of a source shall wait for our clock. Gaps never do: it is our
        clock that stamps them.
        """
        if kind is RecordKind.GAP or not len(records):
            return False
        now_ns = wall_ns()
        times = records["ts_event"]
        if times.max() <= now_ns + FUTURE_NS:
            self._hear(records[-1:], now_ns)
            return self._settled(source)
        ahead = (times > now_ns + FUTURE_NS) & (times < _LATEST_NS)
        self._hear(records[~ahead], now_ns)
        if not ahead.any() or self._is_witnessed(now_ns):
            return self._settled(source)
        return self._suspect(source, records[ahead], now_ns)

    def _hear(self, records: RecordArray, now_ns: int) -> None:
        """Note a live row that agrees with our clock. What a venue gives no time for has ours."""
        times = records["ts_event"]
        near = np.abs(times - now_ns) < _AGREEMENT_NS
        if (near & (times != records["ts_recv"])).any():
            now_s = self._clock_s()
            self._witness = now_s, now_ns - int(now_s * 1e9)

    def _is_witnessed(self, now_ns: int) -> bool:
        if self._witness is None:
            return False
        now_s = self._clock_s()
        heard_s, offset_ns = self._witness
        stepped_ns = abs(now_ns - int(now_s * 1e9) - offset_ns)
        return now_s - heard_s <= _WITNESS_S and stepped_ns < _CLOCK_STEP_NS

    def _suspect(self, source: object, ahead: RecordArray, now_ns: int) -> bool:
        now_s = self._clock_s()
        if not self._next_s and not self._venues:
            self._since_s = now_s
        self._venues |= {self._venue_of(int(slot)) for slot in np.unique(ahead["stream"])}
        if len(self._venues) == 1 and now_s - self._since_s >= _ONE_VENUE_S:
            self._next_s.clear()
            return False
        span = _in_words(int(np.median(ahead["ts_event"])) - now_ns)
        self._trouble.met(f"this machine's clock is {span} behind the venues'")
        self._next_s[source] = now_s + _CLOCK_RETRY_S
        return True

    def _settled(self, source: object) -> bool:
        """These rows need not wait, whosever clock was wrong."""
        if self._next_s.pop(source, None) is not None and not self._next_s:
            self._venues.clear()
            self._trouble.over()
        return False


def _in_words(span_ns: int) -> str:
    days, hours = divmod(round(span_ns / 3_600_000_000_000), 24)
    if days < 2:
        return f"{24 * days + hours} h"
    return f"{days} days {hours} h" if hours else f"{days} days"
