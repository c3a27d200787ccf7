"""Makes the feeds of a venue: a stream's channel names the class that sequences it."""

from collections.abc import Callable
from pathlib import Path

from engine.data.kinds import COVERAGE, GAP
from engine.messages.streams import StreamSpec
from shards.feeds.books import DeltaBook
from shards.feeds.context import FeedContext, Rings
from shards.feeds.declared.coverage import CoverageLedger
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.feed import Feed
from shards.venues.kit import Channel, Venue, capabilities


class FeedMaker:
    """What the feeds of one venue have in common."""

    def __init__(
        self,
        venue: Venue,
        rings: Rings,
        positions_dir: Path,
        want_snapshot: Callable[[DeltaBook], None],
        renew: Callable[[Feed], None] = lambda _: None,
    ) -> None:
        self.gaps = GapLedger(rings[GAP.name])
        self.coverage = CoverageLedger(rings[COVERAGE.name])
        self._venue = venue
        self._rings = rings
        self._positions_dir = positions_dir
        self._want_snapshot = want_snapshot
        self._renew = renew

    def make(self, spec: StreamSpec) -> Feed:
        """The feed of a stream, or one that has failed because the venue does not offer it."""
        channel = self._venue.channels.get((spec.key.kind, spec.key.transport))
        if channel is None:
            feed = Feed(spec, self._rings[GAP.name], self.gaps, None)
            feed.failed(not_offered(self._venue, spec))
            return feed
        context = FeedContext(
            spec, self._rings, self.gaps, self._positions_dir, self._want_snapshot, self._renew,
            channel.book if isinstance(channel, Channel) else None,
        )  # fmt: skip
        feed = channel.feed.make(context)
        feed.resume(self.coverage, context.last(COVERAGE))
        return feed


def not_offered(venue: Venue, spec: StreamSpec) -> str:
    """Why a stream cannot be, and what can be instead."""
    offered = ", ".join(f"{kind} {transport}" for kind, transport in capabilities(venue))
    return f"{venue.name} has no {spec.key.kind} {spec.key.transport}; it offers {offered}"
