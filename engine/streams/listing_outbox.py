"""Instrument listings on their way to the database: kept until the writer has stored them.

The supervisor remembers what it handed to the writer and hands it over again when the writer
starts anew. A listing has a name (the time it came), so storing it twice adds nothing.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

import msgspec

from engine.messages.listings import ListingLoaded, ListingStored, StoreListing

_log = logging.getLogger(__name__)

_PENDING_MAX = 1000
"""Listings of a venue that wait; an hourly refresh fills this in six weeks without a database."""


class ListingOutbox:
    """What has been loaded and is not stored yet, by venue, oldest first."""

    def __init__(self) -> None:
        self._pending: defaultdict[str, deque[StoreListing]] = defaultdict(
            lambda: deque(maxlen=_PENDING_MAX)
        )

    def __iter__(self) -> Iterator[StoreListing]:
        for pending in self._pending.values():
            yield from pending

    def inherit(self, pending: Iterable[StoreListing]) -> None:
        """The writer was told these, each venue's oldest first, and has not stored them yet."""
        for each in pending:
            self._pending[each.venue].append(each)

    def take(self, loaded: ListingLoaded, now_ns: int) -> StoreListing:
        """Remember a listing; return what the writer is to be told."""
        pending = self._pending[loaded.venue]
        if len(pending) == _PENDING_MAX:
            for event in pending[0].events:  # the log is all that remembers them
                _log.warning(
                    f"{event.venue}: {event.symbol} {event.event} {event.detail}".rstrip()
                    + ": not kept: the database has been away for too long"
                )
        if pending:
            # What is listed now is in the newest; the older ones still have events to tell.
            pending[-1] = msgspec.structs.replace(pending[-1], instruments=[])
            now_ns = max(now_ns, pending[-1].loaded_ns + 1)
        message = StoreListing(loaded.venue, loaded.instruments, loaded.events, now_ns)
        pending.append(message)
        return message

    def saved(self, message: ListingStored) -> None:
        """The database has it, and everything before it."""
        pending = self._pending[message.venue]
        while pending and pending[0].loaded_ns <= message.loaded_ns:
            pending.popleft()
