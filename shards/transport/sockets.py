"""The sockets of one venue in one shard: which stream rides on which, and whether it is heard.

A socket is opened when a stream finds no room on those there are, and closed when it has carried
nothing for a while. Nobody else's socket is touched when a stream comes or goes. Where the venue
limits what an address may have, subscriptions and sockets need a seat each
(`engine.limits.held_limits`): who gets none waits, says so, and begins by itself once there is one.
Streams change their socket with both of them open (`shards.feeds.handover`), if there are seats for
that.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.limits.leases import HeldPlaces, Lease, LeaseClient
from engine.messages.settings import VenueSettings
from engine.messages.streams import StreamState
from shards.feeds.feed import Feed
from shards.feeds.handover import Handover
from shards.feeds.passing.heir import Heir, LetGo
from shards.transport.connection import PLANNED, Connection
from shards.transport.watch import Remedy, judge, say_silent
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    SOCKETS,
    SUBSCRIPTIONS,
    Channel,
    SocketGroup,
    Venue,
    limit_of,
    limited_as,
    places_of,
)

_log = logging.getLogger(__name__)

_REFUSED_S = 60.0
"""For so long no seats are asked for silent streams after there were none."""

_PATIENCE_S_MAX = 300.0
"""A venue may announce the end of each socket as soon as it is open. The next one stays for a while
then, twice as long each time, up to this: new sockets are a budget that all streams share.
"""

_LINGER_S = 5.0
"""An empty socket waits so long for a new stream: connections are a budget, too."""

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Lets work run in the background; a fault in it ends the process."""


class _Move(NamedTuple):
    """A stream on its way from one socket to another."""

    handover: Handover
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
        name = limited_as(venue)
        self._connects = Lease(leases, name, CONNECTS)
        self._messages = Lease(leases, name, MESSAGES) if limit_of(venue, MESSAGES) else None
        self._shard_count = shard_count
        self._subscriptions, self._places = (
            HeldPlaces(leases, name, pool, places_of(venue, pool), self._settle, venue.name)
            for pool in (SUBSCRIPTIONS, SOCKETS)
        )
        self._waiting: dict[int, Feed] = {}
        """Streams without a subscription."""
        self._by_topic: dict[str, dict[int, Feed]] = {}
        """All streams of a topic, wherever it is carried."""
        self._carriers: dict[int, Connection] = {}
        self._moves: dict[int, _Move] = {}
        self.heirs: dict[int, Heir] = {}
        """By slot: streams that another process still has. What comes for them is kept there."""
        self.let_go: dict[int, LetGo] = {}
        """By slot: streams that another process is about to go on with."""
        self._false_alarms: Counter[int] = Counter()
        """How often a stream was silent for long and its socket proved to be all right."""
        self._spare_sockets = self._spare_subscriptions = 0
        """HeldLimit that are asked for so that streams can move."""
        self._refused_until_s = 0.0
        self._connections: list[Connection] = []
        self._running: dict[Connection, asyncio.Task[None]] = {}
        """Those that have a seat."""
        self._closing: list[asyncio.Task[None]] = []
        self._empty_since_s: dict[Connection, float] = {}
        self._closed_malformed: Counter[str] = Counter()
        self._closed_reconnect_count = 0
        self.tries: Counter[str] = Counter()
        """Of all sockets there have been (`Connection`)."""

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

    def carry(self, streams: Sequence[Feed]) -> None:
        """Give streams a place on the sockets of their group, on new ones where those are full."""
        for stream in streams:
            if self._shares_topic(stream):
                self._waiting[stream.slot] = stream
        self._settle()

    def _shares_topic(self, stream: Feed) -> bool:
        """Whether its topic can bring its rows besides those of others: symbols may differ in what
        topics do not tell. A socket could serve one of them, and would take the rows of both for
        its own.
        """
        topic = self._topic(stream)
        mates = self._by_topic.setdefault(topic, {})
        symbols = {mate.key.symbol for mate in mates.values()} - {stream.key.symbol}
        if symbols and not self._channel(stream).is_of_all_symbols:
            stream.failed(f"{self._venue.name} calls it {topic!r}, as it does {symbols.pop()!r}")
            _log.error("%s: %s", stream.key, stream.reason)
            return False
        mates[stream.slot] = stream
        return True

    def carrier(self, stream: Feed) -> Connection | None:
        """The socket that brings a stream, or will; None while it has none."""
        return self._carriers.get(stream.slot)

    def is_moving(self, stream: Feed) -> bool:
        """Whether it is on its way from one socket to another."""
        return stream.slot in self._moves

    def silent_s(self, stream: Feed) -> float:
        """For how long nothing at all has come through the stream's socket; 0 without one."""
        connection = self._carriers.get(stream.slot)
        return connection.silent_s if connection is not None else 0.0

    def remove(self, stream: Feed) -> None:
        """Carry this stream no more."""
        topic = self._topic(stream)
        mates = self._by_topic.get(topic, {})
        if mates.pop(stream.slot, None) is not None and not mates:
            del self._by_topic[topic]
        for held in (self._waiting, self.heirs, self.let_go):
            held.pop(stream.slot, None)
        connection = self._carriers.pop(stream.slot, None)
        if connection is not None:
            self._take_off(connection, stream)
        move = self._moves.pop(stream.slot, None)
        if move is not None:
            self._take_off(move.new, stream)
        self._false_alarms.pop(stream.slot, None)

    def _take_off(self, connection: Connection, stream: Feed) -> None:
        connection.remove(stream)
        if not connection.subscriptions.topics:
            self._empty_since_s[connection] = monotonic_s()

    def tick(self, now_s: float) -> None:
        """Look for silence, replace sockets that are due, and let go of those that have carried
        nothing for a while.
        """
        self._spare_sockets = self._spare_subscriptions = 0
        for move in list(self._moves.values()):
            move.handover.tick(now_s)
        for connection in self.connections:
            if connection.is_connected and connection.due:
                self._replace(connection)
        silent: list[Feed] = []
        for connection in self.connections:
            if connection.is_connected:
                silent += self._watch(connection, now_s)
        say_silent(silent)
        self._say_why_blocked()
        for connection, since_s in list(self._empty_since_s.items()):
            if connection.due or now_s - since_s >= _LINGER_S:
                self._close(connection)
        self._settle()

    def _say_why_blocked(self) -> None:
        if self._connects.is_blocked and (why := self._connects.wait):
            for connection in self._connections:
                for stream in connection.streams:
                    if stream.state is StreamState.CONNECTING:
                        stream.explain(why)

    def _settle(self) -> None:
        """Let in what there are seats for, and give back those of what has ended."""
        subscribed = sum(connection.subscription_count for connection in self._connections)
        waiting = {self._topic(stream) for stream in self._waiting.values()}
        waiting.difference_update(*(each.subscriptions.topics for each in self._connections))
        self._subscriptions.want(subscribed + len(waiting) + self._spare_subscriptions)
        self._admit(waiting, max(self._subscriptions.count - subscribed, 0))
        self._closing = [task for task in self._closing if not task.done()]
        self._places.want(len(self._connections) + len(self._closing) + self._spare_sockets)
        for connection in self._connections:
            free = self._places.count - len(self._running) - len(self._closing)
            if connection not in self._running and free > 0:
                self._running[connection] = self._spawn(connection.run())
        _wait(list(self._waiting.values()), self._subscriptions)
        for connection in self._connections:
            if connection not in self._running:
                _wait(connection.streams, self._places)

    def _admit(self, waiting: set[str], room: int) -> None:
        """Let streams in, as far as there is room for those of their topics that still wait."""
        for stream in list(self._waiting.values()):
            topic = self._topic(stream)
            if topic in waiting:
                if not room:
                    continue
                waiting.discard(topic)
                room -= 1
            del self._waiting[stream.slot]
            connection = self._place_for(topic, self._channel(stream).group)
            self._empty_since_s.pop(connection, None)
            self._carriers[stream.slot] = connection
            if (heir := self.heirs.get(stream.slot)) is not None:
                connection.expect(topic, heir)
            else:
                connection.add([(topic, stream)])

    def _place_for(self, topic: str, group_name: str) -> Connection:
        """The socket that has the topic, else one with room for it, else a new one."""
        group = self._venue.groups[group_name]
        having = [
            each
            for each in self._connections
            if each.group is group and topic in each.subscriptions.topics
        ]
        if having:
            return min(having, key=lambda each: bool(each.due))
        return self._with_room(group, self._connections) or self._open(group)

    def _with_room(
        self, group: SocketGroup, connections: Sequence[Connection]
    ) -> Connection | None:
        size = self._size(group)
        for each in connections:
            if each.group is group and not each.due and len(each.subscriptions.topics) < size:
                return each
        return None

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
        subscriptions, sockets = (places_of(self._venue, each) for each in (SUBSCRIPTIONS, SOCKETS))
        if subscriptions is None or sockets is None:
            return size
        full = max(sockets - self._shard_count + 1, 1)  # the last of a shard may be empty
        return max(size, math.ceil(subscriptions / full))

    def _replace(self, connection: Connection) -> None:
        """Move every stream to a new socket before this one ends. One socket after the other, if
        there is time: nothing is to be renewed all at once.
        """
        for move in filter(lambda each: each.old is connection, self._moves.values()):
            move.handover.is_for_silence = False
        streams = connection.streams
        staying = [stream for stream in streams if stream.slot not in self._moves]
        # Of those that are let go of it is known in a moment whether they stay.
        if not staying or any(stream.slot in self.let_go for stream in streams):
            return
        if connection.due == PLANNED and any(move.old.due for move in self._moves.values()):
            return
        lived_s = monotonic_s() - connection.opened_s
        if connection.due != PLANNED and lived_s < connection.patience_s:
            return
        has_places = self._has_places(1, len(set(map(self._topic, staying))))
        if has_places:
            _log.info("%s: %s, with the next socket open", self._venue.name, connection.due)
            self._closed_reconnect_count += 1
            new = self._open(connection.group)
            if lived_s < _PATIENCE_S_MAX:
                new.patience_s = min(max(2 * connection.patience_s, 1.0), _PATIENCE_S_MAX)
            for stream in staying:
                self._move(stream, connection, new)
        elif has_places is not None:
            connection.close_first()

    def _has_places(self, sockets: int, subscriptions: int) -> bool | None:
        """Whether so many may be held besides what is; None while that is being asked."""
        held = len(self._connections) + len(self._closing)
        subscribed = sum(connection.subscription_count for connection in self._connections)
        free = self._subscriptions.count - subscribed - len(self._waiting)
        if self._places.count - held >= sockets and free >= subscriptions:
            self._spare_sockets = self._spare_subscriptions = 0
            return True
        if self._places.is_refused or self._subscriptions.is_refused:
            return False
        self._spare_sockets = max(self._spare_sockets, sockets)
        self._spare_subscriptions = max(self._spare_subscriptions, subscriptions)
        return None

    def _move(
        self, stream: Feed, old: Connection, new: Connection, *, is_for_silence: bool = False
    ) -> None:
        def on_over(anew: bool) -> None:
            del self._moves[stream.slot]
            self._take_off(old, stream)
            self._carriers[stream.slot] = new
            new.take_over(stream, anew=anew)
            if is_for_silence and stream.has_data and not anew:
                self._false_alarms[stream.slot] += 1
            self._follow(stream, old, new)

        handover = Handover(
            stream, on_over, lambda: new.resubscribe(stream), is_for_silence=is_for_silence
        )
        self._moves[stream.slot] = _Move(handover, old, new)
        self._empty_since_s.pop(new, None)
        old.subscriptions.going[stream.slot] = handover
        new.expect(self._topic(stream), handover)

    def _follow(self, stream: Feed, old: Connection, new: Connection) -> None:
        """Let the streams that share its topic come after it."""
        for mate in self._sharing(stream, old):
            if mate.slot not in self._moves:
                self._move(mate, old, new)

    def _sharing(self, stream: Feed, connection: Connection | None) -> list[Feed]:
        """The streams of its topic that a socket carries, itself as well if it does."""
        known = self._by_topic.get(self._topic(stream), {})
        return [each for each in known.values() if self._carriers.get(each.slot) is connection]

    def _open(self, group: SocketGroup) -> Connection:
        tuned = self._settings
        connection = Connection(
            self._venue,
            group,
            self._url(group),
            (),
            self._publish,
            self._connects,
            lifetime_s=tuned.connection_lifetime_s or group.lifetime_s,
            messages=self._messages,
            greet=partial(group.greet, tuned) if group.greet is not None else None,
            backoff=Backoff(
                tuned.reconnect_first_s,
                tuned.reconnect_max_s,
                tuned.breaker_failures,
                tuned.breaker_pause_s,
            ),
            tries=self.tries,
        )
        self._connections.append(connection)
        return connection

    def _url(self, group: SocketGroup) -> str:
        name = next(name for name, each in self._venue.groups.items() if each is group)
        base = (self._settings.ws_url or self._venue.ws_url).rstrip("/")
        return base + self._settings.socket_paths.get(name, group.path)

    def renew(self, stream: Feed) -> None:
        """Subscribe the stream's topic anew on the socket that brings it, for a snapshot."""
        if (carrier := self._carriers.get(stream.slot)) is not None:
            carrier.resubscribe(stream)

    def _watch(self, connection: Connection, now_s: float) -> list[Feed]:
        """See that each stream delivers. Where another stream of its topic is heard, asking for
        the topic again would change nothing. Returns those that just fell silent.
        """
        fell_silent = []
        for stream in connection.streams:
            if stream.slot in self.let_go:
                continue
            limit_s = self._limit_s(stream)
            remedy = judge(stream, limit_s, self._false_alarms[stream.slot], now_s)
            if remedy is Remedy.HEARD:
                self._heard(stream)
            elif remedy is not Remedy.NONE:
                sharing = self._sharing(stream, connection)
                topic_lives = any(each.silent_s(now_s) <= limit_s for each in sharing)
                if remedy is Remedy.RESUBSCRIBE:
                    what = "though its topic is heard" if topic_lives else "subscribed again"
                    stream.fell_silent(f"no data for {limit_s:.0f} s, {what}")
                    fell_silent.append(stream)
                    if not topic_lives:
                        connection.resubscribe(stream)
                elif stream.slot not in self._moves and not topic_lives:
                    self._ask_elsewhere(stream, connection, stream.silent_s(now_s))
        return fell_silent

    def _limit_s(self, stream: Feed) -> float:
        """For how long it may be silent."""
        limit_s = self._channel(stream).stale_after_s
        return limit_s if limit_s == math.inf else self._settings.stale_after_s or limit_s

    def _heard(self, stream: Feed) -> None:
        """Something has come through the socket that carries the stream: its topic is all right."""
        if stream.state is StreamState.STALE:
            stream.heard()
        if not self._moves:
            return
        for each in self._sharing(stream, self._carriers.get(stream.slot)):
            move = self._moves.get(each.slot)
            if move is not None and move.handover.is_for_silence:
                del self._moves[each.slot]
                move.old.subscriptions.going.pop(each.slot, None)
                self._take_off(move.new, each)
                self._false_alarms[each.slot] += 1

    def _ask_elsewhere(self, stream: Feed, connection: Connection, silent_s: float) -> None:
        """Subscribe a silent stream on a second socket, if the venue allows that."""
        if monotonic_s() < self._refused_until_s:
            return
        others = [each for each in self._connections if each is not connection]
        other = self._with_room(connection.group, others)
        has_places = self._has_places(int(other is None), 1)
        if has_places:
            other = other or self._open(connection.group)
            self._move(stream, connection, other, is_for_silence=True)
            reason = f"no data for {silent_s:.0f} s, subscribed on another socket as well"
        elif has_places is None:
            return
        else:
            self._refused_until_s = monotonic_s() + _REFUSED_S
            reason = "subscribed again in vain, and no other socket is allowed"
        if stream.reason != reason:
            stream.explain(reason)
            _log.warning("%s: %s", stream.key, reason)

    def _topic(self, stream: Feed) -> str:
        return self._channel(stream).topic(stream.key.symbol, self._settings)

    def _channel(self, stream: Feed) -> Channel:
        channel = self._venue.channels[stream.key.kind, stream.key.transport]
        assert isinstance(channel, Channel)
        return channel


def _reconnects(connection: Connection) -> int:
    return max(connection.connect_count - 1, 0)


def _wait(streams: Sequence[Feed], places: HeldPlaces) -> None:
    """Show what streams wait for."""
    for stream in streams:
        if places.is_refused and stream.reason != places.why_waiting:
            stream.failed(places.why_waiting)
            _log.error("%s: %s", stream.key, stream.reason)
        elif not places.is_refused and stream.state is not StreamState.FAILED:
            stream.waits(places.why_waiting)
