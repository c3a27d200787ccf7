"""What travels over the pipes between the supervisor and its children: msgspec, never pickle.

A frame is a little-endian u32 length and a JSON body (`engine.process.pipe`). Every message is a
member of one of the two unions at the end, told apart by its `type`.
"""

import msgspec

from engine.data.names import StreamKind
from engine.messages.control import (
    AddStreams,
    CommandResult,
    Heartbeat,
    RemoveStreams,
    RenewBook,
    SetKnobs,
    SystemStatus,
    UpgradeEngine,
)
from engine.messages.limits import (
    BudgetAnnounced,
    LeaseBlocked,
    LeaseGranted,
    LeaseRequest,
    LimitFeedback,
    PlacesGranted,
    PlacesWanted,
)
from engine.messages.listings import ListingLoaded, ListingStored, ListingWanted, StoreListing
from engine.messages.settings import Reconfigure
from engine.messages.streams import (
    DropStreams,
    ExpectStreams,
    InheritStream,
    ReleaseStreams,
    RenewBooks,
    StartStreams,
    StopStreams,
    StreamCounts,
    StreamInherited,
    StreamReleased,
    StreamsJoined,
    StreamStatus,
    TakeBackStreams,
)
from engine.messages.upkeep import PauseUpkeep, UpkeepStatus
from engine.messages.writer import (
    MakeWay,
    RingsSynced,
    SetStreamKnobs,
    SyncRings,
    WantRings,
    WriterStatus,
)


class Ready(msgspec.Struct, tag=True):
    """The child has set up. `port` is the control process's, which serves once it has a status."""

    port: int = 0
    release: str = ""
    """What code it runs (`engine.process.release`)."""


class Drain(msgspec.Struct, tag=True):
    """Any child: finish what you have and exit 0. The writer commits within `deadline_s`."""

    deadline_s: float


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


ToChild = (
    StartStreams
    | StopStreams
    | RenewBooks
    | ExpectStreams
    | ReleaseStreams
    | InheritStream
    | DropStreams
    | TakeBackStreams
    | SyncRings
    | WantRings
    | MakeWay
    | Drain
    | SystemStatus
    | CommandResult
    | LeaseGranted
    | LeaseBlocked
    | BudgetAnnounced
    | PlacesGranted
    | SetStreamKnobs
    | StoreListing
    | ListingWanted
    | PauseUpkeep
    | Reconfigure
)


FromChild = (
    Ready
    | Heartbeat
    | RingsSynced
    | ListingStored
    | ShardStatus
    | StreamsJoined
    | StreamReleased
    | StreamInherited
    | WriterStatus
    | AddStreams
    | RemoveStreams
    | SetKnobs
    | RenewBook
    | UpgradeEngine
    | ListingLoaded
    | LeaseRequest
    | PlacesWanted
    | LimitFeedback
    | UpkeepStatus
)
