"""What a feed is made from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.data.kind import Kind
from engine.data.positions import Position, read_position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.pushed.rules import BookRule


class Rings(Protocol):
    """The rings of a shard, by kind."""

    def __getitem__(self, kind: str, /) -> RingProducer:
        """The ring of a kind, for somebody who will write to it."""


@dataclass(frozen=True, slots=True)
class FeedContext:
    """The stream that is wanted, and where its feed may write, look and ask."""

    spec: StreamSpec
    rings: Rings
    gaps: GapLedger
    positions_dir: Path
    want_snapshot: Callable[[Any], None]
    """Called by the feed of a book that needs a snapshot, with itself."""
    renew: Callable[[Any], None] = lambda _: None
    """Called by a feed whose topic must be subscribed anew, with itself."""
    book: BookRule | None = None
    """How the messages of a pushed book chain."""

    def last(self, kind: Kind) -> Position | None:
        """The stream's last row of a kind, of an earlier process; None when it never had one."""
        return read_position(self.positions_dir, kind.name, self.spec.slot)

    def parts(self, kind: Kind) -> tuple[StreamSpec, RingProducer, GapLedger, Position | None]:
        """What every feed takes first, when its rows are of `kind`."""
        return self.spec, self.rings[kind.name], self.gaps, self.last(kind)
