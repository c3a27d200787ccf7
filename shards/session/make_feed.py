"""Makes the feed of a stream: its channel names the class that sequences it."""

from engine.data.kinds import COVERAGE, GAP
from engine.messages.streams import StreamSpec
from shards.feeds.context import FeedContext
from shards.feeds.feed import Feed
from shards.venues.kit import Venue, capabilities


def make_feed(context: FeedContext, venue: Venue) -> Feed:
    """The feed of a stream, or one that has failed because its venue does not offer the stream."""
    key = context.spec.key
    channel = venue.channels.get((key.kind, key.transport))
    if channel is None:
        feed = Feed(context.spec, context.rings[GAP.name], context.gaps, None)
        feed.failed(not_offered(venue, context.spec))
        return feed
    feed = channel.feed.make(context)
    feed.resume(context.coverage, context.last(COVERAGE))
    return feed


def not_offered(venue: Venue, spec: StreamSpec) -> str:
    """Why a stream cannot be, and what can be instead."""
    offered = ", ".join(f"{kind} {transport}" for kind, transport in capabilities(venue))
    return f"{venue.name} has no {spec.key.kind} {spec.key.transport}; it offers {offered}"
