"""What was sent although nobody wanted it: a topic may bring several kinds, or all symbols.

Such rows are in the ledger, for somebody was sent them, and no stream owes them to the database.
"""

from control.proof.ledger_sources import LedgerSource
from control.proof.verdict import Connection
from engine.data.names import StreamKey, StreamKind, Transport, carriers_of
from engine.messages.settings import VenueSettings
from shards.venues import VENUES
from shards.venues.kit import Channel

__all__ = ["WantedTopics"]

_WANTED = """
    SELECT i.venue, i.symbol, s.kind, s.transport
    FROM stream s JOIN instrument i USING (instrument_id)
    UNION SELECT venue, symbol, kind, transport FROM stream_registry
"""


class WantedTopics:
    """The streams that were wanted, and the topics that were subscribed for them."""

    def __init__(self, connection: Connection) -> None:
        rows = connection.execute(_WANTED)
        self._streams = {
            StreamKey(venue, symbol, StreamKind(kind), Transport(transport))
            for venue, symbol, kind, transport in rows
        }
        self._topics = {(key.venue, _topic_of(key)) for key in self._streams}

    def has_not(self, kind: str, source: LedgerSource) -> bool:
        """Whether rows of a kind came on the topic of what was wanted, and were not themselves."""
        if source.transport is not Transport.WS:
            return False
        venue, symbol, _ = source
        keys = [StreamKey(venue, symbol, each) for each in carriers_of(kind)]
        if any(key in self._streams for key in keys):
            return False
        topics = {_topic_of(key) for key in keys} - {None}
        return any((venue, topic) in self._topics for topic in topics)


def _topic_of(key: StreamKey) -> str | None:
    venue = VENUES.get(key.venue)
    channel = venue.channels.get((key.kind, key.transport)) if venue else None
    if not isinstance(channel, Channel):
        return None
    return channel.topic(key.symbol, VenueSettings())
