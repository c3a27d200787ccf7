"""Rings in plain memory and streams on them, for tests of the shard rooms."""

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from engine.data.kind import Kind, RecordArray
from engine.data.kinds import GAP, KINDS
from engine.data.names import StreamKey, StreamKind, Transport
from engine.data.ring import RingProducer, RingReader, format_ring, ring_bytes
from engine.limits.leases import LeaseClient
from engine.messages.limits import LeaseGranted, LeaseRequest, PlacesGranted, PlacesWanted
from engine.messages.pipes import FromChild
from engine.messages.streams import StreamSpec
from shards.feeds.declared.coverage import CoverageLedger
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.feed import Feed
from shards.session.make_feed import FeedMaker
from shards.session.rings import ShardRings
from shards.venues.kit import SOCKETS, SUBSCRIPTIONS, Places, Venue


class MemoryRings:
    """Producer and reader ends of a shard's rings."""

    def __init__(self, capacity: int = 1 << 14, gap_capacity: int = 64) -> None:
        self._readers: dict[str, RingReader] = {}
        producers = {
            kind: self._ring(spec, gap_capacity if spec is GAP else capacity)
            for kind, spec in KINDS.items()
        }
        self.rings = ShardRings(producers)
        self.gaps = GapLedger(self.rings[GAP.name])

    def _ring(self, spec: Kind, capacity: int) -> RingProducer:
        memory = memoryview(bytearray(ring_bytes(spec, capacity)))
        format_ring(memory, spec, capacity, 1)
        self._readers[spec.name] = RingReader(memory, spec)
        return RingProducer(memory, spec)

    def feed(
        self,
        spec: StreamSpec,
        venue: Venue,
        positions_dir: Path = Path("/nowhere"),
        want_snapshot: Callable[[Feed], None] = lambda _: None,
    ) -> Feed:
        """The feed of a stream, on these rings."""
        maker = FeedMaker(venue, self.rings, positions_dir, want_snapshot)
        maker.gaps, maker.coverage = self.gaps, CoverageLedger()
        return maker.make(spec)

    def rows(self, kind: str, from_seq: int = 0) -> RecordArray:
        """Everything published so far (the rings must not have wrapped since `from_seq`)."""
        self.rings.publish()
        return self._readers[kind].poll(from_seq).copy()

    def release(self, kind: str) -> None:
        """Free all space."""
        self.rings.publish()
        reader = self._readers[kind]
        reader.release(reader.head)


def spec_of(
    slot: int = 3,
    venue: str = "binance_linear",
    symbol: str = "BTCUSDT",
    kind: StreamKind = StreamKind.TRADES,
    transport: Transport = Transport.WS,
) -> StreamSpec:
    """A stream for a test."""
    return StreamSpec(slot, StreamKey(venue, symbol, kind, transport))


def with_places(
    venue: Venue, *, subscriptions: int | None = None, sockets: int | None = None
) -> Venue:
    """A venue that allows an address only so many."""
    wanted = {SUBSCRIPTIONS: subscriptions, SOCKETS: sockets}
    others = [each for each in venue.limits if each.pool not in wanted]
    places = [Places(pool, count) for pool, count in wanted.items() if count is not None]
    return dataclasses.replace(venue, limits=(*others, *places))


class Open:
    """A turnstile that lets everybody through."""

    wait = ""

    async def acquire(self, units: float = 1.0) -> None:
        """At once."""

    def refused(self, status: int, wait_s: float | None) -> float:
        """Never mind."""
        return 0.0


def free_leases() -> LeaseClient:
    """A client whose every request is granted at once."""

    def grant(message: FromChild) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(message, LeaseRequest):
            loop.call_soon(client.take, LeaseGranted(message.request_id))
        elif isinstance(message, PlacesWanted):
            places = PlacesGranted(
                message.request_id, message.venue, message.pool, message.count, message.holder
            )
            loop.call_soon(client.take, places)

    client = LeaseClient(grant)
    return client


class Said:
    """A `Talk` that notes what it is told: what was said, and its arguments."""

    def __init__(self) -> None:
        self.words: list[list[Any]] = []

    def ready(self) -> None:
        self.words.append(["ready"])

    def acknowledged(self, request_id: int | None, topics: Collection[str] | None = None) -> None:
        self.words.append(["acknowledged", request_id, *(topics or ())])

    def refused(
        self, text: str, request_id: int | None = None, topics: Collection[str] = ()
    ) -> None:
        self.words.append(["refused", text, request_id, *topics])

    def answer(self, frame: bytes) -> None:
        self.words.append(["answer", frame.decode()])

    def lost(self, text: str) -> None:
        self.words.append(["lost", text])

    def closing(self, text: str) -> None:
        self.words.append(["closing", text])
