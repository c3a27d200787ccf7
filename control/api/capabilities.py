"""What can be asked for, in the words of the venues' own registry."""

from control.api.schemas import Capability
from engine.data.names import StreamKind, Transport
from shards.feeds.feed import Proof
from shards.venues.kit import Channel, PollChannel, Venue, capabilities


def offered_by(venue: Venue) -> list[Capability]:
    """Everything that a venue offers, WebSocket first."""
    return [_capability(venue, kind, how) for kind, how in capabilities(venue)]


def _capability(venue: Venue, kind: StreamKind, how: Transport) -> Capability:
    channel = venue.channels[kind, how]
    polled = channel if isinstance(channel, PollChannel) else None
    return Capability(
        venue.name, how.value, kind.value, channel.note or None,
        proof=proof_of(channel).value,
        interval_s=polled.interval_s if polled else None,
        time="venue" if channel.has_venue_time else "receipt",
    )  # fmt: skip


def proof_of(channel: Channel | PollChannel) -> Proof:
    """What tells whether rows are missing. What is asked for now and then is a sample, unless it
    asks for all that has happened since.
    """
    is_sampled = isinstance(channel, PollChannel) and channel.feed.proof is not Proof.HISTORY
    return Proof.SAMPLES if is_sampled else channel.feed.proof
