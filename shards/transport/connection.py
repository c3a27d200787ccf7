"""One connection: a socket for streams of one venue's socket group, and after it the next one.

Decoding happens inside the frame callback, straight into the ring; there is no queue. A frame that
cannot be used is counted by reason and skipped: its connection and its neighbours live on.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.keep_trying import Trouble
from engine.limits.leases import Refusable
from shards.feeds.declared.coverage import Carriers
from shards.feeds.feed import Feed
from shards.transport.answers import address_of
from shards.transport.conversation import Conversation
from shards.transport.handshakes import why_refused
from shards.transport.socket import CANNOT_CONNECT, Socket, connect
from shards.transport.subscriptions import Coming, Request, Subscriptions
from shards.venues.bad_frames import BadFrames
from shards.venues.kit import Feeds, FrameDecoder, SocketGroup, Venue
from shards.venues.salvage import Salvage

_log = logging.getLogger(__name__)

_STABLE_AFTER_S = 60.0
"""A socket that has stood for so long works, though its streams may be silent by nature."""
_LIFETIME_SPREAD = 0.9
"""Sockets that were opened together live from this part of their time to all of it."""
_TOLD_FROM_S = 60.0
"""A pause as long as that is told with the reason for it."""

PLANNED = "planned reconnect before the venue's time limit"


class Connection:
    """Streams may come and go while a socket lives: what is subscribed follows what is wanted, and
    one task sends the difference at the pace the venue allows.
    """

    def __init__(
        self,
        venue: Venue,
        group: SocketGroup,
        url: str,
        streams: Iterable[tuple[str, Feed]],
        publish: Callable[[], None],
        connects: Refusable,
        *,
        lifetime_s: float,
        messages: Refusable | None = None,
        greet: Callable[[], Sequence[bytes]] | None = None,
        backoff: Backoff | None = None,
        tries: Counter[str] | None = None,
    ) -> None:
        """`tries` counts `connects`, and the topics of `subscribes`, of this and other sockets."""
        self._venue = venue
        self.group = group
        self._url = url
        self._publish = publish
        self._connects = connects
        self._messages = messages
        self._greet = greet
        self._lifetime_s = lifetime_s
        self._feeds = Feeds()
        self.subscriptions = Subscriptions(group, self._feeds)
        self._changed = Alarm()
        self.talk = Conversation(venue, self.subscriptions, connects, self._changed.ring, messages)
        self._closes_first = False
        self._trouble = Trouble(
            f"{venue.name} {address_of(url)}",
            "its streams wait for the next try",
            backoff or Backoff(),
            _log,
        )
        self._tries = Counter[str]() if tries is None else tries
        self._bad_frames = BadFrames(venue.name)
        self.malformed_by_reason = self._bad_frames.by_reason
        self._socket: Socket | None = None
        self._salvage: Salvage | None = None
        self.connect_count = 0
        self.carrier = 0
        """Names the present socket in the records of coverage."""
        self.patience_s = 0.0
        """How long the present socket stays, come what may."""
        for topic, stream in streams:
            self.subscriptions.add(topic, stream)

    @property
    def streams(self) -> Sequence[Feed]:
        """The streams of this socket; of those on their way here, the other socket's."""
        return self.subscriptions.streams

    @property
    def due(self) -> str:
        """Why this socket should be replaced by another one soon; empty while it should not."""
        return self.talk.due

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open."""
        return self._socket is not None and self._socket.is_open

    @property
    def opened_s(self) -> float:
        """When the present or last socket was opened (monotonic)."""
        return self._socket.opened_s if self._socket is not None else 0.0

    @property
    def silent_s(self) -> float:
        """For how long nothing the venue said was heard: since the last frame, and for as long as
        that one was on its way. A process that stood still hears old news first.
        """
        timed = (stream for stream in self.streams if stream.clocks_ns is not None)
        newest = max(timed, key=lambda stream: stream.last_recv_ns, default=None)
        lag_s = newest.lag_ns / 1e9 if newest is not None else 0.0
        heard_s = self._socket.last_frame_s if self._socket is not None else 0.0
        return monotonic_s() - heard_s + lag_s

    @property
    def subscription_count(self) -> int:
        """What the venue counts, or will: also what has ended until the venue is told so."""
        known = self.subscriptions
        return known.count if self.is_connected else len(known.topics)

    def add(self, streams: Iterable[tuple[str, Feed]]) -> None:
        """Carry these streams as well, by their topics, on the same socket."""
        for topic, stream in streams:
            self.subscriptions.add(topic, stream)
            self.begin(stream)
        self._changed.ring()

    def begin(self, stream: Feed) -> None:
        """A stream of this socket begins, or begins anew."""
        if self.is_connected:
            self._carry(stream)
        else:
            stream.waits(f"connecting to {self._url}")

    def _carry(self, stream: Feed) -> None:
        stream.carrier = self.carrier
        stream.subscribed()

    def expect(self, topic: str, handover: Coming) -> None:
        """Subscribe a stream as well that another socket, or another process's, delivers until the
        handover is over.
        """
        self.subscriptions.add(topic, handover.stream, handover)
        self._changed.ring()

    def take_over(self, stream: Feed, *, anew: bool) -> None:
        """Deliver what was expected from now on."""
        self.subscriptions.take_over(stream)
        if anew:
            self.begin(stream)
        else:
            stream.carried_on(self.carrier)

    def remove(self, stream: Feed) -> None:
        """Carry this stream no more. What of it is under way is ignored."""
        self.subscriptions.remove(stream)
        self._changed.ring()

    def resubscribe(self, stream: Feed) -> None:
        """Ask once more for a stream that stays silent."""
        self.subscriptions.ask_again(stream)
        self._changed.ring()

    def close_first(self) -> None:
        """End this socket and open it anew: there is no room for another one beside it."""
        self._closes_first = True

    async def run(self) -> None:
        """Keep the socket alive until cancelled, or replaced."""
        self._wait(f"waiting for its turn to connect to {self._url}")
        while True:
            await self._connects.acquire()
            self._tries["connects"] += 1
            self._wait(f"connecting to {self._url}")
            reason = await self._live_once()
            silent_s, is_planned = self.silent_s, self.due == PLANNED
            is_replaced = self._hand_on(reason, silent_s)
            for stream in self.subscriptions.served:
                stream.cut(reason, silent_s)
            self._publish()
            if is_replaced:
                return
            if is_planned:
                _log.info("%s: %s", self._venue.name, reason)
            else:
                delay_s = self._trouble.met(reason)
                if delay_s >= _TOLD_FROM_S:
                    for stream in self.subscriptions.served:
                        stream.explain(f"{reason}; next try in {delay_s:.0f} s")
                await asyncio.sleep(delay_s)

    def _wait(self, why: str) -> None:
        for stream in self.subscriptions.served:
            stream.waits(why)

    def _hand_on(self, reason: str, silent_s: float) -> bool:
        """The socket has ended: let others take what they were about to. Returns whether nothing
        is left to open it anew for.
        """
        for handover in list(self.subscriptions.going.values()):
            handover.lost(reason, silent_s)
        for coming in self.subscriptions.coming.values():
            coming.start_over()
        if self.due and not self.subscriptions.topics:
            return True
        self.talk.due, self._closes_first = "", False
        return False

    async def _live_once(self) -> str:
        """One life of the socket. Returns why it ended."""
        try:
            socket = await connect(self._url, self.group, self, self._publish)
        except CANNOT_CONNECT as error:
            return f"cannot connect: {why_refused(error, self._url, self._connects)}"
        try:
            return await self._serve(socket)
        finally:
            await socket.end()

    def opened(self, socket: Socket) -> FrameDecoder:
        """A new socket is open."""
        self._socket = socket
        self.connect_count += 1
        self.carrier = Carriers.name_new()
        self._feeds.opened()
        self.subscriptions.opened()
        self.talk.begin(socket)
        for stream in self.subscriptions.served:
            self._carry(stream)
        decode = self._venue.open_decoder(self._feeds, self.talk)
        self._salvage = Salvage(self._venue, self._feeds, decode, self._bad_frames.add)
        return decode

    def bad_frame(self, error: Exception, payload: bytes) -> None:
        """Use what can be used of a frame that was refused; count the rest, and say so once in a
        while.
        """
        assert self._salvage is not None
        self._salvage.take(payload, wall_ns(), error)

    async def _serve(self, socket: Socket) -> str:
        """Subscribe and stay until the socket ends, falls silent or has lived its time."""
        work = [asyncio.create_task(self._subscribe(socket))]
        if self.group.json_ping is not None or self.group.pings_always:
            work.append(asyncio.create_task(self._ping(socket)))
        spread = random.uniform(_LIFETIME_SPREAD, 1.0)  # noqa: S311 - no secret
        ends_at_s = socket.opened_s + self._lifetime_s * spread
        try:
            while socket.goes_on:
                await socket.wait(1.0, *work)
                fault = next((task.exception() for task in work if task.done()), None)
                if isinstance(fault, TimeoutError):
                    return "the venue did not answer what it must be greeted with"
                if fault is not None:
                    _log.error("%s %s", self._venue.name, self._url, exc_info=fault)
                    return f"this socket's work failed: {fault!r}"
                if why := self._why_end(socket, monotonic_s(), ends_at_s):
                    return why
            return await self._last_words(socket)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    def _why_end(self, socket: Socket, now_s: float, ends_at_s: float) -> str:
        """Why the socket is to be ended now, or nothing; then streams that were left out for long
        enough are tried again.
        """
        if socket.idle_s > self.group.idle_timeout_s:
            return f"silent for {self.group.idle_timeout_s:.0f} s"
        if now_s >= ends_at_s and not self.due:
            self.talk.due = PLANNED
        if self._closes_first:
            return self.due
        for stream in self.subscriptions.due_again(now_s):
            self._carry(stream)
            self._changed.ring()
        if socket.goes_on:
            self._note_work(now_s - socket.opened_s)
        return ""

    def _note_work(self, lived_s: float) -> None:
        """Delays start over once the socket has done what it is for. That it was opened, or that a
        subscription was acknowledged, is nothing yet.
        """
        if lived_s >= _STABLE_AFTER_S or any(s.has_data for s in self.subscriptions.served):
            self._trouble.over()

    async def _last_words(self, socket: Socket) -> str:
        """Why the socket has ended, and what follows from that."""
        words = await socket.last_words()
        if words.is_breach:
            return words.text
        now_s = monotonic_s()
        self._note_work(now_s - socket.opened_s)
        for stream in self.subscriptions.streams_of(self.subscriptions.hung_up(now_s)):
            stream.cut("disconnected", self.silent_s)
            stream.failed(f"{self._venue.name} hangs up when this is subscribed; tried again later")
            _log.error("%s: %s", stream.key, stream.reason)
        if words.is_said:
            self.talk.heed(words.text)
        return words.text

    async def _subscribe(self, socket: Socket) -> None:
        """Tell the venue what has changed, for as long as the socket lives."""
        if self._greet is not None:
            await self.talk.greet(self._greet())
        known = self.subscriptions
        while True:
            await self.talk.rest()
            request = known.next_request(is_ending=bool(self.due))
            if request is None:
                await self._changed.wait()
            elif not request.is_alone:
                await self._send(socket, request)
            else:
                await asyncio.sleep(known.pause_s(monotonic_s()))
                if topics := await self._send(socket, request):
                    await asyncio.sleep(known.pause_s(monotonic_s()))
                    known.cleared(topics)

    async def _send(self, socket: Socket, request: Request) -> Sequence[str]:
        """Send what is still to be said of a request; return it when the next one may follow."""
        if self._messages is not None:
            await self._messages.acquire()
        now_s, is_ending = monotonic_s(), bool(self.due)
        topics, number = self.subscriptions.send(request, now_s, is_ending=is_ending)
        for stream in [] if request.ends else self.subscriptions.put_off_among(topics):
            self._carry(stream)
        if topics:
            render = self._venue.unsubscribe if request.ends else self._venue.subscribe
            self._tries["unsubscribes" if request.ends else "subscribes"] += len(topics)
            for frame in render(topics, number):
                socket.send(frame)
                await asyncio.sleep(self.group.message_interval_s)
        return topics

    async def _ping(self, socket: Socket) -> None:
        """The venue's own kind of ping, or one that does not wait for silence."""
        while True:
            await asyncio.sleep(self.group.ping_interval_s)
            if self.group.json_ping is not None:
                socket.send(self.group.json_ping)
            else:
                socket.transport.send_ping()
