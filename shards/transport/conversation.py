"""What the venue says on a socket besides rows, and what follows from it for the streams."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from engine.base.clock import monotonic_s, wall_ns
from engine.limits.leases import Refusable
from engine.messages.streams import StreamState
from shards.feeds.feed import Feed
from shards.transport.refusals import (
    BANNED,
    TOO_OFTEN,
    refusal_in,
    told_wait_s,
)
from shards.transport.socket import Socket
from shards.transport.subscriptions import Subscriptions
from shards.venues.kit import Venue

_log = logging.getLogger(__name__)

_GREETING_TIMEOUT_S = 10.0
_TOO_OFTEN_S = 10.0
"""So long nothing is asked for where the venue does not say for how long."""
_SHOWN_TEXT = 300
_VENUE_SAID = "; the venue said: "


class Conversation:
    """The `Talk` of a connection's decoders, one after the other."""

    def __init__(
        self,
        venue: Venue,
        subscriptions: Subscriptions,
        connects: Refusable,
        on_changed: Callable[[], None],
        messages: Refusable | None = None,
    ) -> None:
        self._venue = venue
        self._subscriptions = subscriptions
        self._connects = connects
        self._messages = messages
        self._rests_until_s = 0.0
        self._socket: Socket | None = None
        self._greeted = asyncio.Event()
        self._on_changed = on_changed
        self.refusal_count = 0
        self._loss_count = 0
        self.due = ""
        """Why this socket should be replaced by another one soon; empty while it should not."""

    def begin(self, socket: Socket) -> None:
        """A new socket: nothing has been said on it."""
        self._socket = socket
        self._greeted.clear()

    async def greet(self, frames: Sequence[bytes]) -> None:
        """Send what comes before anything else; return once it was answered."""
        for frame in frames:
            self.answer(frame)
        async with asyncio.timeout(_GREETING_TIMEOUT_S):
            await self._greeted.wait()

    async def rest(self) -> None:
        """Return once the venue may be asked for something."""
        while (rest_s := self._rests_until_s - monotonic_s()) > 0:
            await asyncio.sleep(rest_s)

    def ready(self) -> None:
        """The greeting was answered."""
        self._greeted.set()

    def answer(self, frame: bytes) -> None:
        """Send this now."""
        assert self._socket is not None
        self._socket.send(frame)

    def closing(self, text: str) -> None:
        """The socket is to be replaced before the venue ends it."""
        if self.due != text:
            _log.info("%s: %s", self._venue.name, text)
            self.due = text

    def lost(self, text: str) -> None:
        """Something was skipped, which may have been of any stream."""
        self._loss_count += 1
        self._say("has lost something", self._loss_count, text)
        now_ns = wall_ns()
        for stream in self._subscriptions.served:
            stream.skipped(now_ns)

    def acknowledged(self, request_id: int | None, topics: Collection[str] | None = None) -> None:
        """That a request was taken proves nothing: each stream must deliver. What it names not was
        refused.
        """
        if topics is None:
            return
        if missing := self._subscriptions.missing(request_id, topics):
            self.refused("it is missing from what was acknowledged", topics=missing)

    def refused(
        self, text: str, request_id: int | None = None, topics: Collection[str] = ()
    ) -> None:
        """The venue said no. Whoever it is about shows that while it waits for data; where that
        is not said, whoever waits. What certainly was refused fails, and is tried again later.
        """
        shown = text[:_SHOWN_TEXT]
        self.refusal_count += 1
        self._say("refused", self.refusal_count, shown)
        if self.heed(text) == TOO_OFTEN:
            self._put_off(text, request_id)
            return
        known = self._subscriptions
        named = topics or self._venue.topics_in(text, known.topics)
        refusal = known.refused(named, request_id, monotonic_s(), is_sure=bool(topics))
        for topic in refusal.shown:
            for stream in known.streams_of(topic):
                _show(stream, shown)
        for stream in [s for topic in refusal.left_out for s in known.streams_of(topic)]:
            stream.failed(f"{self._venue.name} refused it, tried again later: {shown}")
            _log.error("%s: %s", stream.key, stream.reason)
        self._on_changed()

    def _put_off(self, text: str, request_id: int | None) -> None:
        """What was asked for too soon is asked for again later. Until then nobody listens to it."""
        wait_s = told_wait_s({}, text.encode("utf-8", "replace")) or _TOO_OFTEN_S
        self._rests_until_s = max(self._rests_until_s, monotonic_s() + wait_s)
        if self._messages is not None:  # a limit of the address
            self._messages.refused(TOO_OFTEN, wait_s)
        why = f"{self._venue.name} is asked again in {wait_s:.0f} s: {text[:_SHOWN_TEXT]}"
        for topic in self._subscriptions.put_off(request_id):
            for stream in self._subscriptions.streams_of(topic):
                if not stream.has_data:
                    stream.cut(why)
        self._on_changed()

    def _say(self, what: str, count: int, text: str) -> None:
        """Log the 1st, 2nd, 4th, 8th, …: a flood must not fill the log."""
        if count & (count - 1) == 0:
            venue = self._venue.name
            _log.warning("%s %s (%d so far on this socket): %s", venue, what, count, text)

    def heed(self, text: str) -> int:
        """Where the venue speaks of a ban, nobody connects for as long as it says. Returns the HTTP
        status that means the same as its words; 0 where there is none.
        """
        body = text.encode("utf-8", "replace")
        if (status := refusal_in(body, self._venue.too_often)) == BANNED:
            self._connects.refused(BANNED, told_wait_s({}, body))
        return status


def _show(stream: Feed, text: str) -> None:
    is_new = stream.state is StreamState.SYNCING and not stream.has_data
    if is_new or stream.state is StreamState.STALE:
        waits = stream.reason.partition(_VENUE_SAID)[0]
        stream.explain(f"{waits}{_VENUE_SAID}{text}")
