"""What the venue says on a socket besides rows, and what follows from it for the streams."""

import asyncio
import logging
from collections.abc import Collection

from engine.limits.leases import Refusable
from engine.messages.streams import StreamState
from shards.feeds.feed import Feed
from shards.transport.refusals import BANNED, speaks_of_ban, told_wait_s
from shards.transport.socket import Socket
from shards.transport.subscriptions import Subscriptions
from shards.venues.kit import Venue

_log = logging.getLogger(__name__)

_SHOWN_TEXT = 300
_VENUE_SAID = "; the venue said: "


class Conversation:
    """The `Talk` of a connection's decoders, one after the other."""

    def __init__(self, venue: Venue, subscriptions: Subscriptions, connects: Refusable) -> None:
        self._venue = venue
        self._subscriptions = subscriptions
        self._connects = connects
        self._socket: Socket | None = None
        self.greeted = asyncio.Event()
        """Set once the venue wants to hear what is subscribed."""
        self.refusal_count = 0
        self.due = ""
        """Why this socket should be replaced by another one soon; empty while it should not."""

    def begin(self, socket: Socket) -> None:
        """A new socket: nothing has been said on it."""
        self._socket = socket
        self.greeted.clear()

    def ready(self) -> None:
        """The greeting was answered."""
        self.greeted.set()

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

    def acknowledged(self, request_id: int | None, topics: Collection[str] = ()) -> None:
        """That a request was taken proves nothing: each stream must deliver."""

    def refused(
        self, text: str, request_id: int | None = None, topics: Collection[str] = ()
    ) -> None:
        """The venue said no. Whoever it is about shows that while it waits for data; where that
        is not said, whoever waits.
        """
        shown = text[:_SHOWN_TEXT]
        self.refusal_count += 1
        if self.refusal_count & (self.refusal_count - 1) == 0:  # a flood must not fill the log
            venue, count = self._venue.name, self.refusal_count
            _log.warning("%s refused (%d so far on this socket): %s", venue, count, shown)
        self.heed(text)
        about: Collection[str] | None = self._venue.topics_in(text, self._subscriptions.topics)
        if about is None and request_id is not None:
            about = self._subscriptions.asked_by(request_id)
        if about is None:
            streams = self._subscriptions.served
        else:
            streams = [s for topic in about for s in self._subscriptions.streams_of(topic)]
        for stream in streams:
            _show(stream, shown)

    def heed(self, text: str) -> None:
        """Where the venue speaks of a ban, nobody connects for as long as it says."""
        if speaks_of_ban(body := text.encode("utf-8", "replace")):
            self._connects.refused(BANNED, told_wait_s({}, body))


def _show(stream: Feed, text: str) -> None:
    is_new = stream.state is StreamState.SYNCING and not stream.has_data
    if is_new or stream.state is StreamState.STALE:
        waits = stream.reason.partition(_VENUE_SAID)[0]
        stream.explain(f"{waits}{_VENUE_SAID}{text}")
