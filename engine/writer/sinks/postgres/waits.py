"""What keeps rows from a database that works: a table that takes none for now, or our own clock.

Rows of the other tables go on, and those of other sources.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.base.errors import TableRefusesError
from engine.base.keep_trying import Trouble
from engine.data.kind import RecordArray
from engine.data.kinds import GAP
from engine.data.layout import SourceKey
from engine.writer.rows.clock_doubt import ClockDoubt
from engine.writer.sinks.sink import Waits

_log = logging.getLogger(__name__)

_TABLE_FIRST_S: Final = 0.25
_TABLE_MOST_S: Final = 5.0
_PATIENCE_S: Final = 600.0
"""For this long the rows of a table wait for it to change, even if it takes others than these: a
chunk may be frozen while it is being moved. Then they are to blame, such as a late row for a day
that is archived for good."""


class TableWaits:
    """Tables that take no rows for now. Each is tried again at its own pace."""

    def __init__(self, clock_s: Callable[[], float] = monotonic_s, sink: str = "database") -> None:
        self._clock_s = clock_s
        self._sink = sink
        self._troubles: dict[str, Trouble] = {}
        self._next_s: dict[str, float] = {}

    def refused(self, error: TableRefusesError) -> None:
        """A table took none of the rows."""
        trouble = self._troubles.get(error.table)
        if trouble is None:
            trouble = self._troubles[error.table] = Trouble(
                self._sink,
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


class DatabaseWaits(Waits):
    """Both of them."""

    def __init__(self, venue_of: Callable[[int], str], sink: str = "database") -> None:
        self.clock = ClockDoubt(venue_of)
        self.tables = TableWaits(sink=sink)

    @property
    def text(self) -> str:
        """Why some wait; empty while none do."""
        return self.clock.text or self.tables.text

    def begin(self, behind: Mapping[SourceKey, str]) -> None:
        """What waited and is not there any more, because a knob or another writer took it, waits no
        longer. Any row may come with gaps that are to be declared.
        """
        self.clock.only(set(behind))
        self.tables.only({*behind.values(), GAP.name} if behind else set())

    def holds(
        self,
        source: SourceKey,
        kind: str,
        records: RecordArray | None = None,
        *,
        lost: bool = False,
    ) -> bool:
        """Whether nothing more of a source goes into the batch."""
        if records is None:
            return self.clock.waits(source) or self.tables.waits(kind)
        in_doubt = self.clock.doubts(source, kind, records)
        return in_doubt or (lost and self.tables.waits(GAP.name))

    def put_right(self, records: RecordArray) -> RecordArray:
        """The rows with the time at which they were received."""
        return self.clock.put_right(records)
