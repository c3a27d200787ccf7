"""What travels over the pipes between the supervisor and its children: msgspec, never pickle.

A frame is a little-endian u32 length and a JSON body (`engine.process.pipe`). Every message is a
member of one of the two unions at the end, told apart by its `type`.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from engine.data.slots import Instrument, StreamKey, StreamKind


class StreamState(enum.StrEnum):
    """Where a stream is in its life."""

    PENDING = "pending"
    CONNECTING = "connecting"
    SYNCING = "syncing"
    LIVE = "live"
    STALE = "stale"
    BACKOFF = "backoff"
    STOPPED = "stopped"
    FAILED = "failed"


class StreamSpec(msgspec.Struct, frozen=True):
    """A stream as it is handed to a shard. `instrument` is what the engine knows of it already, as
    a listing said that came at `listed_s` (monotonic; 0 where it is from an earlier run); `life`
    tells this stream from one of the same slot that was removed before.
    """

    slot: int
    key: StreamKey
    instrument: Instrument | None = None
    life: int = 0
    listed_s: float = 0.0


class StreamCounts(NamedTuple):
    """What a stream counts, or many of them together."""

    frame_count: int = 0
    row_count: int = 0
    gap_count: int = 0
    missing_count: int = 0
    duplicate_count: int = 0
    refused_count: int = 0
    """What the venue sent for the stream and no row could be made of."""

    @classmethod
    def total(cls, counts: "Iterable[StreamCounts]") -> "StreamCounts":
        """The sum of each."""
        return cls(*map(sum, zip(cls(), *counts, strict=True)))


def sum_by_kind(
    many: Iterable[Mapping[StreamKind, StreamCounts]],
) -> dict[StreamKind, StreamCounts]:
    """Kind by kind."""
    found: defaultdict[StreamKind, list[StreamCounts]] = defaultdict(list)
    for by_kind in many:
        for kind, counts in by_kind.items():
            found[kind].append(counts)
    return {kind: StreamCounts.total(each) for kind, each in found.items()}


class StreamStatus(msgspec.Struct):
    """What a shard says of one of its streams. Counters only grow while the shard lives."""

    slot: int
    state: StreamState
    reason: str = ""
    frame_count: int = 0
    row_count: int = 0
    gap_count: int = 0
    missing_count: int = 0
    duplicate_count: int = 0
    refused_count: int = 0
    last_recv_ns: int = 0
    life: int = 0
    """As in its `StreamSpec`."""


# supervisor -> child


class StartStreams(msgspec.Struct, tag=True):
    """Shard: begin these streams."""

    streams: list[StreamSpec]


class StopStreams(msgspec.Struct, tag=True):
    """Shard: end these streams."""

    slots: list[int]


class RenewBooks(msgspec.Struct, tag=True):
    """Shard: take a fresh snapshot of these books, where they run."""

    slots: list[int]


class InstrumentsStored(msgspec.Struct, tag=True):
    """Shard: the stream table knows these slots' instruments; they may subscribe."""

    slots: list[int]


class SyncRings(msgspec.Struct, tag=True):
    """Writer: take everything these rings hold into the journal, then answer `RingsSynced`."""

    request_id: int
    rings: list[str]


class Drain(msgspec.Struct, tag=True):
    """Any child: finish what you have and exit 0. The writer commits within `deadline_s`."""

    deadline_s: float


class SystemStatus(msgspec.Struct, tag=True):
    """Control: the whole system in one message (`engine.messages.status.EngineStatus`), as JSON."""

    body: msgspec.Raw


class KeyResult(msgspec.Struct):
    """What became of one stream of a command. `error_kind` is machine readable, "" is success:
    `stream_exists`, `stream_not_found`, `not_offered`, `limit`, `unavailable` (the engine drains),
    `contradiction` (then `field` names the knob).
    """

    key: StreamKey
    error_kind: str = ""
    error: str = ""
    field: str = ""


class CommandResult(msgspec.Struct, tag=True):
    """Control: the answer to its command `request_id`."""

    request_id: int
    results: list[KeyResult]


class LeaseGranted(msgspec.Struct, tag=True):
    """Answer to `LeaseRequest`: go ahead. It comes when the units fit: a budget that says before
    how long to wait could not hold back what waits when the venue bans us meanwhile.
    """

    request_id: int


class LeaseBlocked(msgspec.Struct, tag=True):
    """To who waits for a lease: the venue lets nobody through for `blocked_s`, because it answered
    with `status` (0 where another engine was answered).
    """

    venue: str
    pool: str
    blocked_s: float
    status: int = 0


class SeatsGranted(msgspec.Struct, tag=True):
    """Answer to `SeatsWanted`, and again when others have let go: how many of these there may be
    now. It is about the request `request_id`; one about an earlier request says nothing.
    """

    request_id: int
    venue: str
    pool: str
    count: int


class SetStreamKnobs(msgspec.Struct, tag=True):
    """Writer: knobs of these slots, all of them (absent slots have the defaults)."""

    knobs: "dict[int, Knobs]"


class StoreInstruments(msgspec.Struct, tag=True):
    """Writer: what a venue lists now, and what changed since the last listing."""

    venue: str
    instruments: list[Instrument]
    events: "list[InstrumentEvent]"
    loaded_ns: int = 0
    """When the supervisor took it in: the listing's name, so that repeating it stores nothing."""


ToChild = (
    StartStreams
    | StopStreams
    | RenewBooks
    | InstrumentsStored
    | SyncRings
    | Drain
    | SystemStatus
    | CommandResult
    | LeaseGranted
    | LeaseBlocked
    | SeatsGranted
    | SetStreamKnobs
    | StoreInstruments
)


# child -> supervisor


ROWS_PER_COPY_MIN: Final = 1000
"""What one stream may at least ask for: smaller transactions would throttle all the others."""


class Knobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be tuned on a running stream (the control API's word). None of the flush knobs
    means the configured value; among streams the smallest one governs the writer.
    """

    db_writes_enabled: bool = True
    redis_publishes_enabled: bool = True
    flush_rows: int | None = None
    flush_interval_ms: int | None = None
    max_rows_per_copy: int | None = None

    @property
    def keeps_rows_back(self) -> bool:
        """Whether there is a sink that gets none of the stream's rows."""
        return not (self.db_writes_enabled and self.redis_publishes_enabled)

    def contradiction(self, max_rows_per_copy: int | None) -> str:
        """What is wrong between `flush_rows` and the rest, "" when nothing is. The argument is
        the configured value, None where it is not known.
        """
        most = self.max_rows_per_copy or max_rows_per_copy
        if self.flush_rows is None or most is None or self.flush_rows <= most:
            return ""
        return f"flush_rows = {self.flush_rows} is more than max_rows_per_copy = {most}"


class KnobChanges(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some knobs of a stream; the absent ones stay. None: back to the configured value."""

    db_writes_enabled: bool | UnsetType = UNSET
    redis_publishes_enabled: bool | UnsetType = UNSET
    flush_rows: int | UnsetType | None = UNSET
    flush_interval_ms: int | UnsetType | None = UNSET
    max_rows_per_copy: int | UnsetType | None = UNSET

    def over(self, knobs: Knobs) -> Knobs:
        """`knobs` with these changes."""
        changes = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not UNSET
        }
        return msgspec.structs.replace(knobs, **changes)


class StreamRequest(msgspec.Struct):
    """A stream somebody wants, with knobs where not the defaults."""

    key: StreamKey
    knobs: Knobs = Knobs()


class AddStreams(msgspec.Struct, tag=True):
    """Control: begin these streams; answered by `CommandResult` at once, their state tells how
    it goes.
    """

    request_id: int
    streams: list[StreamRequest]


class RemoveStreams(msgspec.Struct, tag=True):
    """Control: end these streams; answered by `CommandResult`."""

    request_id: int
    keys: list[StreamKey]


class SetKnobs(msgspec.Struct, tag=True):
    """Control: change knobs of one stream; answered by `CommandResult`. It carries the changes
    alone, so that two clients who change different knobs at a time both get what they want.
    """

    request_id: int
    key: StreamKey
    changes: KnobChanges


class RenewBook(msgspec.Struct, tag=True):
    """Control: take a fresh snapshot of a book now; answered by `CommandResult` when its shard has
    been told.
    """

    request_id: int
    key: StreamKey


class InstrumentEvent(msgspec.Struct, frozen=True):
    """A listing changed: `listed`, `delisted` or `changed`; or its row cannot be read
    (`unreadable`), or can be again (`readable`). `detail` says what is new or wrong.
    """

    venue: str
    symbol: str
    event: str
    detail: str = ""


class InstrumentsLoaded(msgspec.Struct, tag=True):
    """Control: a venue's instruments as just fetched, for the writer to store."""

    venue: str
    instruments: list[Instrument]
    events: list[InstrumentEvent]


class LeaseRequest(msgspec.Struct, tag=True):
    """Any child: book `units` of a venue's budget. Pools: `rest_weight`, `ws_connects`,
    `ws_messages`, and what `shards.venues.venue_limits` adds. Answered by `LeaseGranted`.
    """

    request_id: int
    venue: str
    pool: str
    units: float


class SeatsWanted(msgspec.Struct, tag=True):
    """Any child: of a limit on what may be held at once it wants `count` in all, those it has
    included. A smaller number lets go of the others; a child that ends lets go of all.
    """

    request_id: int
    venue: str
    pool: str
    count: int


class LimitFeedback(msgspec.Struct, tag=True):
    """Any child: what the venue itself said of a budget (header, 429, 418, announced limit)."""

    venue: str
    pool: str
    used: float | None = None
    retry_after_s: float | None = None
    status: int = 0
    budget: float | None = None
    """What may be spent in a window, as far as the settings allow as much."""


class Ready(msgspec.Struct, tag=True):
    """The child has set up. `port` is the control process's, which serves once it has a status."""

    port: int = 0


class Heartbeat(msgspec.Struct, tag=True):
    """Control: its loop turns. The others say so with their status.

    It also judges what only it looks at (memory, open files, CPU, how long rows wait): its worst
    light goes into the engine's own, so that log, view and API say the same.
    """

    light: Literal["green", "yellow", "red"] = "green"
    reason: str = ""


class InstrumentsResolved(msgspec.Struct, tag=True):
    """Shard: the venue named these slots' instruments, at `listed_s` by the monotonic clock, which
    all processes of a machine share; 0.0 where the shard only repeats what it was handed.
    """

    instruments: dict[int, Instrument]
    listed_s: float = 0.0


class RingsSynced(msgspec.Struct, tag=True):
    """Writer: the rings of request `request_id` are in the journal."""

    request_id: int


class InstrumentsSaved(msgspec.Struct, tag=True):
    """Writer: the listing `loaded_ns` of a venue is in the database."""

    venue: str
    loaded_ns: int


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


class ShardStatus(msgspec.Struct, tag=True):
    """Sent a few times a second by each shard."""

    shard: int
    streams: list[StreamStatus]
    counts_by_kind: dict[StreamKind, StreamCounts]
    """Since this shard was born, also of streams that were removed since, to their last row."""
    malformed_by_reason: dict[str, int]
    connection_count: int
    reconnect_count: int
    loop_lag_ms: float
    rss_bytes: int
    cpu_s: float


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


FromChild = (
    Ready
    | Heartbeat
    | InstrumentsResolved
    | RingsSynced
    | InstrumentsSaved
    | ShardStatus
    | WriterStatus
    | AddStreams
    | RemoveStreams
    | SetKnobs
    | RenewBook
    | InstrumentsLoaded
    | LeaseRequest
    | SeatsWanted
    | LimitFeedback
)
