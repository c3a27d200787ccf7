"""What a supervisor leaves to the program that this process becomes next: all that it alone knew.

The children stay our children when the process executes another program (`exec`), and so do open
files. What else there is, is in one message: who the children are and what they said that nobody
has taken, what was counted, who waits for what. It is taken at one instant, between two turns of
the event loop, so nothing is half done in it; where something is, it is not taken.
"""

import msgspec

from engine.limits.lease_desk import DeskEstate
from engine.messages.listings import StoreListing
from engine.messages.status import Judgement, UpgradeReport
from engine.messages.totals import ShardCounts, WriterCounts
from engine.process.child_keeper import KeeperEstate
from engine.servers.private_server import ServerEstate
from engine.streams.running_streams import StreamsEstate
from engine.supervisor.stream_starts import StartsEstate


class ShardEstate(msgspec.Struct):
    """Of one shard."""

    keeper: KeeperEstate
    counts: ShardCounts


class WriterEstate(msgspec.Struct):
    """Of the writer."""

    keeper: KeeperEstate
    counts: WriterCounts
    listings: list[StoreListing]
    """What it was told to store and has not stored yet."""


class UpgradeEstate(msgspec.Struct):
    """Of the upgrade that goes on, and of those before it."""

    report: UpgradeReport | None
    counts: dict[str, int]


class Estate(msgspec.Struct):
    """All of it. File descriptors are numbers that are the same in the next program."""

    started_s: float
    """On the monotonic clock."""
    doorbell_fd: int
    streams: StreamsEstate
    starts: StartsEstate
    leases: DeskEstate
    shards: list[ShardEstate]
    writer: WriterEstate
    control: KeeperEstate
    seen_by_control: Judgement
    upkeep: list[KeeperEstate]
    servers: list[ServerEstate]
    upgrade: UpgradeEstate

    @property
    def fds(self) -> list[int]:
        """What must stay open."""
        keepers = [each.keeper for each in self.shards] + [self.writer.keeper, self.control]
        pipes = [each.child.pipe_fd for each in (*keepers, *self.upkeep)]
        return [self.doorbell_fd, *pipes]
