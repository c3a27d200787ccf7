"""One WebSocket: connect, subscribe, read, notice silence, back off, again.

Decoding happens inside the frame callback, straight into the ring; there is no queue. A frame that
cannot be used is counted by reason and skipped: its connection and its neighbours live on.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence

from picows import (
    WSError,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.keep_trying import Trouble
from engine.limits.leases import Refusable, Turnstile
from engine.messages.streams import StreamState
from shards.feeds.declared.coverage import Carriers
from shards.feeds.feed import Feed
from shards.feeds.handover import Handover
from shards.transport.answers import address_of
from shards.transport.handshakes import why_refused
from shards.transport.hangups import Hangups
from shards.transport.listener import MAX_FRAME_BYTES, FrameListener
from shards.transport.refusals import BANNED, speaks_of_ban, told_wait_s
from shards.venues.bad_frames import BadFrames
from shards.venues.kit import Control, Feeds, SocketGroup, Venue
from shards.venues.salvage import Salvage

_log = logging.getLogger(__name__)

_library_log = logging.getLogger("picows.venues")
_library_log.setLevel(logging.CRITICAL)  # why a socket ended is told, and folded, here

_CONNECT_TIMEOUT_S = 10.0
"""Name, connection and TLS, until the handshake is sent; none of them has a limit of its own."""
_HANDSHAKE_TIMEOUT_S = 5.0
_CLOSING_S_MAX = 0.5
"""A venue that does not answer a close, or its end of TLS, is cut off."""
_READ_BUFFER_BYTES = 256 << 10
_STABLE_AFTER_S = 60.0
"""A socket that has stood for so long works, though its streams may be silent by nature."""
_SHOWN_TEXT = 300
_VENUE_SAID = "; the venue said: "
_REQUESTS_REMEMBERED = 256
_LIFETIME_SPREAD = 0.9
"""Sockets that were opened together live from this part of their time to all of it."""

PLANNED = "planned reconnect before the venue's time limit"


class Connection:
    """A socket for streams of one venue's socket group, which come and go while it lives.

    What is subscribed follows what is wanted: `_topics` is the wish, `_subscribed` what the venue
    was told on the present socket, and one task sends the difference at the pace the venue allows.
    """

    def __init__(
        self,
        venue: Venue,
        group: SocketGroup,
        url: str,
        topics: dict[str, Feed],
        publish: Callable[[], None],
        connects: Refusable,
        *,
        lifetime_s: float,
        messages: Turnstile | None = None,
    ) -> None:
        self._venue = venue
        self._group = group
        self._url = url
        self._topics = dict(topics)
        self._subscribed: set[str] = set()
        self._silent: set[str] = set()
        self._coming: dict[str, Handover] = {}
        """Topics that another socket still delivers, until this one has joined."""
        self._going: dict[str, Handover] = {}
        """Topics that another socket is about to take."""
        self._closes_first = False
        self._hangups = Hangups()
        self._changed = Alarm()
        self._publish = publish
        self._connects = connects
        self._messages = messages
        self._lifetime_s = lifetime_s
        self._trouble = Trouble(
            f"{venue.name} {address_of(url)}", "its streams wait for the next try", Backoff(), _log
        )
        self._transport: WSTransport | None = None
        self._feeds = Feeds()
        for stream in topics.values():
            self._feeds.add(stream)
        self._decode = venue.build_decoder(self._feeds, self._on_control)
        self._request_id = 0
        self._requests: dict[int, Sequence[str]] = {}
        """What the last ones were about: a refusal may name one."""
        self._refusal_count = 0
        self.connect_count = 0
        self.carrier = 0
        """Names the present socket in the records of coverage."""
        self.last_frame_s = self.opened_s = self.patience_s = 0.0
        """Last frame and opening of the socket (monotonic); how long it stays, come what may."""
        self.due = ""
        """Why this socket should be replaced by another one soon; empty while it should not."""
        self._bad_frames = BadFrames(venue.name)
        self.malformed_by_reason = self._bad_frames.by_reason
        self._salvage = Salvage(venue, self._feeds, self._decode, self._bad_frames.add)

    @property
    def streams(self) -> Sequence[Feed]:
        """The streams of this socket; of those on their way here, the other socket's."""
        return [stream for topic, stream in self._topics.items() if topic not in self._coming]

    @property
    def _served(self) -> list[Feed]:
        return [
            stream
            for topic, stream in self._topics.items()
            if not (topic in self._coming or self._hangups.is_left_out(topic))
        ]

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open."""
        return self._transport is not None

    @property
    def silent_s(self) -> float:
        """For how long nothing the venue said was heard: since the last frame, and for as long as
        that one was on its way. A process that stood still hears old news first.
        """
        timed = (stream for stream in self.streams if stream.clocks_ns is not None)
        newest = max(timed, key=lambda stream: stream.last_recv_ns, default=None)
        lag_s = newest.lag_ns / 1e9 if newest is not None else 0.0
        return monotonic_s() - self.last_frame_s + lag_s

    @property
    def stream_count(self) -> int:
        """How many streams share this socket."""
        return len(self._topics)

    @property
    def subscription_count(self) -> int:
        """What the venue counts, or will: also what has ended until the venue is told so."""
        told = self._subscribed if self.is_connected else ()
        return len({*self._topics, *told})

    @property
    def group(self) -> SocketGroup:
        """The socket group it belongs to."""
        return self._group

    def add(self, topics: Mapping[str, Feed]) -> None:
        """Carry these streams as well, on the same socket."""
        self._topics.update(topics)
        for stream in topics.values():
            self._feeds.add(stream)
            self._begin(stream)
        self._changed.ring()

    def _begin(self, stream: Feed) -> None:
        if self.is_connected:
            self._carry(stream)
        else:
            stream.waits(f"connecting to {self._url}")

    def _carry(self, stream: Feed) -> None:
        stream.carrier = self.carrier
        stream.subscribed()

    def expect(self, topic: str, handover: Handover) -> None:
        """Subscribe a stream as well that another socket delivers until the handover is over."""
        self._topics[topic] = handover.stream
        self._coming[topic] = handover
        self._feeds.add(handover.stream, handover)
        self._changed.ring()

    def leave_to(self, topic: str, handover: Handover) -> None:
        """Deliver this stream for as long as the handover takes."""
        self._going[topic] = handover

    def keep(self, topic: str) -> None:
        """There will be no handover after all."""
        self._going.pop(topic, None)

    def take_over(self, topic: str, *, anew: bool) -> None:
        """Deliver what was expected from now on."""
        stream = self._coming.pop(topic).stream
        self._feeds.add(stream)
        if anew:
            self._begin(stream)
        else:
            stream.carried_on(self.carrier)

    def close_first(self) -> None:
        """End this socket and open it anew: there is no room for another one beside it."""
        self._closes_first = True

    def remove(self, stream: Feed) -> None:
        """Carry this stream no more. What of it is under way is ignored."""
        for topic in [topic for topic, known in self._topics.items() if known is stream]:
            del self._topics[topic]
            self._silent.discard(topic)
            self._coming.pop(topic, None)
            self._going.pop(topic, None)
            self._hangups.forget(topic)
        self._feeds.remove(stream)
        self._changed.ring()

    async def run(self) -> None:
        """Keep the socket alive until cancelled, or replaced."""
        self._wait(f"waiting for its turn to connect to {self._url}")
        while True:
            await self._connects.acquire()
            self._wait(f"connecting to {self._url}")
            reason = await self._live_once()
            silent_s, is_planned = self.silent_s, self.due == PLANNED
            is_replaced = self._hand_on(reason, silent_s)
            for stream in self._served:
                stream.cut(reason, silent_s)
            self._publish()
            if is_replaced:
                return
            if is_planned:
                _log.info("%s: %s", self._venue.name, reason)
            else:
                await asyncio.sleep(self._trouble.met(reason))

    def _hand_on(self, reason: str, silent_s: float) -> bool:
        """The socket has ended: let others take what they were about to. Returns whether nothing
        is left to open it anew for.
        """
        for handover in list(self._going.values()):
            handover.lost(reason, silent_s)
        for handover in self._coming.values():
            handover.start_over()
        if self.due and not self._topics:
            return True
        self.due, self._closes_first = "", False
        return False

    async def _live_once(self) -> str:
        """One life of the socket. Returns why it ended."""
        try:
            transport = await self._connect()
        except (WSError, OSError, TimeoutError) as error:
            return f"cannot connect: {why_refused(error, self._url, self._connects)}"
        self._transport = transport
        self.last_frame_s = self.opened_s = monotonic_s()
        self.connect_count += 1
        self.carrier = Carriers.name_new()
        for stream in self._served:
            self._carry(stream)
        try:
            return await self._serve(transport)
        finally:
            self._transport = None
            transport.disconnect(graceful=False)

    async def _connect(self) -> WSTransport:
        """Open a socket. Who gives up, or is not waited for any more, leaves none behind: one that
        opened later would be nobody's, and the venue would count it.
        """
        is_over = False

        def listener() -> FrameListener:
            if is_over:
                raise WSError("nobody waits for this socket any more")
            return FrameListener(self, self._decode, self._publish)

        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                transport, _ = await ws_connect(
                    listener,
                    self._url,
                    websocket_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
                    logger_name=_library_log,
                    disconnect_on_exception=True,
                    enable_auto_ping=self._group.json_ping is None,
                    auto_ping_idle_timeout=self._group.ping_interval_s,
                    auto_ping_reply_timeout=min(5.0, self._group.ping_interval_s),
                    enable_auto_pong=False,
                    max_frame_size=MAX_FRAME_BYTES,
                    max_redirects=0,
                    read_buffer_init_size=_READ_BUFFER_BYTES,
                )
        except BaseException:
            is_over = True
            raise
        return transport

    async def _serve(self, transport: WSTransport) -> str:
        """Subscribe and stay until the socket ends, falls silent or has lived its time."""
        closed = asyncio.create_task(transport.wait_disconnected())
        work = [asyncio.create_task(self._subscribe(transport))]
        if self._group.json_ping is not None:
            work.append(asyncio.create_task(self._ping(transport, self._group.json_ping)))
        began_s = monotonic_s()
        ends_at_s = began_s + self._lifetime_s * random.uniform(_LIFETIME_SPREAD, 1.0)  # noqa: S311 - spread, no secret
        try:
            while not closed.done() and transport.close_handshake is None:
                await asyncio.wait(
                    [closed, *work], timeout=1.0, return_when=asyncio.FIRST_COMPLETED
                )
                if fault := next((task.exception() for task in work if task.done()), None):
                    _log.error("%s %s", self._venue.name, self._url, exc_info=fault)
                    return f"this socket's work failed: {fault!r}"
                now_s = monotonic_s()
                if now_s - self.last_frame_s > self._group.idle_timeout_s:
                    return f"silent for {self._group.idle_timeout_s:.0f} s"
                if now_s >= ends_at_s and not self.due:
                    self.due = PLANNED
                if self._closes_first:
                    return self.due
                self._try_again(now_s)
                if not closed.done():
                    self._note_work(lived_s=now_s - began_s)
            await asyncio.wait([closed], timeout=_CLOSING_S_MAX)
            return self._why_closed(transport, closed, monotonic_s() - began_s)
        finally:
            for task in (closed, *work):
                task.cancel()
            await asyncio.gather(closed, *work, return_exceptions=True)

    def _note_work(self, lived_s: float) -> None:
        """Delays start over once the socket has done what it is for. That it was opened, or that a
        subscription was acknowledged, is nothing yet.
        """
        if lived_s >= _STABLE_AFTER_S or any(stream.has_data for stream in self._served):
            self._trouble.over()

    def _why_closed(
        self, transport: WSTransport, closed: "asyncio.Task[None]", lived_s: float
    ) -> str:
        error = closed.exception() if closed.done() else None
        if isinstance(error, WSProtocolError):
            return f"the venue broke the WebSocket protocol (RFC 6455): {error}"
        self._note_work(lived_s)
        self._look_for_cause()
        if error is not None:
            return f"disconnected: {error}"
        handshake = transport.close_handshake
        if handshake is None or handshake.recv is None:
            return "disconnected"
        words = f"closed by the venue: {handshake.recv.code} {handshake.recv.reason}"
        if speaks_of_ban(body := words.encode("utf-8", "replace")):
            self._connects.refused(BANNED, told_wait_s({}, body))
        return words

    def _look_for_cause(self) -> None:
        """The venue hung up: where it does so for a name, leave that out and save the others."""
        if not self._group.hangs_up_on_unknown:
            return
        topic = self._hangups.hung_up(monotonic_s())
        if topic in self._topics and topic not in self._coming:
            stream = self._topics[topic]
            stream.cut("disconnected", self.silent_s)
            stream.failed(f"{self._venue.name} hangs up when this is subscribed; tried again later")
            _log.error("%s: %s", stream.key, stream.reason)

    def _try_again(self, now_s: float) -> None:
        for topic in self._hangups.due_again(now_s):
            if topic not in self._coming:
                self._carry(self._topics[topic])
            self._changed.ring()

    async def _subscribe(self, transport: WSTransport) -> None:
        """Tell the venue what has changed, for as long as the socket lives."""
        self._subscribed.clear()
        self._silent.clear()
        self._hangups.opened()
        while True:
            ended = [topic for topic in self._subscribed if self._must_end(topic)]
            begun = [
                topic
                for topic in self._topics
                if topic not in self._subscribed and not self._hangups.is_left_out(topic)
            ]
            begun.sort(key=self._hangups.must_go_alone)
            if ended:
                await self._send(transport, self._venue.unsubscribe, ended)
            elif begun and self._hangups.must_go_alone(begun[0]):
                await self._send_alone(transport, begun[0])
            elif begun or self._silent:
                await self._send(transport, self._venue.subscribe, begun or list(self._silent))
            else:
                await self._changed.wait()

    def _must_end(self, topic: str) -> bool:
        """Whether the venue is to be told that a topic is subscribed no more, for now or for good:
        what is replaced with its socket just ends.
        """
        if topic in self._topics:
            return topic in self._silent and self._group.refuses_repeats
        return not self.due

    async def _send_alone(self, transport: WSTransport, topic: str) -> None:
        await asyncio.sleep(self._hangups.pause_s(monotonic_s()))
        if topic in self._topics:
            await self._send(transport, self._venue.subscribe, [topic])
            await asyncio.sleep(self._hangups.pause_s(monotonic_s()))
            self._hangups.cleared(topic)

    async def _send(
        self,
        transport: WSTransport,
        render: Callable[[Sequence[str], int], Sequence[bytes]],
        topics: Sequence[str],
    ) -> None:
        """Send the first few of `topics`; return when the next message may follow. Who has come
        back, or is gone, when its turn comes is left as it is.
        """
        if self._messages is not None:
            await self._messages.acquire()
        ends = render is self._venue.unsubscribe
        batch = [
            topic for topic in topics if (self._must_end(topic) if ends else topic in self._topics)
        ]
        del batch[self._group.topics_per_message :]
        if not batch:
            return
        self._silent.difference_update(batch)
        if ends:
            self._subscribed.difference_update(batch)
        else:
            self._subscribed.update(batch)
            self._hangups.sent(batch, monotonic_s())
            for topic in self._coming.keys() & set(batch):
                self._coming[topic].subscribed(monotonic_s())
        self._request_id += 1
        self._requests[self._request_id] = batch
        self._requests.pop(self._request_id - _REQUESTS_REMEMBERED, None)
        for frame in render(batch, self._request_id):
            transport.send(WSMsgType.TEXT, frame)
            await asyncio.sleep(self._group.message_interval_s)

    def resubscribe(self, stream: Feed) -> None:
        """Ask once more for a stream that stays silent. Where a repeated subscribe is refused, it
        is ended before: rows that fall between are found missing by their ids, and streams without
        ids have declared the silence.
        """
        self._silent.update(topic for topic, known in self._topics.items() if known is stream)
        self._changed.ring()

    async def _ping(self, transport: WSTransport, ping: bytes) -> None:
        """The venue's own kind of ping."""
        while True:
            await asyncio.sleep(self._group.ping_interval_s)
            transport.send(WSMsgType.TEXT, ping)

    def bad_frames(self, error: Exception, payload: bytes) -> None:
        """Use what can be used of a frame that was refused; count the rest, and say so once in a
        while.
        """
        self._salvage.take(payload, wall_ns(), error)

    def _on_control(self, control: Control, text: str, request_id: int | None = None, /) -> None:
        if control is Control.REFUSED:
            self._refused(text, request_id)
        elif control is Control.CLOSING and self.due != text:
            _log.info("%s: %s", self._venue.name, text)
            self.due = text

    def _refused(self, text: str, request_id: int | None) -> None:
        """The venue said no. Whoever it is about shows that while it waits for data; where that
        is not said, whoever waits.
        """
        shown = text[:_SHOWN_TEXT]
        self._refusal_count += 1
        if self._refusal_count & (self._refusal_count - 1) == 0:  # a flood must not fill the log
            venue, count = self._venue.name, self._refusal_count
            _log.warning("%s refused (%d so far on this socket): %s", venue, count, shown)
        if speaks_of_ban(body := text.encode("utf-8", "replace")):
            self._connects.refused(BANNED, told_wait_s({}, body))
        about = self._venue.topics_in(text, self._topics)
        if about is None and request_id is not None:
            about = set(self._requests.get(request_id, ()))
        for stream in self._served if about is None else map(self._topics.get, about):
            if stream is not None:
                self._show_refusal(stream, shown)

    def _show_refusal(self, stream: Feed, text: str) -> None:
        is_new = stream.state is StreamState.SYNCING and not stream.has_data
        if is_new or stream.state is StreamState.STALE:
            waits = stream.reason.partition(_VENUE_SAID)[0]
            stream.explain(f"{waits}{_VENUE_SAID}{text}")

    def _wait(self, why: str) -> None:
        for stream in self._served:
            stream.waits(why)
