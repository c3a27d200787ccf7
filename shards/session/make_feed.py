"""Makes the feed of a stream: which class sequences it, and which rings it writes to."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from engine.data.kinds import RecordKind
from engine.data.positions import read_position
from engine.messages.streams import StreamSpec
from shards.feeds.books import DeltaBook
from shards.feeds.contracts import FundingOpenInterest
from shards.feeds.declared.coverage import CoverageLedger
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.feed import Feed
from shards.feeds.pushed_books import PushedBook
from shards.session.rings import ShardRings
from shards.venues.kit import Channel, FeedRule, Venue, capabilities

RECORD_KIND: Final = {
    FeedRule.CONTIGUOUS_TRADES: RecordKind.TRADE,
    FeedRule.HISTORY_TRADES: RecordKind.TRADE,
    FeedRule.UNORDERED_TRADES: RecordKind.TRADE,
    FeedRule.DELTA_BOOK: RecordKind.BOOK,
    FeedRule.PUSHED_BOOK: RecordKind.BOOK,
    FeedRule.SNAPSHOT_BOOK: RecordKind.BOOK,
    FeedRule.QUOTES: RecordKind.QUOTE,
    FeedRule.FUNDING: RecordKind.FUNDING,
    FeedRule.OPEN_INTEREST: RecordKind.OPEN_INTEREST,
    FeedRule.FUNDING_OPEN_INTEREST: RecordKind.FUNDING,
    FeedRule.LIQUIDATIONS: RecordKind.LIQUIDATION,
}
"""The kind of each rule's rows; of FUNDING_OPEN_INTEREST the one its position is kept for."""


def make_stream(
    spec: StreamSpec,
    venue: Venue,
    rings: ShardRings,
    gaps: GapLedger,
    positions_dir: Path,
    want_snapshot: Callable[[DeltaBook], None],
    coverage: CoverageLedger | None = None,
    renew: Callable[[Feed], None] = lambda _: None,
) -> Feed:
    """The feed of a stream, or a stream that has failed because its venue does not offer it. Books
    ask for a REST snapshot with `want_snapshot`, for their topic anew with `renew`.
    """
    channel = venue.channels.get((spec.key.kind, spec.key.transport))
    if channel is None:
        stream = Feed(spec, rings.gap, gaps, None)
        stream.failed(not_offered(venue, spec))
        return stream
    stream = _make_feed(spec, venue, rings, gaps, positions_dir, want_snapshot, renew)
    heard = read_position(positions_dir, RecordKind.COVERAGE, spec.slot)
    stream.resume(coverage or CoverageLedger(), heard)
    return stream


def _make_feed(
    spec: StreamSpec,
    venue: Venue,
    rings: ShardRings,
    gaps: GapLedger,
    positions_dir: Path,
    want_snapshot: Callable[[DeltaBook], None],
    renew: Callable[[Feed], None],
) -> Feed:
    channel = venue.channels[spec.key.kind, spec.key.transport]
    rule = channel.rule
    kind = RECORD_KIND[rule]
    last = read_position(positions_dir, kind, spec.slot)
    if rule is FeedRule.DELTA_BOOK:
        return DeltaBook(spec, rings[kind], gaps, last, want_snapshot)
    if rule is FeedRule.PUSHED_BOOK:
        book = channel.book if isinstance(channel, Channel) else None
        assert book is not None, "its channel says how its messages chain"
        return PushedBook(spec, rings[kind], gaps, last, book, renew)
    if rule is FeedRule.FUNDING_OPEN_INTEREST:
        return FundingOpenInterest(spec, rings[kind], gaps, last, rings[RecordKind.OPEN_INTEREST])
    feed: Feed = rule.value(spec, rings[kind], gaps, last)
    return feed


def not_offered(venue: Venue, spec: StreamSpec) -> str:
    """Why a stream cannot be, and what can be instead."""
    offered = ", ".join(f"{kind} {transport}" for kind, transport in capabilities(venue))
    return f"{venue.name} has no {spec.key.kind} {spec.key.transport}; it offers {offered}"
