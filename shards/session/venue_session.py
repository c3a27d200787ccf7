"""All of a shard's streams of one venue: how each begins, how it ends, what it all amounts to."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from engine.base.clock import monotonic_s, wall_ns
from engine.data.layout import Layout
from engine.data.names import StreamKind, Transport
from engine.limits.leases import Lease, LeaseClient
from engine.messages.settings import VenueSettings
from engine.messages.streams import StreamCounts, StreamReleased, StreamSpec, StreamState
from shards.feeds.books import DeltaBook
from shards.feeds.contracts import FundingRates
from shards.feeds.declared.coverage import LATE_NS
from shards.feeds.feed import Feed
from shards.feeds.passing import baton
from shards.feeds.unnumbered import UnnumberedFeed
from shards.session.book_snapshots import BookSnapshots
from shards.session.funding_intervals import IntervalSource
from shards.session.make_feed import FeedMaker
from shards.session.passing import Passing
from shards.session.rings import ShardRings
from shards.transport.connection import Connection
from shards.transport.poller import Poller, PollShare
from shards.transport.rest import VenueRest
from shards.transport.sockets import VenueSockets
from shards.venues.budgets import REST_POLLS, spendable, weight_per_minute
from shards.venues.kit import PollChannel, Venue, configured, limited_as

_log = logging.getLogger(__name__)

_SNAPSHOTS_AT_ONCE = 4
_POLL_MARGIN = 0.9
"""Of a shard's part of the polls' budget: calls that fail are repeated."""
_ALIVE_EVERY_S = 1.0
_RECENT_NS = 5_000_000_000
_BRINGS_NOTHING = (StreamState.SYNCING, StreamState.FAILED)
_REMEMBERED_S = 300.0
_LAGS_SAMPLED = 32
_LAG_FRESH_NS = 1_000_000_000
"""A removed stream is remembered; by then its last row is in the positions of the writer."""


class VenueSession:
    """One venue inside one shard."""

    def __init__(
        self,
        venue: Venue,
        settings: VenueSettings,
        rings: ShardRings,
        layout: Layout,
        on_fault: Callable[[BaseException], None],
        leases: LeaseClient,
        *,
        shard_count: int = 1,
    ) -> None:
        venue = configured(venue, settings)
        self._venue = venue
        self._settings = settings
        self._rings = rings
        self._layout = layout
        self._on_fault = on_fault
        self._leases = leases
        self._told_alive_s = monotonic_s()
        self._ahead_ns = 0
        """At most so much later than the venue's our clock is."""
        self._rest = VenueRest(venue, settings.rest_url, leases)
        self._sockets = VenueSockets(
            venue, settings, leases, rings.publish, self._spawn, shard_count
        )
        self._snapshots = BookSnapshots(venue, self._rest, rings, settings.book_snapshot_interval_s)
        self._maker = FeedMaker(
            venue, rings, layout.positions_dir, self._snapshots.want, self._sockets.renew
        )
        self._gaps, self._coverage = self._maker.gaps, self._maker.coverage
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_slot: dict[int, Feed] = {}
        self._removed: dict[int, tuple[float, Feed]] = {}
        self._passing = Passing(self._sockets, self._poller)
        self._begun: set[int] = set()
        """Slots that have a socket or a poller."""
        self.pollers: dict[StreamKind, Poller] = {}
        self._shard_count = shard_count
        self._poll_share = PollShare(
            Lease(leases, limited_as(venue), REST_POLLS),
            self._poll_weight(),
            lambda: self._snapshots.is_wanted,
        )
        self._intervals: IntervalSource | None = None
        self._removed_counts: dict[StreamKind, StreamCounts] = {}
        for _ in range(_SNAPSHOTS_AT_ONCE if venue.book_snapshot else 0):
            self._spawn(self._snapshots.work())

    @property
    def streams(self) -> list[Feed]:
        """The streams that are wanted."""
        return list(self._by_slot.values())

    @property
    def counts_by_kind(self) -> dict[StreamKind, StreamCounts]:
        """What streams have counted, by their kind; also those that are removed now."""
        counts = {kind: [removed] for kind, removed in self._removed_counts.items()}
        for stream in self._by_slot.values():
            counts.setdefault(stream.key.kind, []).append(stream.counts())
        return {kind: StreamCounts.total(each) for kind, each in counts.items()}

    @property
    def connections(self) -> list[Connection]:
        """The sockets there are."""
        return self._sockets.connections

    @property
    def malformed_by_reason(self) -> Counter[str]:
        """Frames and answers nobody could use, also on sockets that are closed now."""
        total = self._sockets.malformed_by_reason
        for poller in self.pollers.values():
            total.update(poller.malformed_by_reason)
        return total

    @property
    def tries(self) -> Mapping[str, int]:
        """How often what was tried at the venue's sockets (`shards.transport.connection`)."""
        return self._sockets.tries

    def lags_s(self, now_ns: int) -> list[float]:
        """How long the newest rows of some streams were on their way, where they have just come."""
        pushed = [each for each in self.streams if each.key.transport is Transport.WS]
        streams = random.sample(pushed, min(len(pushed), _LAGS_SAMPLED))
        return [
            each.lag_ns / 1e9
            for each in streams
            if each.clocks_ns is not None and now_ns - each.last_recv_ns < _LAG_FRESH_NS
        ]

    @property
    def reconnect_count(self) -> int:
        """How often a socket had to be opened anew."""
        return self._sockets.reconnect_count

    def start(self, specs: list[StreamSpec]) -> None:
        """Begin these streams; their state tells how it goes. The stream table knows their
        instruments. Nobody else's socket is touched. A stream that runs already goes on.
        """
        streams = []
        for spec in specs:
            if spec.slot not in self._by_slot:
                self._by_slot[spec.slot] = self._recall(spec) or self._maker.make(spec)
                streams.append(self._by_slot[spec.slot])
        offered = [stream for stream in streams if self._is_offered(stream)]
        for stream in streams:
            if stream not in offered:
                _log.error("%s: %s", stream.key, stream.reason)
        paying = [stream for stream in offered if isinstance(stream, FundingRates)]
        self._listen([stream for stream in offered if not isinstance(stream, FundingRates)])
        if paying:
            self._spawn(self._begin_paying(paying))

    def stop(self, slots: Iterable[int]) -> None:
        """End these streams. What they had received is written."""
        for slot in slots:
            stream = self._by_slot.get(slot)
            if stream is None:
                continue
            stream.ended("removed", self._sockets.silent_s(stream))
            if self._is_offered(stream) and not self._passing.is_expected(slot):
                self._removed[slot] = (monotonic_s(), stream)
            self._forget(stream)
        self._gaps.flush()
        self._rings.publish()

    def _forget(self, stream: Feed) -> None:
        """Nobody looks after it any more."""
        del self._by_slot[stream.slot]
        stream.declare_pending(wall_ns())
        counts, kind = stream.counts(), stream.key.kind
        removed = self._removed_counts.get(kind, StreamCounts())
        self._removed_counts[kind] = StreamCounts.total([removed, counts])
        self._take_off(stream)

    # -- streams that pass from shard to shard -----------------------------------------------

    def expect(self, specs: list[StreamSpec]) -> None:
        """Begin these streams beside the shard that has them: nothing of them is stored."""
        self._passing.expect(spec.slot for spec in specs)
        self.start(specs)

    def has(self, slot: int) -> bool:
        """Whether this stream is one of them."""
        return slot in self._by_slot

    def joined(self) -> list[int]:
        """Slots of those that may be asked for."""
        return self._passing.joined(each for each in self.streams if self._has_begun(each))

    def _has_begun(self, stream: Feed) -> bool:
        """Whether it has got as far as it does here; some wait for what their rows should say."""
        return stream.slot in self._begun or not self._is_offered(stream)

    def inherit(self, slot: int, said: str | None) -> bool:
        """Go on with one of them. Returns whether it is here now."""
        stream = self._by_slot[slot]
        if not self._passing.is_expected(slot):
            return True
        fresh = said is None
        if said is None:
            said = baton.tell(self._maker.make(stream.spec))
        if not self._has_begun(stream):  # it begins by itself, as any stream that nobody has
            baton.inherit(stream, said)
            self._passing.forget(slot)
            return True
        is_taken = self._passing.inherit(stream, said, is_sure=fresh)
        self._gaps.flush()
        self._rings.publish()
        return is_taken

    def release(self, slot: int, *, is_cold: bool) -> StreamReleased | None:
        """Let go of a stream; None while that cannot be. One that has brought nothing whole yet, or
        must go (`is_cold`), is ended: the next process begins with what it has kept meanwhile.
        """
        stream = self._by_slot[slot]
        said = self._passing.let_go(stream)
        if said is None and not (is_cold or stream.state in _BRINGS_NOTHING):
            return None
        if said is None:
            stream.ended("another process goes on", self._sockets.silent_s(stream), in_order=False)
            stream.declare_pending(wall_ns())
        status = stream.status()
        if said is None:
            self._forget(stream)
        self._gaps.flush()
        self._rings.publish()
        return StreamReleased(slot, status, said)

    def drop(self, slots: Iterable[int]) -> None:
        """Another shard has these streams now."""
        for slot in slots:
            if (stream := self._by_slot.get(slot)) is not None:
                self._forget(stream)

    def take_back(self, slots: Iterable[int]) -> None:
        """Go on with streams that were let go of."""
        for slot in slots:
            if (stream := self._by_slot.get(slot)) is not None:
                self._passing.take_back(stream)
        self._rings.publish()

    def renew_books(self, slots: Iterable[int]) -> None:
        """Have these books, where they run, start anew from a fresh snapshot."""
        for slot in slots:
            book = self._by_slot.get(slot)
            if isinstance(book, DeltaBook) and book.is_synced:
                self._snapshots.renew(book)

    def tick(self, overslept_s: float = 0.0) -> None:
        """A few times a second: pending gaps, drops of quiet streams, silence. The last
        `overslept_s` seconds nobody listened, as the process stood still: that was no silence.
        """
        now_ns, now_s = wall_ns(), monotonic_s()
        self._gaps.flush()
        self._compare_clocks(now_ns)
        for stream in self.streams:
            stream.excuse_silence(overslept_s)
            stream.tick(now_ns)
        self._tell_alive(now_ns, now_s)
        self._sockets.tick(now_s)
        self._snapshots.tick(now_s)
        self._poll_share.weight_per_minute = self._poll_weight()
        for poller in self.pollers.values():
            poller.watch(now_s)
        if self._intervals is not None:
            self._intervals.tick()
        self._forget_removed()

    def _compare_clocks(self, now_ns: int) -> None:
        """Coverage speaks in the venue's time, and our clock may be wrong by anything: what came
        in the last seconds, and was on its way for no time or more, tells.
        """
        pushed = [stream for each in self.connections for stream in each.streams]
        recent = [
            stream.clocks_ns
            for stream in pushed
            if stream.clocks_ns is not None and 0 <= now_ns - stream.last_recv_ns < _RECENT_NS
        ]
        if not recent:
            return
        self._ahead_ns = max(min(recent), 0)
        for stream in pushed:
            stream.venue_ahead_ns = max(-max(recent), 0)

    def _tell_alive(self, now_ns: int, now_s: float) -> None:
        """Put on record up to when each socket and poller was heard. Not while something that was
        received is neither in a ring nor declared.
        """
        self._coverage.flush()
        if now_s - self._told_alive_s < _ALIVE_EVERY_S:
            return
        if self._gaps.is_waiting:
            return
        self._told_alive_s = now_s
        for connection in self.connections:
            heard = _heard(connection.streams)
            if connection.is_connected and heard:
                at = now_ns - int(connection.silent_s * 1e9) - LATE_NS
                self._coverage.alive(heard[0].slot, connection.carrier, at)
        for poller in self.pollers.values():
            polled = _heard(poller.streams)
            if polled:
                at = min(stream.last_recv_ns for stream in polled) - self._ahead_ns - LATE_NS
                self._coverage.alive(polled[0].slot, poller.carrier, at)

    def _poll_weight(self) -> float:
        """This shard's part of what polls may spend in a minute."""
        usual = spendable(weight_per_minute(self._venue))[REST_POLLS]
        allowed = self._leases.announced.get((limited_as(self._venue), REST_POLLS), usual)
        return allowed * _POLL_MARGIN / self._shard_count

    async def close(self, *, in_order: bool = True) -> None:
        """Close every socket. What was buffered for a snapshot is written. Not `in_order`: what is
        missed until the next process goes on is the fault of this one.
        """
        silent_s = {stream: self._sockets.silent_s(stream) for stream in self.streams}
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in self.streams:
            stream.ended("stopped", silent_s[stream], in_order=in_order)
            stream.declare_pending(wall_ns())
        self._gaps.flush()
        self._coverage.flush()
        await self._rest.close()

    def _forget_removed(self) -> None:
        now_s = monotonic_s()
        for slot, (removed_s, _) in list(self._removed.items()):
            if now_s - removed_s < _REMEMBERED_S:
                break  # the oldest come first
            del self._removed[slot]

    def _recall(self, spec: StreamSpec) -> Feed | None:
        """A stream that was removed a moment ago goes on where it ended: its last rows may not
        have reached the writer's positions yet.
        """
        known = self._removed.pop(spec.slot, None)
        if known is None:
            return None
        known[1].wanted_again(spec)
        return known[1]

    def _is_offered(self, stream: Feed) -> bool:
        return (stream.key.kind, stream.key.transport) in self._venue.channels

    async def _begin_paying(self, paying: Sequence[FundingRates]) -> None:
        """Funding streams wait a moment for what their rows should say; nobody else does."""
        if (intervals := self._venue.funding_intervals) is not None:
            if self._intervals is None:
                self._intervals = IntervalSource(self._rest, intervals)
                self._spawn(self._intervals.run())
            await self._intervals.first_try()
            for stream in filter(self._is_waiting, paying):
                self._intervals.add(stream)
        self._listen(paying)

    def _listen(self, streams: Sequence[Feed]) -> None:
        """Give each stream that is still wanted its socket or its poller."""
        waiting = list(filter(self._is_waiting, streams))
        self._begun.update(stream.slot for stream in waiting)
        now = self._passing.keep(waiting)
        self._sockets.carry([each for each in now if each.key.transport is Transport.WS])
        for stream in now:
            if isinstance(stream, UnnumberedFeed) and stream.key.transport is Transport.HTTP_POLL:
                self._poller(stream.key.kind).add(stream)

    def _take_off(self, stream: Feed) -> None:
        """Let nothing come for this stream any more."""
        self._snapshots.forget(stream.slot)
        self._passing.forget(stream.slot)
        if self._intervals is not None:
            self._intervals.remove(stream.slot)
        if stream.slot in self._begun:
            self._begun.discard(stream.slot)
            if isinstance(stream, UnnumberedFeed) and stream.key.transport is Transport.HTTP_POLL:
                self._poller(stream.key.kind).remove(stream)
            else:
                self._sockets.remove(stream)

    def _is_waiting(self, stream: Feed) -> bool:
        """Whether a stream is still wanted and has neither socket nor poller yet."""
        return self._by_slot.get(stream.slot) is stream and stream.slot not in self._begun

    def _poller(self, kind: StreamKind) -> Poller:
        if kind not in self.pollers:
            channel = self._venue.channels[kind, Transport.HTTP_POLL]
            assert isinstance(channel, PollChannel)
            self.pollers[kind] = Poller(
                self._venue.name,
                channel,
                self._rest,
                self._rings.publish,
                interval_s=self._settings.poll_interval_s.get(kind, channel.interval_s),
                share=self._poll_share,
            )
            self._spawn(self.pollers[kind].run())
        return self.pollers[kind]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        """A fault in a task is a bug: it ends the process, which is then restarted clean."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fault(error)


def _heard(streams: Iterable[Feed]) -> list[Feed]:
    """Those that are listened to; none while one of them has something to declare."""
    found = [stream for stream in streams if stream.is_heard]
    return [] if any(stream.has_undeclared for stream in found) else found
