"""The sockets of one venue in one shard: which stream rides on which, and whether it is heard.

A socket is opened when a stream finds no room on those there are, and closed when it has carried
nothing for a while. Nobody else's socket is touched when a stream comes or goes. Where the venue
limits what an address may have, subscriptions and sockets need a seat each (`engine.seats`): who
gets none waits, says so, and begins by itself once there is one.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from engine.clock import monotonic_s
from engine.commands import StreamState
from engine.settings import VenueSettings
from shards.connection import Connection
from shards.leases import HeldSeats, Lease, LeaseClient
from shards.stream import Stream
from shards.venues.budgets import SOCKETS, SUBSCRIPTIONS
from shards.venues.spec import Channel, SocketGroup, Venue

log = logging.getLogger(__name__)

_LINGER_S = 5.0
"""An empty socket waits so long for a new stream: connections are a budget, too."""

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Lets work run in the background; a fault in it ends the process."""


class VenueSockets:
    """Connections and the streams on them."""

    def __init__(
        self,
        venue: Venue,
        settings: VenueSettings,
        leases: LeaseClient,
        publish: Callable[[], None],
        spawn: Spawn,
        shard_count: int,
    ) -> None:
        self._venue = venue
        self._settings = settings
        self._publish = publish
        self._spawn = spawn
        self._connects = Lease(leases, venue.name, "ws_connects")
        self._messages = (
            Lease(leases, venue.name, "ws_messages") if venue.messages_per_minute else None
        )
        self._shard_count = shard_count
        self._subscriptions = HeldSeats(
            leases, venue.name, SUBSCRIPTIONS, venue.subscriptions_max, self._settle
        )
        self._seats = HeldSeats(leases, venue.name, SOCKETS, venue.sockets_max, self._settle)
        self._waiting: dict[int, Stream] = {}
        """Streams without a subscription."""
        self._carriers: dict[int, Connection] = {}
        self._connections: list[Connection] = []
        self._running: dict[Connection, asyncio.Task[None]] = {}
        """Those that have a seat."""
        self._closing: list[asyncio.Task[None]] = []
        self._empty_since_s: dict[Connection, float] = {}
        self._closed_malformed: Counter[str] = Counter()
        self._closed_reconnect_count = 0

    @property
    def connections(self) -> list[Connection]:
        """The sockets there are."""
        return list(self._connections)

    @property
    def malformed_by_reason(self) -> Counter[str]:
        """Frames nobody could use, also on sockets that are closed now."""
        total = Counter(self._closed_malformed)
        for connection in self._connections:
            total.update(connection.malformed_by_reason)
        return total

    @property
    def reconnect_count(self) -> int:
        """How often a socket had to be opened anew."""
        return self._closed_reconnect_count + sum(map(_reconnects, self._connections))

    def carry(self, streams: Sequence[Stream]) -> None:
        """Give streams a place on the sockets of their group, on new ones where those are full."""
        self._waiting.update((stream.slot, stream) for stream in streams)
        self._settle()

    def silent_s(self, stream: Stream) -> float:
        """For how long nothing at all has come through the stream's socket; 0 without one."""
        connection = self._carriers.get(stream.slot)
        return connection.silent_s if connection is not None else 0.0

    def remove(self, stream: Stream) -> None:
        """Carry this stream no more."""
        self._waiting.pop(stream.slot, None)
        connection = self._carriers.pop(stream.slot, None)
        if connection is not None:
            connection.remove(stream)
            if not connection.stream_count:
                self._empty_since_s[connection] = monotonic_s()

    def tick(self, now_s: float) -> None:
        """Look for silence, and let go of sockets that have carried nothing for a while."""
        why_blocked = self._connects.wait if self._connects.is_blocked else ""
        for connection in self.connections:
            if connection.is_connected:
                self._watch(connection, now_s)
            elif why_blocked:
                for stream in connection.streams:
                    if stream.state is StreamState.CONNECTING:
                        stream.reason = why_blocked
        for connection, since_s in list(self._empty_since_s.items()):
            if now_s - since_s >= _LINGER_S:
                self._close(connection)
        self._settle()

    def _settle(self) -> None:
        """Let in what there are seats for, and give back those of what has ended."""
        subscribed = sum(connection.subscription_count for connection in self._connections)
        self._subscriptions.want(subscribed + len(self._waiting))
        room = max(self._subscriptions.count - subscribed, 0)
        admitted = list(self._waiting.values())[:room]
        for stream in admitted:
            del self._waiting[stream.slot]
        self._place(admitted)
        self._closing = [task for task in self._closing if not task.done()]
        self._seats.want(len(self._connections) + len(self._closing))
        for connection in self._connections:
            free = self._seats.count - len(self._running) - len(self._closing)
            if connection not in self._running and free > 0:
                self._running[connection] = self._spawn(connection.run())
        _wait(list(self._waiting.values()), self._subscriptions)
        for connection in self._connections:
            if connection not in self._running:
                _wait(connection.streams, self._seats)

    def _place(self, streams: Sequence[Stream]) -> None:
        for name, group in self._venue.groups.items():
            waiting = [each for each in streams if self._channel(each).group == name]
            size = self._size(group)
            for connection in self._connections:
                free = size - connection.stream_count
                if connection.group is group and free > 0 and waiting:
                    connection.add(self._topics(waiting[:free]))
                    self._put_on(connection, waiting[:free])
                    waiting = waiting[free:]
            for start in range(0, len(waiting), size):
                self._open(group, waiting[start : start + size])

    def _close(self, connection: Connection) -> None:
        del self._empty_since_s[connection]
        self._connections.remove(connection)
        if (task := self._running.pop(connection, None)) is not None:
            task.cancel()
            self._closing.append(task)
        self._closed_malformed.update(connection.malformed_by_reason)
        self._closed_reconnect_count += _reconnects(connection)

    def _size(self, group: SocketGroup) -> int:
        """How many streams share a socket: as configured, or as many as it takes for all that an
        address may subscribe to fit its sockets, however it is divided among the shards.
        """
        size = self._settings.streams_per_connection or group.streams_per_connection
        venue = self._venue
        if venue.subscriptions_max is None or venue.sockets_max is None:
            return size
        full = max(venue.sockets_max - self._shard_count + 1, 1)  # the last of a shard may be empty
        return max(size, math.ceil(venue.subscriptions_max / full))

    def _open(self, group: SocketGroup, streams: Sequence[Stream]) -> None:
        connection = Connection(
            self._venue,
            group,
            (self._settings.ws_url or self._venue.ws_url).rstrip("/") + group.path,
            self._topics(streams),
            self._publish,
            self._connects,
            lifetime_s=self._settings.connection_lifetime_s or group.lifetime_s,
            messages=self._messages,
        )
        self._connections.append(connection)
        self._put_on(connection, streams)

    def _put_on(self, connection: Connection, streams: Sequence[Stream]) -> None:
        self._empty_since_s.pop(connection, None)
        for stream in streams:
            self._carriers[stream.slot] = connection

    def _topics(self, streams: Sequence[Stream]) -> dict[str, Stream]:
        return {
            self._channel(stream).topic(stream.key.symbol, self._settings): stream
            for stream in streams
        }

    def _watch(self, connection: Connection, now_s: float) -> None:
        """A subscription that is acknowledged proves nothing: each stream must deliver."""
        for stream in connection.streams:
            limit_s = self._channel(stream).stale_after_s
            if self._settings.stale_after_s and limit_s != math.inf:
                limit_s = self._settings.stale_after_s
            silent = stream.silent_s(now_s) > limit_s
            if silent and stream.state in (StreamState.LIVE, StreamState.SYNCING):
                stream.state = StreamState.STALE
                stream.reason = f"no data for {limit_s:.0f} s, subscribed again"
                log.warning("%s: %s", stream.key, stream.reason)
                stream.fell_silent()
                connection.resubscribe(stream)
            elif not silent and stream.state is StreamState.STALE:
                stream.heard_again()

    def _channel(self, stream: Stream) -> Channel:
        channel = self._venue.channels[stream.key.kind, stream.key.transport]
        assert isinstance(channel, Channel)
        return channel


def _reconnects(connection: Connection) -> int:
    return max(connection.connect_count - 1, 0)


def _wait(streams: Sequence[Stream], seats: HeldSeats) -> None:
    """Show what streams wait for."""
    for stream in streams:
        if seats.is_refused and stream.reason != seats.why_waiting:
            stream.failed(seats.why_waiting)
            log.error("%s: %s", stream.key, stream.reason)
        elif not seats.is_refused and stream.state is not StreamState.FAILED:
            stream.state, stream.reason = StreamState.CONNECTING, seats.why_waiting
