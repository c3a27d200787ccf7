"""Streams as they travel: what is wanted of them, how they are, what they count."""

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from engine.data.instrument import Instrument
from engine.data.names import DEFAULT_DATABASE, StreamKey, StreamKind, is_database


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


KNOB_OF_SINK: Final = {DEFAULT_DATABASE: "db_writes_enabled", "redis": "redis_publishes_enabled"}
"""Which knob keeps a stream's rows from a sink, by its name; the default database's is that of all
databases. Other sinks get them all."""


class Knobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be tuned on a running stream (the control API's word). None of the flush knobs
    means the configured value; among streams the smallest one governs the writer.
    """

    db_writes_enabled: bool = True
    redis_publishes_enabled: bool = True
    flush_rows: int | None = None
    flush_interval_ms: int | None = None
    max_rows_per_copy: int | None = None
    database: str | None = None
    """Which of several databases has the stream, as the status calls it; None: as routed."""

    @property
    def of_sinks(self) -> "Knobs":
        """Those alone that say which sinks get the rows; equal to none at all where all do."""
        return Knobs(
            **{knob: getattr(self, knob) for knob in KNOB_OF_SINK.values()}, database=self.database
        )

    def wants(self, sink: str) -> bool:
        """Whether a sink of this name gets the stream's rows."""
        knob = KNOB_OF_SINK.get(DEFAULT_DATABASE if is_database(sink) else sink)
        return knob is None or bool(getattr(self, knob))

    def contradiction(self, max_rows_per_copy: int | None) -> str:
        """What is wrong between `flush_rows` and the rest, "" when nothing is. The argument is
        the configured value, None where it is not known.
        """
        most = self.max_rows_per_copy or max_rows_per_copy
        if self.flush_rows is None or most is None or self.flush_rows <= most:
            return ""
        return f"flush_rows = {self.flush_rows} is more than max_rows_per_copy = {most}"


ROWS_PER_COPY_MIN: Final = 1000
"""What one stream may at least ask for: smaller transactions would throttle all the others."""


class KnobChanges(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some knobs of a stream; the absent ones stay. None: back to the configured value."""

    db_writes_enabled: bool | UnsetType = UNSET
    redis_publishes_enabled: bool | UnsetType = UNSET
    flush_rows: int | UnsetType | None = UNSET
    flush_interval_ms: int | UnsetType | None = UNSET
    max_rows_per_copy: int | UnsetType | None = UNSET
    database: str | UnsetType | None = UNSET

    def over(self, knobs: Knobs) -> Knobs:
        """`knobs` with these changes."""
        changes = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not UNSET
        }
        return msgspec.structs.replace(knobs, **changes)


class StreamSpec(msgspec.Struct, frozen=True):
    """A stream as it is handed to a shard, once its instrument is on disk. `life` tells it from one
    of the same slot that was ended before; `instrument` is what is on disk, for feeds whose
    checksums are over decimals.
    """

    slot: int
    key: StreamKey
    life: int = 0
    instrument: Instrument | None = None


class StreamRequest(msgspec.Struct):
    """A stream somebody wants, with knobs where not the defaults."""

    key: StreamKey
    knobs: Knobs = Knobs()


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


class StartStreams(msgspec.Struct, tag=True):
    """Shard: begin these streams; the stream table knows their instruments."""

    streams: list[StreamSpec]


class StopStreams(msgspec.Struct, tag=True):
    """Shard: end these streams."""

    slots: list[int]


class RenewBooks(msgspec.Struct, tag=True):
    """Shard: take a fresh snapshot of these books, where they run."""

    slots: list[int]


class ExpectStreams(msgspec.Struct, tag=True):
    """Shard: another one has these streams. Subscribe them, keep what comes, say who has joined;
    each begins with its `InheritStream`.
    """

    streams: list[StreamSpec]


class StreamsJoined(msgspec.Struct, tag=True):
    """Shard: what these expected streams have kept probably goes on from what is stored by now."""

    slots: list[int]


class ReleaseStreams(msgspec.Struct, tag=True):
    """Shard: let go of these streams, as far as they can be; each that is let go of is said with
    `StreamReleased`. `is_cold`: end them, whether or not they can be gone on with.
    """

    slots: list[int]
    is_cold: bool = False


class StreamReleased(msgspec.Struct, tag=True):
    """Shard: all rows of this stream are in the rings, and no more come until it is dropped or
    taken back. `said` is what its heir must know (`shards.feeds.passing.baton`); None: it is ended,
    and dropped.
    """

    slot: int
    status: StreamStatus | None = None
    said: str | None = None


class InheritStream(msgspec.Struct, tag=True):
    """Shard: go on with this expected stream, from what its shard has said; None: nobody has it any
    more, so go on from positions, whatever is missing.
    """

    slot: int
    said: str | None = None


class StreamInherited(msgspec.Struct, tag=True):
    """Shard: it has the stream now; not `is_taken`: what it has kept does not go on from there."""

    slot: int
    is_taken: bool


class DropStreams(msgspec.Struct, tag=True):
    """Shard: another one has these streams, which were let go of."""

    slots: list[int]


class TakeBackStreams(msgspec.Struct, tag=True):
    """Shard: nobody else has these streams, which were let go of: go on with them."""

    slots: list[int]


PassingMessage = ExpectStreams | ReleaseStreams | InheritStream | DropStreams | TakeBackStreams
"""What shards are told of streams that pass from one to the other."""
