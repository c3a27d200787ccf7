"""What the writer is told, and what it says of rings, rows and sinks."""

from typing import ClassVar

import msgspec

from engine.messages.streams import Knobs


class SyncRings(msgspec.Struct, tag=True):
    """Writer: take everything these rings hold into the journal, then answer `RingsSynced`."""

    request_id: int
    rings: list[str]


class RingsSynced(msgspec.Struct, tag=True):
    """Writer: the rings of request `request_id` are in the journal."""

    request_id: int


class SetStreamKnobs(msgspec.Struct, tag=True):
    """Writer: knobs of these slots, all of them (absent slots have the defaults)."""

    knobs: "dict[int, Knobs]"


class RingStatus(msgspec.Struct):
    """One ring as its writer sees it; sequences count records since the ring's epoch."""

    ring: str
    kind: str
    head_seq: int
    journal_seq: int
    stored_seq: int
    """Where the cursor is of the sink by which rows are accounted for: the database."""
    dropped_count: int
    capacity: int
    epoch: int = 0
    born_seq: int = 0
    """Its head when this writer began."""
    begun_seq: int | None = None
    """Where that cursor stood when this writer found it; None until it has. A database
    that was set back takes it back, below 0 where it lost more than there was at first."""
    found_rows: int = 0
    """Rows that turned out to have passed the cursor when the database was there again."""


class LatencyHistogram(msgspec.Struct):
    """Log-spaced counts: bucket i holds latencies in [10**(i/10), 10**((i+1)/10)) microseconds."""

    counts: list[int]
    sum_us: float = 0.0
    """Of the latencies themselves, not of their buckets."""


class SinkStatus(msgspec.Struct):
    """One sink. Row counts are by record kind, since the writer began."""

    name: str
    state: str = "starting"
    error: str = ""
    rows: dict[str, int] = {}
    """Rows of rings that it took."""
    withheld_rows: dict[str, int] = {}
    """Rows that a knob keeps from it: no loss."""
    refused_rows: dict[str, int] = {}
    """Rows that it set aside for good, and declared."""
    missed_rows: dict[str, int] = {}
    """Rows that were gone before it was ready for them: lost and declared where it gets every row,
    overrun where it gets live ones."""
    set_aside_rows: dict[str, int] = {}
    """Rows in quarantine now, whoever put them there."""
    inexact_rows: int = 0
    backlog_rows: int = 0
    waits_for: str = ""
    """Why rows wait though it is there (our clock, a table); empty while none do."""
    used_bytes: int = 0
    """What its rows take in memory, and what they may."""
    budget_bytes: int = 0

    COUNTS: ClassVar = ("rows", "withheld_rows", "refused_rows", "missed_rows")


class BySink:
    """What has `sinks`, with the words that are used outside for two of them."""

    __slots__ = ()
    sinks: list[SinkStatus]

    @property
    def database(self) -> SinkStatus:
        """The database."""
        return self.sink("database")

    @property
    def redis(self) -> SinkStatus:
        """Redis."""
        return self.sink("redis")

    def sink(self, name: str) -> SinkStatus:
        """The sink of a name; one that nobody has told of yet is about to start."""
        return next((each for each in self.sinks if each.name == name), SinkStatus(name))


class WriterStatus(BySink, msgspec.Struct, tag=True):
    """Sent a few times a second by the writer. Row counts are by record kind."""

    rings: list[RingStatus]
    received_rows: dict[str, int]
    sinks: list[SinkStatus]
    """All there are, also those that are off."""
    journal_bytes: int
    latency: dict[str, LatencyHistogram]
    rss_bytes: int
    cpu_s: float
    journal_error: str = ""
    """Why rows are not journalled; empty while they are."""
