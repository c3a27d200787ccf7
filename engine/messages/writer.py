"""What the writer is told, and what it says of rings, rows and sinks."""

from collections import Counter
from collections.abc import Collection
from typing import Annotated, ClassVar, Final, NamedTuple

import msgspec
from msgspec import Meta

from engine.data.names import DEFAULT_DATABASE, is_database
from engine.messages.streams import Knobs

_Threshold = Annotated[float, Meta(gt=0, le=1e15)]
Thresholds = tuple[_Threshold, _Threshold]
"""Where yellow and red begin; the same twice: there is no yellow."""


def check_order(thresholds: msgspec.Struct, falling: Collection[str] = ()) -> None:
    """Raises ValueError where red begins before yellow. `falling` are worse the lower they are."""
    for name in thresholds.__struct_fields__:
        value = getattr(thresholds, name)
        if not isinstance(value, tuple):
            continue
        yellow, red = value
        if not (red <= yellow if name in falling else yellow <= red):
            raise ValueError(f"{name} = [{yellow:g}, {red:g}]: red begins before yellow")


class DatabaseThresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[database.health]`: from where on a database counts as behind, in its light and for the
    upkeep, which pauses then.
    """

    flush_delay_s: Thresholds = (5.0, 60.0)
    """Age of the rows that are being stored, in seconds."""
    backlog_rows: Thresholds = (2_000_000.0, 50_000_000.0)
    """Rows that wait."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec makes a refusal with the place."""
        check_order(self)


class SyncRings(msgspec.Struct, tag=True):
    """Writer: take everything these rings hold into the journal, then answer `RingsSynced`."""

    request_id: int
    rings: list[str]


class RingsSynced(msgspec.Struct, tag=True):
    """Writer: the rings of request `request_id` are in the journal."""

    request_id: int


class WantRings(msgspec.Struct, tag=True):
    """Writer: these rings are written to, or will be; nobody writes to any other."""

    rings: list[str]


class MakeWay(msgspec.Struct, tag=True):
    """Writer: finish within `deadline_s` what is under way, and leave; rings and journal stay for
    the next one.
    """

    deadline_s: float


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
    """Where the cursor is of the sink by which rows are accounted for: the default database,
    unless another one is spoken of."""
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
    elsewhere_rows: dict[str, int] = {}
    """Rows that another database is to have."""
    set_aside_rows: dict[str, int] = {}
    """Rows in quarantine now, whoever put them there."""
    inexact_rows: int = 0
    backlog_rows: int = 0
    waits_for: str = ""
    """Why rows wait though it is there (our clock, a table); empty while none do."""
    used_bytes: int = 0
    """What its rows take in memory, and what they may."""
    budget_bytes: int = 0

    COUNTS: ClassVar = (
        "rows", "withheld_rows", "refused_rows", "missed_rows", "elsewhere_rows",
    )  # fmt: skip

    @property
    def settled_rows(self) -> int:
        """Rows that a database is done with, in whatever way; those that a knob withholds are no
        rows that anybody waits for."""
        return sum(
            sum(rows.values()) for rows in (self.rows, self.refused_rows, self.elsewhere_rows)
        )


class LiveSink(NamedTuple):
    """What a sink of live rows is called outside, where its trouble is never more than yellow."""

    name: str
    """In status, lights, metrics, options, the log."""
    title: str
    """In sentences."""
    server: str
    """Where it is private."""


LIVE: Final = (LiveSink("redis", "Redis", "valkey"),)
"""All of them: what shows sinks shows the database and these."""
LIVE_TITLES: Final = " and ".join(each.title for each in LIVE)


class BySink:
    """What has `sinks`, told apart as they are outside."""

    __slots__ = ()
    sinks: list[SinkStatus]

    @property
    def database(self) -> SinkStatus:
        """The default database."""
        return self.sink(DEFAULT_DATABASE)

    @property
    def databases(self) -> list[SinkStatus]:
        """All of them, the default first."""
        return [each for each in self.sinks if is_database(each.name)] or [self.database]

    def database_rows(self, count: str = "rows") -> Counter[str]:
        """A count of all databases together, by record kind."""
        return sum((Counter(getattr(each, count)) for each in self.databases), Counter[str]())

    @property
    def live(self) -> list[SinkStatus]:
        """Those that get live rows."""
        return [self.sink(each.name) for each in LIVE]

    def live_rows(self, count: str = "rows") -> Counter[str]:
        """A count of those together, by record kind."""
        return sum((Counter(getattr(each, count)) for each in self.live), Counter[str]())

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
    rings_of: dict[str, list[RingStatus]] = {}
    """The rings once more with the cursors of each database beside the default, by its sink."""
