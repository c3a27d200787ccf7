"""Which shard carries which stream.

The streams of one symbol at one venue stay together: they share a connection's fate and a book is
read beside its trades. Groups are dealt out to the emptiest shard, in an order that depends on
nothing but their names, so the same configuration gives the same placement after a restart.
"""

from collections import defaultdict
from collections.abc import Iterable

from engine.messages.streams import StreamSpec


def spread(streams: Iterable[StreamSpec], shard_count: int) -> list[list[StreamSpec]]:
    """Return the streams of each shard."""
    groups: defaultdict[tuple[str, str], list[StreamSpec]] = defaultdict(list)
    for stream in streams:
        groups[stream.key.venue, stream.key.symbol].append(stream)
    shards: list[list[StreamSpec]] = [[] for _ in range(shard_count)]
    for name in sorted(groups):
        emptiest = min(range(shard_count), key=lambda shard: (len(shards[shard]), shard))
        shards[emptiest].extend(sorted(groups[name], key=lambda stream: stream.slot))
    return shards
