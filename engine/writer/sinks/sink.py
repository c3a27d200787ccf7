"""What a sink is: somewhere rows are brought. `engine.writer.consumer` knows no more of one.

Invariants
- `take` is all or nothing to the sink's own cursors: after any error `open` and `cursors` tell what
  became of it. Errors that time may cure are `retriable`; a cursor that somebody else has moved is
  a FencedError.
- `open` forgets all that the session before knew. `cursors` may wait for a predecessor.
- Cancelling is safe anywhere. No sink is for two tasks at a time.
"""

import enum
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from engine.data.kind import RecordArray
from engine.data.layout import SourceKey
from engine.writer.rows.slice import Batch


class Promise(enum.StrEnum):
    """What a sink gets."""

    EVERY_ROW = "every_row"
    """All of them, exactly once: the journal keeps each until every such sink has it for good."""
    LIVE = "live"
    """What is in the rings: a sink that falls behind by more than half a ring misses rows, which
    are counted."""


class Cursor(NamedTuple):
    """How far a sink has taken a source; `seq` is None where it knows nothing of it. `last_recv_ns`
    is `ts_recv` of the last row below it, 0 where unknown."""

    seq: int | None
    last_recv_ns: int = 0


@dataclass(slots=True)
class Taken:
    """What became of a batch, by record kind."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows of rings; gaps that declare a loss come with them and are not counted."""
    refused: Counter[str] = field(default_factory=Counter)
    inexact_rows: int = 0
    gaps: RecordArray | None = None
    """What was declared for the refused rows."""
    interrupted: frozenset[tuple[str, int]] = frozenset()
    """Kinds and slots whose last row in this batch was refused."""


class Waits:
    """Why rows wait although the sink works, source by source. Here nothing does."""

    @property
    def text(self) -> str:
        """Why some wait; empty while none do."""
        return ""

    def begin(self, behind: Mapping[SourceKey, str]) -> None:
        """A batch is to be made; these are all sources that have rows for it."""

    def holds(
        self,
        source: SourceKey,
        kind: str,
        records: RecordArray | None = None,
        *,
        lost: bool = False,
    ) -> bool:
        """Whether nothing more of a source goes into the batch. Asked before its next rows are
        read, and again with them; `lost`: there is a loss before them.
        """
        return False

    def put_right(self, records: RecordArray) -> RecordArray:
        """The rows as they are to be stored."""
        return records


class Sink(Protocol):
    """To be subclassed. What has a body here, a sink has only if it needs it."""

    name: str
    """Its word in status, metrics, lights and the log."""
    promise: Promise

    @property
    def waits(self) -> Waits:
        """Why rows wait for something else than the sink."""
        return Waits()

    @abstractmethod
    async def open(self, drained: Mapping[SourceKey, int]) -> Collection[SourceKey]:
        """Begin a new session. `drained` is how far each source went of which nothing is left here;
        returned are those the sink lacks rows of.
        """

    @abstractmethod
    async def cursors(self, starts: Mapping[SourceKey, int]) -> Mapping[SourceKey, Cursor]:
        """Claim these sources. One that the sink has never heard of begins at its start."""

    @abstractmethod
    async def take(self, batch: Batch, *, durable: bool) -> Taken:
        """Take rows and move the cursors. `durable`: when this returns, everything taken so far is
        there for good; it may come without rows. Raises FencedError, TableRefusesError when rows of
        one kind have to wait (see `waits`), and the sink's own retriable error.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the session, if any."""

    async def tend(self) -> None:
        """Called between two batches, and every few seconds while there are none."""
        return

    @property
    def overdue(self) -> str:
        """Why an answer is late; empty while none is."""
        return ""

    @property
    def refuses(self) -> str:
        """What it refuses for now while it takes the rest; empty while that is nothing."""
        return ""

    @property
    def set_aside(self) -> Mapping[str, int]:
        """Refused rows that it keeps, by kind, whoever put them there."""
        return {}

    @property
    def memory_bytes(self) -> tuple[int, int]:
        """What its rows take in memory, and what they may; zeros where nobody counts."""
        return 0, 0
