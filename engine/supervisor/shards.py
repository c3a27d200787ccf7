"""The shards: their processes, and the second one beside each while its streams pass to it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from engine.base.errors import EngineError
from engine.data.kinds import KINDS
from engine.data.layout import ring_name, shard_name
from engine.data.ring_files import make_ring
from engine.data.segment import Segment
from engine.limits.lease_desk import LeaseDesk
from engine.messages.limits import LeaseRequest, LimitFeedback, PlacesWanted
from engine.messages.listings import ListingWanted
from engine.messages.pipes import FromChild, Ready, ShardStatus, ToChild
from engine.messages.settings import RingSettings
from engine.messages.status import ShardReport
from engine.messages.streams import (
    StartStreams,
    StopStreams,
    StreamInherited,
    StreamReleased,
    StreamsJoined,
    StreamSpec,
    StreamStatus,
)
from engine.messages.totals import ShardTotals, update_shard
from engine.process import metric_files
from engine.process.child_keeper import ChildKeeper
from engine.streams.running_streams import RunningStreams
from engine.supervisor.estate import ShardEstate
from engine.supervisor.spawning import SupervisorSettings, spawn_shard
from engine.supervisor.stream_starts import StreamStarts
from engine.supervisor.succession import Succession

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ShardChild:
    """One process of a shard."""

    keeper: ChildKeeper
    report: ShardReport
    totals: ShardTotals = field(default_factory=ShardTotals)

    @property
    def name(self) -> str:
        """What it is called, and its rings."""
        return self.keeper.name

    @property
    def rings(self) -> list[str]:
        """Those it writes to."""
        return [ring_name(self.name, kind) for kind in KINDS]


class SuccessionError(EngineError):
    """A shard could not be replaced; the process that had its streams has them still, or again."""


def remove_rings(rings: Iterable[Path]) -> None:
    """Of those that the writer has not seen."""
    for path in rings:
        Segment.lock_of(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


class Shards:
    """Use it inside one event loop. `settings` are those of now; `sync` has the writer journal some
    rings, of a child by its name.
    """

    def __init__(
        self,
        settings: Callable[[], SupervisorSettings],
        running: RunningStreams,
        leases: LeaseDesk,
        sync: Callable[[list[str], str], Awaitable[None]],
        to_control: Callable[[ListingWanted], None],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self._settings = settings
        self._running = running
        self._leases = leases
        self._sync = sync
        self._on_fault = on_fault
        self.starts = StreamStarts(running, running.slots, self.tell, to_control)
        self._doorbell_fd = -1
        self._present: list[ShardChild] = []
        self._next: dict[int, ShardChild] = {}
        """By shard, the process that takes over its streams."""
        self._successions: dict[int, Succession] = {}
        self._leaving: list[ShardChild] = []
        """Processes whose streams have passed, until they have ended."""
        self._is_passing = False

    def __iter__(self) -> Iterator[ShardChild]:
        """All processes there are."""
        yield from self._present
        yield from self._next.values()
        yield from self._leaving

    @property
    def keepers(self) -> list[ChildKeeper]:
        """Of all processes."""
        return [child.keeper for child in self]

    @property
    def present_keepers(self) -> list[ChildKeeper]:
        """Of those that have the streams."""
        return [child.keeper for child in self._present]

    @property
    def reports(self) -> list[ShardReport]:
        """One a shard."""
        return [shard.report for shard in self._present]

    @property
    def rings(self) -> list[RingSettings]:
        """What the writer must have ready."""
        settings, names = self._settings(), [child.name for child in self._present]
        if not names:
            return settings.rings
        if self._is_passing:
            names += [self._other(child) for child in self._present]
        capacity = {each.kind: each.capacity for each in settings.rings}
        return [RingSettings(ring_name(n, k), k, capacity[k]) for n in names for k in KINDS]

    async def start(self, doorbell_fd: int, ready_s: float) -> None:
        """Start all of them, and wait until they are ready. Raises ChildStartError."""
        self._doorbell_fd = doorbell_fd
        for index in range(len(self._settings().cpus)):
            self._present.append(self._make(index, shard_name(index)))
        await asyncio.gather(*(shard.keeper.start(ready_s) for shard in self._present))

    def estate(self) -> list[ShardEstate]:
        """What `adopt` takes. Raises EngineError while streams pass."""
        if self._is_passing or self._next or self._leaving:
            raise EngineError("streams pass")
        return [
            ShardEstate(child.keeper.estate(), child.totals.estate()) for child in self._present
        ]

    async def adopt(self, estate: list[ShardEstate], doorbell_fd: int) -> None:
        """Go on with those that another program of this process has started, without `start`."""
        self._doorbell_fd = doorbell_fd
        for index, each in enumerate(estate):
            child = self._make(index, each.keeper.child.name)
            child.totals.inherit(each.counts)
            self._present.append(child)
            await child.keeper.adopt(each.keeper)

    async def leave(self, drain_s: float, grace_s: float) -> None:
        """Take them down."""
        await asyncio.gather(*(child.keeper.leave(drain_s, grace_s) for child in self))

    def tell(self, index: int, message: ToChild) -> None:
        """Reach a shard that is ready. While its streams pass, the next process begins what is
        new, and both hear of everything else.
        """
        if index >= len(self._present):
            return
        children = [self._present[index]]
        if index in self._successions:
            after = self._next[index]
            children = [after] if isinstance(message, StartStreams) else [*children, after]
            if isinstance(message, StopStreams):
                for slot in message.slots:
                    self._successions[index].forget(slot)
        for child in children:
            if child.keeper.ready.is_set():
                child.keeper.send(message)

    # -- what they say -----------------------------------------------------------------------

    def _make(self, index: int, name: str, totals: ShardTotals | None = None) -> ShardChild:
        keeper = ChildKeeper(
            name=name,
            spawn=lambda: spawn_shard(self._settings(), self._doorbell_fd, index, name),
            on_message=lambda message: self._on_message(index, child, message),
            on_death=lambda reason: self._on_death(index, child, reason),
            on_fault=self._on_fault,
            before_rebirth=lambda: self._sync(child.rings, name),
            hung_after_s=self._settings().timing.hung_after_s,
        )
        report = ShardReport(keeper.report, index, self._settings().cpus[index])
        child = ShardChild(keeper, report, totals or ShardTotals())
        return child

    def _on_message(self, index: int, child: ShardChild, message: FromChild) -> None:
        match message:
            case Ready():
                if child is self._present[index]:
                    self.starts.shard_ready(index)
            case ShardStatus():
                update_shard(child.report, message)
                child.totals.update(message)
                self._running.update(message)
            case StreamsJoined() | StreamReleased() | StreamInherited():
                if index in self._successions:
                    self._successions[index].take(message)
            case LeaseRequest():
                self._leases.ask(child.name, message)
            case PlacesWanted():
                self._leases.want(child.name, message)
            case LimitFeedback():
                self._leases.feedback(message)
            case _:
                _log.error(f"{child.name} sent {type(message).__name__}: ignored")

    def _on_death(self, index: int, child: ShardChild, reason: str) -> None:
        child.totals.shard_ended()
        metric_files.child_ended(self._settings().layout, child.name)
        self._leases.client_ended(child.name)
        succession, is_present = self._successions.get(index), child is self._present[index]
        if succession is None and is_present:
            self.starts.shard_ended(index, f"{child.name} {reason}")
            return
        child.keeper.kill()  # it is not born again: the other one has the streams
        if succession is not None and is_present:
            succession.old_died()
        elif succession is not None:
            succession.died(reason)

    # -- succession --------------------------------------------------------------------------

    def begin_passing(self) -> None:
        """From now on every shard has a second set of rings."""
        self._is_passing = True

    def make_rings(self) -> list[Path]:
        """Make those that are not there, and return them. Raises SegmentError where there is no
        room; then there are no more than before.
        """
        settings = self._settings()
        made: list[Path] = []
        try:
            for each in self.rings:
                path = settings.layout.ring_path(each.ring)
                if not path.exists():
                    make_ring(settings.layout, each.ring, each.capacity).close()
                    made.append(path)
        except EngineError:
            remove_rings(made)
            raise
        return made

    async def end_passing(self) -> None:
        """Every shard has one set of rings again; next processes without streams end."""
        for index in list(self._next):
            await self._dismiss(index)
        self._is_passing = False

    def _other(self, shard: ShardChild) -> str:
        index = shard.report.shard
        return shard_name(index, is_second=shard.name == shard_name(index))

    def __len__(self) -> int:
        return len(self._present)

    @property
    def stream_count(self) -> int:
        """Streams that they were told to begin."""
        return sum(len(self.starts.begun(index)) for index in range(len(self)))

    async def bear(self, index: int) -> None:
        """Start the next process of a shard. Raises ChildStartError; then nothing has changed."""
        child = self._make(index, self._other(self._present[index]))
        self._next[index] = child
        try:
            await child.keeper.start(self._settings().timing.ready_s)
        except BaseException:
            await self._dismiss(index)
            raise

    async def _dismiss(self, index: int) -> None:
        child = self._next.pop(index)
        child.keeper.kill()
        await child.keeper.leave(0.0, self._settings().timing.grace_s)
        self._leases.client_ended(child.name)
        metric_files.child_ended(self._settings().layout, child.name)

    async def pass_on(self, index: int, progress: Callable[[int, int], None]) -> None:
        """Have the next process of a shard take over its streams, and end the present one.
        `progress` is told how many of how many have passed. Raises SuccessionError where the next
        one has died; then the present one has all streams.
        """
        old, new = self._present[index], self._next[index]
        if not new.keeper.ready.is_set():
            await self._dismiss(index)
            raise SuccessionError(f"{new.name} ended before it had anything")
        if not old.keeper.ready.is_set():  # it has nothing that could pass
            old.keeper.kill()
            await self._sync(old.rings, old.name)
            await self._retire(index)
            self.starts.shard_ready(index)
            return

        def sync(of_new: bool) -> Awaitable[None]:
            child = new if of_new else old
            return self._sync(child.rings, child.name)

        passed = partial(self._passed, index, new, progress)
        succession = Succession(
            old.keeper.send, new.keeper.send, sync, passed, self._running.has_failed
        )
        self._successions[index] = succession
        begun = self.starts.begun(index)
        succession.begin(
            {slot: msgspec.structs.replace(s, life=s.life + 1) for slot, s in begun.items()}
        )
        await succession.run()
        if succession.new_died:
            await self._stay(index, succession)
            raise SuccessionError(f"{new.name} {succession.new_died}")
        await self._retire(index)

    def _passed(
        self,
        index: int,
        new: ShardChild,
        progress: Callable[[int, int], None],
        heir: StreamSpec,
        last: StreamStatus | None,
    ) -> bool:
        is_so = self._running.succeeded(heir, last, new.name)
        if is_so:
            self.starts.passed(index, heir)
        succession = self._successions[index]
        progress(succession.over, succession.total)
        return is_so

    async def _retire(self, index: int) -> None:
        """The next process has everything."""
        timing = self._settings().timing
        old, new = self._present[index], self._next.pop(index)
        new.report.child.restart_count = old.report.child.restart_count
        self._present[index] = new
        self._successions.pop(index, None)
        self._leaving.append(old)
        if await old.keeper.leave(timing.shard_drain_s, timing.grace_s):  # no last word
            old.totals.shard_ended()
        self._leaving.remove(old)
        new.totals.add(old.totals)
        self._leases.client_ended(old.name)
        metric_files.child_ended(self._settings().layout, old.name)

    async def _stay(self, index: int, succession: Succession) -> None:
        """The next process is gone: what it had begins anew where it was before."""
        old, new = self._present[index], self._next[index]
        lost = await succession.give_back()
        del self._next[index], self._successions[index]
        old.totals.add(new.totals)
        for heir in lost:
            self.starts.again(index, heir.slot, old.name)
        if not old.keeper.ready.is_set():  # both have died: the usual way
            await self._sync(old.rings, old.name)
            self.starts.shard_ended(index, f"{old.name} ended")
            self._present[index] = self._make(index, old.name, old.totals)
            await self._present[index].keeper.start(self._settings().timing.ready_s)
