"""All of a shard's streams of one venue: instruments, sockets, snapshots, watchdog."""

import asyncio
import difflib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from engine.catalog import Instrument, StreamKind, Transport
from engine.clock import wall_ns
from engine.commands import StreamSpec, StreamState
from engine.errors import VenueError
from engine.layout import Layout
from engine.settings import VenueSettings
from shards.backoff import Backoff
from shards.book_feeds import DeltaBook
from shards.book_rows import BookEvent
from shards.connection import Connection
from shards.feeds import make_stream
from shards.gaps import GapLedger
from shards.limiter import WindowLimiter
from shards.poller import Poller
from shards.rest import VenueRest
from shards.rings import ShardRings
from shards.stream import Stream
from shards.timed import TimedStream
from shards.venues.spec import Channel, PollChannel, Venue

log = logging.getLogger(__name__)

_SNAPSHOTS_AT_ONCE = 4
_REST_SHARE = 0.5
"""Of a venue's REST budget: other shards and other programs on the address want some too."""
_POLL_SHARE = 0.2
"""Of the budget too, for one kind of polled streams: snapshots of books must not wait for them."""

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
    ) -> None:
        self._venue = venue
        self._settings = settings
        self._rings = rings
        self._layout = layout
        self._store_instruments = store_instruments
        self._on_fault = on_fault
        self._gaps = GapLedger(rings.gap)
        self._rest = VenueRest(
            venue.name,
            settings.rest_url or venue.rest_url,
            venue.rest_weight_per_minute * _REST_SHARE,
        )
        self._connects = WindowLimiter(venue.connects_per_minute, 60.0)
        self._snapshots_wanted: asyncio.Queue[DeltaBook] = asyncio.Queue()
        self._snapshot_backoff: dict[int, Backoff] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.streams: list[Stream] = []
        self.connections: list[Connection] = []
        self.pollers: dict[StreamKind, Poller] = {}

    def start(self, specs: list[StreamSpec]) -> None:
        """Begin these streams in the background; their state tells how it goes."""
        streams = [self._make_stream(spec) for spec in specs]
        self.streams += streams
        offered = [stream for stream in streams if stream.state is not StreamState.FAILED]
        for stream in streams:
            if stream not in offered:
                log.error("%s: %s", stream.key, stream.reason)
        if offered:
            self._spawn(self._bring_up(offered))
        while len(self._tasks) < _SNAPSHOTS_AT_ONCE + 1:
            self._spawn(self._fetch_snapshots())

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

    async def close(self) -> None:
        """Close every socket. What was buffered for a snapshot is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self.streams:
            stream.disconnected("stopped")
            stream.tick(wall_ns())
            stream.state = StreamState.STOPPED
        self._gaps.flush()
        await self._rest.close()

    def _make_stream(self, spec: StreamSpec) -> Stream:
        return make_stream(
            spec,
            self._venue,
            self._rings,
            self._gaps,
            self._layout.positions_dir,
            self._want_snapshot,
        )

    async def _bring_up(self, streams: list[Stream]) -> None:
        """Instruments first: an unknown symbol must never be subscribed."""
        instruments = await self._fetch_instruments(streams)
        known = []
        for stream in streams:
            if stream.key.symbol in instruments:
                known.append(stream)
                continue
            reason = _unknown_symbol(self._venue.name, stream.key.symbol, instruments)
            log.error("%s: %s", stream.key, reason)
            stream.failed(reason)
        if not known:
            return
        await self._store_instruments(
            {stream.slot: instruments[stream.key.symbol] for stream in known}
        )
        for group in self._venue.groups:
            members = [s for s in known if _group_of(self._channel(s)) == group]
            self._open_connections(group, members)
        for stream in known:
            if isinstance(stream, TimedStream) and stream.key.transport is Transport.HTTP_POLL:
                self._poller(stream.key.kind).add(stream)

    async def _fetch_instruments(self, streams: list[Stream]) -> Mapping[str, Instrument]:
        backoff = Backoff()
        while True:
            try:
                body = await self._rest.fetch(self._venue.instruments)
                return self._venue.parse_instruments(body)
            except (VenueError, msgspec.MsgspecError, ValueError) as error:
                delay_s = backoff.next_s()
                log.warning("instruments: %s; again in %.1f s", error, delay_s)
                for stream in streams:
                    stream.state, stream.reason = StreamState.CONNECTING, f"instruments: {error}"
                await asyncio.sleep(delay_s)

    def _open_connections(self, group_name: str, streams: list[Stream]) -> None:
        group = self._venue.groups[group_name]
        size = self._settings.streams_per_connection or group.streams_per_connection
        url = (self._settings.ws_url or self._venue.ws_url).rstrip("/") + group.path
        for start in range(0, len(streams), size):
            topics = {
                channel.topic(stream.key.symbol, self._settings): stream
                for stream in streams[start : start + size]
                if isinstance(channel := self._channel(stream), Channel)
            }
            connection = Connection(
                self._venue,
                group,
                url,
                topics,
                self._rings.publish,
                self._connects,
                lifetime_s=self._settings.connection_lifetime_s or group.lifetime_s,
            )
            self.connections.append(connection)
            self._spawn(connection.run())

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
                weight_per_minute=self._venue.rest_weight_per_minute * _POLL_SHARE,
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
            if book.state is StreamState.BACKOFF:
                self._snapshot_backoff.pop(book.slot, None)
                continue
            try:
                snapshot = parse(await self._rest.fetch(call, book.key.symbol))
            except (VenueError, msgspec.MsgspecError, ValueError) as error:
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
                connection.resubscribe(stream)
            elif not silent and stream.state is StreamState.STALE:
                stream.state, stream.reason = StreamState.LIVE, ""

    def _channel(self, stream: Stream) -> Channel | PollChannel:
        return self._venue.channels[stream.key.kind, stream.key.transport]

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: "asyncio.Future[None]") -> None:
        """A fault in a task is a bug: it ends the process, which is then restarted clean."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fault(error)


def _group_of(channel: Channel | PollChannel) -> str:
    return channel.group if isinstance(channel, Channel) else ""


def _unknown_symbol(venue: str, symbol: str, instruments: Mapping[str, Instrument]) -> str:
    near = difflib.get_close_matches(symbol.upper(), list(instruments), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{venue} lists no {symbol!r}{hint}"
