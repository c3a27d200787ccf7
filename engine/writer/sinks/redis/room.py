"""Keeps the streams in Redis within their memory: how many entries each may hold.

Rows bound a stream (`redis.stream_maxlen`), and so does its share of the memory. Nobody is cut
while all of it fits; beyond that the fattest are, to one level for all, which is found by measuring
what each of them really takes. A new stream lowers the level, and is never refused.

Invariants
- An entry is written with the number of entries its stream may hold, from the sizes of the newest.
- What has grown beyond its share all the same, or whose share has shrunk, is trimmed at the next
  stock-taking.
- A server that was full all the same gets its streams cut by a quarter, whatever it said of itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.start.redis_memory import ENTRY_BYTES, KEY_BYTES, STREAMS_SHARE, water_level

_SMOOTHING: Final = 0.05
_GROWTH: Final = 1.25
"""A stream that is not cut may grow by so much until the next stock-taking."""
_CUT: Final = 0.75
_REGROWTH: Final = 1.02
"""After a cut, at each stock-taking."""


class Held(NamedTuple):
    """What a stream holds, as the server says."""

    byte_count: int
    entry_count: int


class ServerMemory(NamedTuple):
    """In bytes, of all clients together. `most` is 0 where nothing bounds it; `policy` is what
    happens then.
    """

    used: int
    most: int
    policy: str = ""


class Trim(NamedTuple):
    """Cut this stream to so many entries."""

    key: str
    entry_count: int


@dataclass(slots=True)
class _Entries:
    """Of one stream: means of the newest entries, and of those that are held."""

    row_count: float
    byte_count: float
    held_bytes: float = 0.0


class Room:
    """The memory of one writer's streams."""

    def __init__(self, memory_bytes: int, maxlen_rows: int) -> None:
        self._most_bytes = memory_bytes * STREAMS_SHARE
        self._cap_bytes = self._most_bytes
        self._maxlen_rows = maxlen_rows
        self._streams: dict[str, _Entries] = {}
        self.level_bytes = math.inf
        """What one stream may take."""
        self.used_bytes = 0
        self.budget_bytes = int(self._most_bytes)

    @property
    def keys(self) -> list[str]:
        """The streams that were written to."""
        return list(self._streams)

    def mean_bytes(self, key: str) -> float:
        """Of an entry, as far as that is known without asking."""
        known = self._streams.get(key)
        return known.byte_count if known else KEY_BYTES

    def entries_kept(
        self, key: str, row_count: int, payload_bytes: int, maxlen_rows: int | None = None
    ) -> int:
        """How many entries the stream may hold when this one is added. Redis trims by entries, and
        one holds a row in a quiet market and five hundred in a storm. `maxlen_rows` is the stream's
        own bound, where it has one.
        """
        byte_count = payload_bytes + ENTRY_BYTES
        known = self._streams.get(key)
        if known is None:
            known = self._streams[key] = _Entries(row_count, byte_count)
        known.row_count += _SMOOTHING * (row_count - known.row_count)
        known.byte_count += _SMOOTHING * (byte_count - known.byte_count)
        fitting = self.level_bytes / max(known.byte_count, known.held_bytes)
        most_rows = maxlen_rows or self._maxlen_rows
        return max(1, round(min(most_rows / known.row_count, fitting)))

    def take_stock(self, held: Mapping[str, Held], server: ServerMemory | None) -> list[Trim]:
        """Find the level; return what must be cut to it, fattest first. Streams that this writer
        has not written to, of an earlier one or of one removed since, are cut to a quarter of it.
        """
        self.used_bytes = sum(each.byte_count for each in held.values())
        self._cap_bytes = min(self._cap_bytes * _REGROWTH, self._most_bytes)
        budget = self._cap_bytes
        if server is not None and server.most:
            budget = min(budget, self.used_bytes + server.most * STREAMS_SHARE - server.used)
        self.budget_bytes = max(int(budget), 0)
        self.level_bytes = water_level(
            (each.byte_count * _GROWTH + KEY_BYTES for each in held.values()), self.budget_bytes
        )
        self._streams = {key: known for key, known in self._streams.items() if key in held}
        trims = []
        for key, each in sorted(held.items(), key=lambda item: -item[1].byte_count):
            mean_bytes = each.byte_count / max(each.entry_count, 1)
            level = self.level_bytes
            if (known := self._streams.get(key)) is not None:
                known.held_bytes = mean_bytes
            else:
                level /= 4
            if each.byte_count > level:
                trims.append(Trim(key, max(1, int(level / mean_bytes))))
        return trims

    def was_full(self, held: Mapping[str, Held]) -> None:
        """The server refused to take more while the streams held this."""
        together = sum(each.byte_count for each in held.values())
        self._cap_bytes = min(self._cap_bytes, together) * _CUT
