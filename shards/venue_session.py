"""All of a shard's streams of one venue: instruments, sockets, snapshots, watchdog."""

import asyncio
import difflib
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from engine.catalog import Instrument, StreamKind, Transport
from engine.clock import monotonic_s, wall_ns
from engine.commands import StreamSpec, StreamState
from engine.errors import VenueError
from engine.layout import Layout
from engine.settings import VenueSettings
from shards.backoff import Backoff
from shards.book_feeds import DeltaBook
from shards.book_rows import BookEvent
from shards.connection import Connection
from shards.contract_feeds import FundingRates
from shards.feeds import make_stream
from shards.funding_intervals import IntervalSource
from shards.gaps import GapLedger
from shards.leases import Lease, LeaseClient
from shards.poller import Poller, PollShare
from shards.rest import VenueRest
from shards.rings import ShardRings
from shards.stream import Stream
from shards.timed import TimedStream
from shards.unusable import UNUSABLE_FRAME
from shards.venues.budgets import REST_POLLS, poll_weight_per_minute
from shards.venues.spec import Channel, PollChannel, SocketGroup, Venue

log = logging.getLogger(__name__)

_SNAPSHOTS_AT_ONCE = 4
_POLL_MARGIN = 0.9
"""Of a shard's part of the polls' budget: calls that fail are repeated."""
_INSTRUMENTS_AGE_S = 30.0
"""A symbol nobody knows is looked for again, but the venue is not asked more often than this."""
_UNLISTED_EVERY_S = 300.0
"""A stream whose symbol is not listed begins by itself once it is: so often is that looked for."""
_LINGER_S = 5.0
"""An empty socket waits so long for a new stream: connections are a budget, too."""
_REMEMBERED_S = 300.0
"""A removed stream is remembered; by then its last row is in the positions of the writer."""

StoreInstruments = Callable[[dict[int, Instrument]], Awaitable[None]]
"""Hands instruments to the supervisor; returns when the stream table has them on disk."""


class VenueSession:
    """One venue inside one shard."""

    def __init__(
        self,
        venue: Venue,
        settings: VenueSettings,
        rings: ShardRings,
        layout: Layout,
        store_instruments: StoreInstruments,
        on_fault: Callable[[BaseException], None],
        leases: LeaseClient,
        *,
        shard_count: int = 1,
    ) -> None:
        self._venue = venue
        self._settings = settings
        self._rings = rings
        self._layout = layout
        self._store_instruments = store_instruments
        self._on_fault = on_fault
        self._gaps = GapLedger(rings.gap)
        self._rest = VenueRest(venue, settings.rest_url, leases)
        self._connects = Lease(leases, venue.name, "ws_connects")
        self._messages = (
            Lease(leases, venue.name, "ws_messages") if venue.messages_per_minute else None
        )
        self._instruments: Mapping[str, Instrument] = {}
        self._instruments_s = float("-inf")
        self._instruments_turn = asyncio.Lock()
        self._snapshots_wanted: asyncio.Queue[DeltaBook] = asyncio.Queue()
        self._snapshot_backoff: dict[int, Backoff] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_slot: dict[int, Stream] = {}
        self._removed: dict[int, tuple[float, Stream]] = {}
        self._unlisted: list[Stream] = []
        self._unlisted_s = monotonic_s()
        self._carriers: dict[int, Connection | Poller] = {}
        self.pollers: dict[StreamKind, Poller] = {}
        self._poll_share = PollShare(
            Lease(leases, venue.name, REST_POLLS),
            poll_weight_per_minute(venue) * _POLL_MARGIN / shard_count,
            lambda: not self._snapshots_wanted.empty(),
        )
        self._intervals: IntervalSource | None = None
        self._running: dict[Connection, asyncio.Task[None]] = {}
        self._empty_since_s: dict[Connection, float] = {}
        self._closed_malformed: Counter[str] = Counter()
        self._closed_reconnect_count = 0
        for _ in range(_SNAPSHOTS_AT_ONCE if venue.book_snapshot else 0):
            self._spawn(self._fetch_snapshots())

    @property
    def streams(self) -> list[Stream]:
        """The streams that are wanted."""
        return list(self._by_slot.values())

    @property
    def connections(self) -> list[Connection]:
        """The sockets there are."""
        return list(self._running)

    @property
    def malformed_by_reason(self) -> Counter[str]:
        """Frames and answers nobody could use, also on sockets that are closed now."""
        total = Counter(self._closed_malformed)
        for connection in self._running:
            total.update(connection.malformed_by_reason)
        for poller in self.pollers.values():
            total.update(poller.malformed_by_reason)
        return total

    @property
    def reconnect_count(self) -> int:
        """How often a socket had to be opened anew."""
        return self._closed_reconnect_count + sum(map(_reconnects, self._running))

    def start(self, specs: list[StreamSpec]) -> None:
        """Begin these streams in the background; their state tells how it goes. Nobody else's
        socket is touched. A stream that runs already goes on.
        """
        streams = []
        for spec in specs:
            if spec.slot not in self._by_slot:
                self._by_slot[spec.slot] = self._recall(spec) or self._make_stream(spec)
                streams.append(self._by_slot[spec.slot])
        offered = [stream for stream in streams if self._is_offered(stream)]
        for stream in streams:
            if stream not in offered:
                log.error("%s: %s", stream.key, stream.reason)
        if offered:
            self._spawn(self._bring_up(offered))

    def stop(self, slots: Iterable[int]) -> None:
        """End these streams. What they had received is written."""
        for slot in slots:
            stream = self._by_slot.pop(slot, None)
            if stream is None:
                continue
            carrier = self._carriers.pop(slot, None)
            silent_s = carrier.silent_s if isinstance(carrier, Connection) else 0.0
            stream.removed(silent_s)
            stream.tick(wall_ns())
            if self._is_offered(stream):
                self._removed[slot] = (monotonic_s(), stream)
            self._snapshot_backoff.pop(slot, None)
            if self._intervals is not None:
                self._intervals.remove(slot)
            match carrier:
                case Connection() as connection:
                    connection.remove(stream)
                    if not connection.stream_count:
                        self._empty_since_s[connection] = monotonic_s()
                case Poller() as poller if isinstance(stream, TimedStream):
                    poller.remove(stream)
        self._gaps.flush()
        self._rings.publish()

    def tick(self) -> None:
        """A few times a second: pending gaps, drops of quiet streams, silence."""
        now_ns = wall_ns()
        self._gaps.flush()
        for stream in self.streams:
            stream.tick(now_ns)
        for connection in self.connections:
            if connection.is_connected:
                self._watch(connection, now_ns)
        for poller in self.pollers.values():
            poller.watch(now_ns)
        if self._intervals is not None:
            self._intervals.tick()
        self._close_empty()
        self._look_for_unlisted()

    async def close(self) -> None:
        """Close every socket. What was buffered for a snapshot is written."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in self.streams:
            stream.disconnected("stopped")
            stream.tick(wall_ns())
            stream.state = StreamState.STOPPED
        self._gaps.flush()
        await self._rest.close()

    def _look_for_unlisted(self) -> None:
        """New listings are announced for a time; whoever waits for one asked for it before."""
        now_s = monotonic_s()
        if self._unlisted and now_s - self._unlisted_s >= _UNLISTED_EVERY_S:
            self._unlisted_s = now_s
            streams, self._unlisted = self._unlisted, []
            self._spawn(self._bring_up(streams))

    def _close_empty(self) -> None:
        """Let go of sockets that have carried nothing for a while, and of what was removed."""
        now_s = monotonic_s()
        for connection, since_s in list(self._empty_since_s.items()):
            if now_s - since_s >= _LINGER_S:
                del self._empty_since_s[connection]
                self._running.pop(connection).cancel()
                self._closed_malformed.update(connection.malformed_by_reason)
                self._closed_reconnect_count += _reconnects(connection)
        for slot, (removed_s, _) in list(self._removed.items()):
            if now_s - removed_s < _REMEMBERED_S:
                break  # the oldest come first
            del self._removed[slot]

    def _recall(self, spec: StreamSpec) -> Stream | None:
        """A stream that was removed a moment ago goes on where it ended: its last rows may not
        have reached the writer's positions yet.
        """
        known = self._removed.pop(spec.slot, None)
        if known is None:
            return None
        known[1].wanted_again()
        return known[1]

    def _make_stream(self, spec: StreamSpec) -> Stream:
        return make_stream(
            spec,
            self._venue,
            self._rings,
            self._gaps,
            self._layout.positions_dir,
            self._want_snapshot,
        )

    def _is_offered(self, stream: Stream) -> bool:
        return (stream.key.kind, stream.key.transport) in self._venue.channels

    async def _bring_up(self, streams: list[Stream]) -> None:
        """Instruments first: an unknown symbol must never be subscribed."""
        instruments = await self._instruments_of({stream.key.symbol for stream in streams})
        known = []
        for stream in filter(self._is_waiting, streams):
            if stream.key.symbol in instruments:
                known.append(stream)
                continue
            reason = _unknown_symbol(self._venue.name, stream.key.symbol, instruments)
            if stream.reason != reason:
                log.error("%s: %s", stream.key, reason)
            stream.failed(reason)
            self._unlisted.append(stream)
        if not known:
            return
        await self._store_instruments(
            {stream.slot: instruments[stream.key.symbol] for stream in known}
        )
        paying = [stream for stream in known if isinstance(stream, FundingRates)]
        self._listen([stream for stream in known if stream not in paying])
        if paying:
            await self._learn_intervals(paying)
            self._listen(paying)

    async def _learn_intervals(self, paying: Sequence[FundingRates]) -> None:
        """Funding streams wait a moment for what their rows should say; nobody else does."""
        if self._venue.funding_intervals is None:
            return
        if self._intervals is None:
            self._intervals = IntervalSource(self._rest, self._venue.funding_intervals)
            self._spawn(self._intervals.run())
        await self._intervals.first_try()
        for stream in paying:
            if self._is_waiting(stream):
                self._intervals.add(stream)

    def _listen(self, streams: Sequence[Stream]) -> None:
        """Give each stream that is still wanted its socket or its poller."""
        for group in self._venue.groups:
            self._connect(group, [s for s in streams if _group_of(self._channel(s)) == group])
        for stream in filter(self._is_waiting, streams):
            if isinstance(stream, TimedStream) and stream.key.transport is Transport.HTTP_POLL:
                self._carriers[stream.slot] = self._poller(stream.key.kind)
                self._poller(stream.key.kind).add(stream)

    def _is_waiting(self, stream: Stream) -> bool:
        """Whether a stream is still wanted and has no socket yet."""
        return self._by_slot.get(stream.slot) is stream and stream.slot not in self._carriers

    async def _instruments_of(self, symbols: set[str]) -> Mapping[str, Instrument]:
        """The venue's instruments, fetched anew when they lack one of `symbols`."""
        async with self._instruments_turn:
            age_s = monotonic_s() - self._instruments_s
            if not symbols <= self._instruments.keys() and age_s > _INSTRUMENTS_AGE_S:
                self._instruments = await self._fetch_instruments()
                self._instruments_s = monotonic_s()
            return self._instruments

    async def _fetch_instruments(self) -> Mapping[str, Instrument]:
        backoff = Backoff()
        while True:
            try:
                body = await self._rest.fetch(self._venue.instruments)
                return self._venue.parse_instruments(body)
            except (VenueError, *UNUSABLE_FRAME) as error:
                delay_s = backoff.next_s()
                log.warning("instruments: %s; again in %.1f s", error, delay_s)
                for stream in filter(self._is_waiting, self.streams):
                    stream.state, stream.reason = StreamState.CONNECTING, f"instruments: {error}"
                await asyncio.sleep(delay_s)

    def _connect(self, group_name: str, streams: list[Stream]) -> None:
        """Give streams a place on the group's sockets, on new ones where those are full."""
        group = self._venue.groups[group_name]
        size = self._settings.streams_per_connection or group.streams_per_connection
        waiting = [stream for stream in streams if self._is_waiting(stream)]
        for connection in self.connections:
            room = size - connection.stream_count
            if connection.group is group and room > 0 and waiting:
                connection.add(self._topics(waiting[:room]))
                self._carry(waiting[:room], connection)
                waiting = waiting[room:]
        for start in range(0, len(waiting), size):
            self._open(group, waiting[start : start + size])

    def _open(self, group: SocketGroup, streams: list[Stream]) -> None:
        connection = Connection(
            self._venue,
            group,
            (self._settings.ws_url or self._venue.ws_url).rstrip("/") + group.path,
            self._topics(streams),
            self._rings.publish,
            self._connects,
            lifetime_s=self._settings.connection_lifetime_s or group.lifetime_s,
            messages=self._messages,
        )
        self._running[connection] = self._spawn(connection.run())
        self._carry(streams, connection)

    def _carry(self, streams: list[Stream], connection: Connection) -> None:
        self._empty_since_s.pop(connection, None)
        for stream in streams:
            self._carriers[stream.slot] = connection

    def _topics(self, streams: list[Stream]) -> dict[str, Stream]:
        return {
            channel.topic(stream.key.symbol, self._settings): stream
            for stream in streams
            if isinstance(channel := self._channel(stream), Channel)
        }

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

    def _want_snapshot(self, book: DeltaBook) -> None:
        """A book asks for a REST snapshot: at once the first time, then with growing delays."""
        backoff = self._snapshot_backoff.get(book.slot)
        if backoff is None:
            self._snapshot_backoff[book.slot] = Backoff(0.1, 10.0)
            self._snapshots_wanted.put_nowait(book)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(backoff.next_s(), self._snapshots_wanted.put_nowait, book)

    async def _fetch_snapshots(self) -> None:
        """One of a few workers: REST books for delta books, as they ask."""
        call, parse = self._venue.book_snapshot, self._venue.parse_book_snapshot
        if call is None or parse is None:
            return
        while True:
            book = await self._snapshots_wanted.get()
            if book.state in (StreamState.BACKOFF, StreamState.STOPPED):
                self._snapshot_backoff.pop(book.slot, None)
                continue
            try:
                snapshot = parse(await self._rest.fetch(call, book.key.symbol))
            except (VenueError, *UNUSABLE_FRAME) as error:
                log.warning("%s: snapshot: %s", book.key, error)
                self._want_snapshot(book)
                continue
            book.on_snapshot(
                BookEvent(
                    snapshot.seq,
                    0,
                    snapshot.ts_event,
                    wall_ns(),
                    snapshot.bids,
                    snapshot.asks,
                    is_snapshot=True,
                )
            )
            self._rings.publish()
            if book.is_synced:
                self._snapshot_backoff.pop(book.slot, None)

    def _watch(self, connection: Connection, now_ns: int) -> None:
        """A subscription that is acknowledged proves nothing: each stream must deliver."""
        for stream in connection.streams:
            limit_s = self._channel(stream).stale_after_s
            if self._settings.stale_after_s and limit_s != math.inf:
                limit_s = self._settings.stale_after_s
            since_ns = max(stream.last_recv_ns, stream.subscribed_ns)
            silent = now_ns - since_ns > limit_s * 1e9
            if silent and stream.state in (StreamState.LIVE, StreamState.SYNCING):
                stream.state = StreamState.STALE
                stream.reason = f"no data for {limit_s:.0f} s, subscribed again"
                log.warning("%s: %s", stream.key, stream.reason)
                stream.fell_silent()
                connection.resubscribe(stream)
            elif not silent and stream.state is StreamState.STALE:
                stream.state, stream.reason = StreamState.LIVE, ""

    def _channel(self, stream: Stream) -> Channel | PollChannel:
        return self._venue.channels[stream.key.kind, stream.key.transport]

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


def _reconnects(connection: Connection) -> int:
    return max(connection.connect_count - 1, 0)


def _group_of(channel: Channel | PollChannel) -> str:
    return channel.group if isinstance(channel, Channel) else ""


def _unknown_symbol(venue: str, symbol: str, instruments: Mapping[str, Instrument]) -> str:
    near = difflib.get_close_matches(symbol.upper(), list(instruments), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{venue} lists no {symbol!r}{hint}"
