"""What the writer is told, and what it says of rings, rows and sinks."""

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
    database_seq: int
    redis_seq: int
    dropped_count: int
    capacity: int
    epoch: int = 0
    born_seq: int = 0
    """Its head when this writer began."""
    begun_seq: int | None = None
    """Where the database's cursor stood when this writer found it; None until it has. A database
    that was set back takes it back, below 0 where it lost more than there was at first."""
    found_rows: int = 0
    """Rows that turned out to have passed the cursor when the database was there again."""


class LatencyHistogram(msgspec.Struct):
    """Log-spaced counts: bucket i holds latencies in [10**(i/10), 10**((i+1)/10)) microseconds."""

    counts: list[int]
    sum_us: float = 0.0
    """Of the latencies themselves, not of their buckets."""


class WriterStatus(msgspec.Struct, tag=True):
    """Sent a few times a second by the writer. Row counts are by record kind."""

    rings: list[RingStatus]
    received_rows: dict[str, int]
    stored_rows: dict[str, int]
    published_rows: dict[str, int]
    overrun_rows: dict[str, int]
    quarantined_rows: dict[str, int]
    inexact_rows: int
    database_state: str
    database_error: str
    redis_state: str
    redis_error: str
    backlog_rows: int
    journal_bytes: int
    latency: dict[str, LatencyHistogram]
    rss_bytes: int
    cpu_s: float
    skipped_rows: dict[str, int] = {}
    """Rows not stored because a knob says so: no loss."""
    unpublished_rows: dict[str, int] = {}
    """Rows not published because a knob says so."""
    journal_error: str = ""
    """Why rows are not journalled; empty while they are."""
    lost_rows: int = 0
    """Rows that neither ring nor journal held any more when the database was ready for them."""
    lost_by_kind: dict[str, int] = {}
    """The same by record kind."""
    quarantine_rows: dict[str, int] = {}
    """Rows that are in quarantine now; `quarantined_rows` came there since this writer began."""
    waits_for: str = ""
    """Why rows wait though the database is there (our clock, a table); empty while none do."""
    redis_bytes: int = 0  # what the streams in Redis take, and below, what they may
    redis_budget_bytes: int = 0
