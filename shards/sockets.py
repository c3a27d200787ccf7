"""The sockets of one venue in one shard: which stream rides on which, and whether it is heard.

A socket is opened when a stream finds no room on those there are, and closed when it has carried
nothing for a while. Nobody else's socket is touched when a stream comes or goes.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from engine.clock import monotonic_s
from engine.commands import StreamState
from engine.settings import VenueSettings
from shards.connection import PLANNED, Connection
from shards.handover import Handover
from shards.leases import Lease, LeaseClient
from shards.stream import Stream
from shards.venues.spec import Channel, SocketGroup, Venue

log = logging.getLogger(__name__)

_FALSE_ALARMS_MAX = 3
"""After so many a stream's silence grows suspicious no later."""

_LINGER_S = 5.0
"""An empty socket waits so long for a new stream: connections are a budget, too."""

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Lets work run in the background; a fault in it ends the process."""


class _Move(NamedTuple):
    """A stream on its way from one socket to another."""

    handover: Handover
    topic: str
    old: Connection
    new: Connection


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
        self._room = _part(venue.subscriptions_max, shard_count)
        self._sockets_max = _part(venue.sockets_max, shard_count)
        self._carriers: dict[int, Connection] = {}
        self._moves: dict[int, _Move] = {}
        self._false_alarms: Counter[int] = Counter()
        """How often a stream was silent for long and its socket proved to be all right."""
        self._running: dict[Connection, asyncio.Task[None]] = {}
        self._empty_since_s: dict[Connection, float] = {}
        self._closed_malformed: Counter[str] = Counter()
        self._closed_reconnect_count = 0

    @property
    def connections(self) -> list[Connection]:
        """The sockets there are."""
        return list(self._running)

    @property
    def malformed_by_reason(self) -> Counter[str]:
        """Frames nobody could use, also on sockets that are closed now."""
        total = Counter(self._closed_malformed)
        for connection in self._running:
            total.update(connection.malformed_by_reason)
        return total

    @property
    def reconnect_count(self) -> int:
        """How often a socket had to be opened anew."""
        return self._closed_reconnect_count + sum(map(_reconnects, self._running))

    def carry(self, streams: Sequence[Stream]) -> Sequence[Stream]:
        """Give streams a place on the sockets of their group, on new ones where those are full.
        Returns those that are beyond what the venue allows; this shard has its part of that.
        """
        room = len(streams)
        if self._room is not None:
            room = max(self._room - len(self._carriers) - len(self._moves), 0)
        for name, group in self._venue.groups.items():
            waiting = [each for each in streams[:room] if self._channel(each).group == name]
            size = self._size(group)
            staying = [c for c in self.connections if c.group is group and not c.due]
            for connection in staying:
                free = max(size - connection.stream_count, 0)
                self._add(connection, waiting[:free])
                waiting = waiting[free:]
            while waiting and (self._has_seat(0) or not staying):
                self._open(group, waiting[:size])
                waiting = waiting[size:]
            if waiting:  # the venue limits how many sockets there are, not what one carries
                self._add(min(staying, key=lambda each: each.stream_count), waiting)
        return streams[room:]

    def _add(self, connection: Connection, streams: Sequence[Stream]) -> None:
        if streams:
            connection.add(self._topics(streams))
            self._put_on(connection, streams)

    @property
    def why_full(self) -> str:
        """Why `carry` gave streams back."""
        venue, room = self._venue, self._room
        part = f", this shard {room}" if room != venue.subscriptions_max else ""
        return f"{venue.name} allows an address {venue.subscriptions_max} subscriptions{part}"

    def silent_s(self, stream: Stream) -> float:
        """For how long nothing at all has come through the stream's socket; 0 without one."""
        connection = self._carriers.get(stream.slot)
        return connection.silent_s if connection is not None else 0.0

    def remove(self, stream: Stream) -> None:
        """Carry this stream no more."""
        connection = self._carriers.pop(stream.slot, None)
        if connection is not None:
            self._take_off(connection, stream)
        move = self._moves.pop(stream.slot, None)
        if move is not None:
            self._take_off(move.new, stream)
        self._false_alarms.pop(stream.slot, None)

    def _take_off(self, connection: Connection, stream: Stream) -> None:
        connection.remove(stream)
        if not connection.stream_count:
            self._empty_since_s[connection] = monotonic_s()

    def tick(self, now_s: float) -> None:
        """Look for silence, replace sockets that are due, and let go of those that have carried
        nothing for a while.
        """
        for move in list(self._moves.values()):
            move.handover.tick(now_s)
        for connection in self.connections:
            if connection.is_connected and connection.due:
                self._replace(connection)
        for connection in self.connections:
            if connection.is_connected:
                self._watch(connection, now_s)
        for connection, since_s in list(self._empty_since_s.items()):
            if connection.due or now_s - since_s >= _LINGER_S:
                del self._empty_since_s[connection]
                self._running.pop(connection).cancel()
                self._closed_malformed.update(connection.malformed_by_reason)
                self._closed_reconnect_count += _reconnects(connection)

    def _size(self, group: SocketGroup) -> int:
        """How many streams share a socket: as configured, or as many as few sockets need."""
        size = self._settings.streams_per_connection or group.streams_per_connection
        if self._room is None or self._sockets_max is None:
            return size
        return max(size, math.ceil(self._room / self._sockets_max))

    def _replace(self, connection: Connection) -> None:
        """Move every stream to a new socket before this one ends. One socket after the other, if
        there is time: nothing is to be renewed all at once.
        """
        for move in self._moves.values():
            if move.old is connection:
                move.handover.is_for_silence = False
        staying = [stream for stream in connection.streams if stream.slot not in self._moves]
        if not staying:
            return
        if connection.due == PLANNED and any(move.old.due for move in self._moves.values()):
            return
        if self._has_seat(len(staying)):
            log.info("%s: %s, with the next socket open", self._venue.name, connection.due)
            self._closed_reconnect_count += 1
            new = self._open(connection.group, [])
            for stream in staying:
                self._move(stream, connection, new)
        else:
            connection.close_first()

    def _has_seat(self, stream_count: int) -> bool:
        """Whether the venue allows one more socket with so many streams that are subscribed twice
        for a while.
        """
        is_full = self._sockets_max is not None and len(self._running) >= self._sockets_max
        return not is_full and self._may_subscribe(stream_count)

    def _may_subscribe(self, stream_count: int) -> bool:
        subscribed = len(self._carriers) + len(self._moves)
        return self._room is None or subscribed + stream_count <= self._room

    def _move(
        self, stream: Stream, old: Connection, new: Connection, *, is_for_silence: bool = False
    ) -> None:
        (topic,) = self._topics([stream])

        def on_over(anew: bool) -> None:
            del self._moves[stream.slot]
            self._take_off(old, stream)
            self._carriers[stream.slot] = new
            new.take_over(topic, anew=anew)
            if is_for_silence and stream.has_data and not anew:
                self._false_alarms[stream.slot] += 1

        handover = Handover(stream, on_over, is_for_silence=is_for_silence)
        self._moves[stream.slot] = _Move(handover, topic, old, new)
        self._empty_since_s.pop(new, None)
        old.leave_to(topic, handover)
        new.expect(topic, handover)

    def _open(self, group: SocketGroup, streams: Sequence[Stream]) -> Connection:
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
        self._running[connection] = self._spawn(connection.run())
        self._put_on(connection, streams)
        return connection

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
        """A subscription that is acknowledged proves nothing: each stream must deliver. A silent
        one is subscribed again, and after as long a silence once more on another socket as well.

        Whether an instrument is quiet or its socket deaf is not guessed: the socket that brings
        the next row keeps the stream. If that is the old one, it was a false alarm, and the stream
        may be silent for twice as long before the next.
        """
        for stream in connection.streams:
            limit_s = self._channel(stream).stale_after_s
            if self._settings.stale_after_s and limit_s != math.inf:
                limit_s = self._settings.stale_after_s
            silent_s = stream.silent_s(now_s)
            if silent_s <= limit_s:
                self._heard(stream)
            elif stream.state in (StreamState.LIVE, StreamState.SYNCING):
                stream.state = StreamState.STALE
                stream.reason = f"no data for {limit_s:.0f} s, subscribed again"
                log.warning("%s: %s", stream.key, stream.reason)
                stream.fell_silent()
                connection.resubscribe(stream)
            elif stream.state is StreamState.STALE and stream.slot not in self._moves:
                alarms = min(self._false_alarms[stream.slot], _FALSE_ALARMS_MAX)
                if silent_s > 2 * limit_s * 2**alarms:
                    self._ask_elsewhere(stream, connection, silent_s)

    def _heard(self, stream: Stream) -> None:
        """Something has come through the socket that carries the stream."""
        if stream.state is StreamState.STALE:
            stream.state, stream.reason = StreamState.LIVE, ""
        move = self._moves.get(stream.slot)
        if move is not None and move.handover.is_for_silence:
            del self._moves[stream.slot]
            move.old.keep(move.topic)
            self._take_off(move.new, stream)
            self._false_alarms[stream.slot] += 1

    def _ask_elsewhere(self, stream: Stream, connection: Connection, silent_s: float) -> None:
        other = self._other_than(connection)
        if other is None:
            reason = "subscribed again in vain, and no other socket is allowed"
        else:
            self._move(stream, connection, other, is_for_silence=True)
            reason = f"no data for {silent_s:.0f} s, subscribed on another socket as well"
        if stream.reason != reason:
            stream.reason = reason
            log.warning("%s: %s", stream.key, reason)

    def _other_than(self, connection: Connection) -> Connection | None:
        """A socket for one more stream, within what the venue allows."""
        size = self._size(connection.group)
        if not self._may_subscribe(1):
            return None
        for other in self.connections:
            fits = other.group is connection.group and other.stream_count < size
            if fits and other is not connection and not other.due:
                return other
        return self._open(connection.group, []) if self._has_seat(1) else None

    def _channel(self, stream: Stream) -> Channel:
        channel = self._venue.channels[stream.key.kind, stream.key.transport]
        assert isinstance(channel, Channel)
        return channel


def _reconnects(connection: Connection) -> int:
    return max(connection.connect_count - 1, 0)


def _part(limit: int | None, shard_count: int) -> int | None:
    """A shard's part of what an address may have."""
    return max(limit // shard_count, 1) if limit is not None else None
