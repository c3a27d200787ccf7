"""How much memory the streams in Redis take: what it is sized from, and how it is divided.

Measured on a private Valkey 9 (`used_memory` before and after 4,000 to 20,000 rows with prices, ids
and times as venues send them): bytes a row in entries of 1, 20 and 500 rows.

    trade 147 121 118 · quote 155 144 141 · funding 174 162 158 · open interest 83 71 67 ·
    liquidation 154 143 141 · book 161 for an event of one level, 26 a level with twenty ·
    a stream with one small entry 4,344, because room for a node of 4 KB is taken at once

Trimming with `~` keeps whole nodes, so a stream may hold 4 KB more than it is told, or one entry
where entries are larger than that.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from engine.data.kinds import KINDS
from engine.data.names import CARRIES, StreamKind

_MB: Final = 1 << 20

KEY_BYTES: Final = 4_344
ENTRY_BYTES: Final = 30
"""Of an entry, beside its payload."""

STREAMS_SHARE: Final = 0.85
"""Of a server's memory. The rest is for what is being sent, for readers, for the server itself."""
_MEMORY_SHARES: Final = (1 / 8, 1 / 4)
"""Of this machine's memory: what a private server may take, and with many streams at most."""
_LEAST_BYTES: Final = 64 * _MB


@dataclass(frozen=True, slots=True)
class RedisPlan:
    """Memory for the streams, and what to say about it; `note` is empty where all of it fits."""

    memory_bytes: int = 256 * _MB
    needed_bytes: int = 0
    note: str = ""


def needed_bytes(streams: Iterable[StreamKind], maxlen_rows: int) -> int:
    """What a server needs for these streams when each holds `maxlen_rows` rows."""
    kinds = [KINDS[name] for stream in streams for name in CARRIES[stream]]
    together = sum(KEY_BYTES + maxlen_rows * kind.json_row_bytes for kind in kinds)
    return math.ceil(together / STREAMS_SHARE)


def plan_redis(
    memory_mb: int | None, maxlen_rows: int, streams: Iterable[StreamKind], machine_bytes: int
) -> RedisPlan:
    """As configured; else an eighth of the machine's memory, and up to a quarter of it where the
    streams need more. Streams that are added later share what there is.
    """
    needed = needed_bytes(streams, maxlen_rows)
    usual, most = (max(int(machine_bytes * share), _LEAST_BYTES) for share in _MEMORY_SHARES)
    memory = memory_mb * _MB if memory_mb is not None else min(max(usual, needed), most)
    return RedisPlan(memory, needed, does_not_fit(needed, memory, "redis.memory_mb"))


def does_not_fit(needed: int, memory: int, setting: str) -> str:
    """What to say of streams that need more than there is; nothing where they do not."""
    if needed <= memory:
        return ""
    return (
        f"redis.stream_maxlen rows of every stream take about {_mb(needed)} MB of Redis, and"
        f" {setting} allows {_mb(memory)}: the largest streams keep fewer rows"
    )


def water_level(wants: Iterable[float], budget: float) -> float:
    """The most that one of them may take, so that together they take no more than `budget` and
    nobody is cut who takes less; infinite where all get what they want.
    """
    left, ordered = max(budget, 0.0), sorted(wants)
    for place, want in enumerate(ordered):
        fair = left / (len(ordered) - place)
        if want > fair:
            return fair
        left -= want
    return math.inf


def _mb(count: int) -> str:
    return f"{math.ceil(count / _MB):,}"
