"""The section `[redis]`, and how much memory the streams take: sized from what, divided how.

Measured on a private Valkey 9 (`used_memory` before and after 4,000 to 20,000 rows with prices, ids
and times as venues send them): bytes a row in entries of 1, 20 and 500 rows.

    trade 147 121 118 · quote 155 144 141 · funding 174 162 158 · open interest 83 71 67 ·
    liquidation 154 143 141 · book 161 for an event of one level, 26 a level with twenty ·
    a stream with one small entry 4,344, because room for a node of 4 KB is taken at once

Trimming with `~` keeps whole nodes, so a stream may hold 4 KB more than it is told, or one entry
where entries are larger than that.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engine.data.kinds import GAP, KINDS
from engine.data.names import CARRIES, StreamKind
from engine.messages.settings import RedisKind

_MB: Final = 1 << 20

KEY_BYTES: Final = 4_344
ENTRY_BYTES: Final = 30
"""Of an entry, beside its payload."""

STREAMS_SHARE: Final = 0.85
"""Of a server's memory. The rest is for what is being sent, for readers, for the server itself."""
_MEMORY_SHARES: Final = (1 / 8, 1 / 4)
"""Of this machine's memory: what a private server may take, and with many streams at most."""
_LEAST_BYTES: Final = 64 * _MB
_PUBLISHED: Final = tuple(name for name, kind in KINDS.items() if kind.word or kind is GAP)
_NO_OTHERS: Final[Mapping[str, int]] = {}


class RedisConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[redis]`: without `url` and `url_file`, a private Valkey in the state directory."""

    url: str | None = None
    """Redis or Valkey, without a password. Absent: a private server."""
    url_file: str | None = None
    """File that holds the address, password included."""
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "fts"
    """First part of every key."""
    stream_maxlen: Annotated[int, Meta(ge=1, le=100_000_000)] = 10_000
    """Rows that a stream keeps, roughly; of a book, levels."""
    memory_mb: Annotated[int, Meta(ge=8, le=1 << 20)] | None = None
    """Memory of the private server in MiB; of another one, what the streams may take. Absent: an
    eighth of the machine's, up to a quarter where the streams need it."""
    publish: bool = False
    """Also PUBLISH every entry."""
    key_template: Annotated[
        str, Meta(pattern=r"^\{prefix\}:(\{(kind|venue|symbol)\}[:./]){2}\{(kind|venue|symbol)\}$")
    ] = "{prefix}:{kind}:{venue}:{symbol}"
    """Key of a stream: the prefix first, then the three others in any order with `:`, `.` or `/`
    between them. Neither kinds nor venues hold these, so no two streams have one key."""
    kinds: dict[str, RedisKind] = {}
    """By kind of rows, what is otherwise for them, e.g.
    `{ book = { maxlen = 500000, publish = false } }`."""
    flush_interval_ms: Annotated[float, Meta(ge=0, le=1000)] = 2.0
    """While rows keep coming they are published together so often; one that comes alone is at once.
    0: as soon as those before are, which takes the writer a fifth more CPU at 20,000 a second."""
    answer_within_s: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    """Redis is down when a connection or an answer takes longer, in seconds; it is asked every two
    seconds at least, so a silent network shows as soon."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec makes a refusal with the place."""
        if missing := [
            each for each in ("kind", "venue", "symbol") if each not in self.key_template
        ]:
            raise ValueError(f"key_template lacks {{{missing[0]}}}")
        if unknown := self.kinds.keys() - set(_PUBLISHED):
            raise ValueError(f"kinds: {min(unknown)!a} is none of {', '.join(_PUBLISHED)}")

    @property
    def maxlens(self) -> dict[str, int]:
        """Rows that a stream keeps, by kind, where that is not `stream_maxlen`."""
        return {kind: each.maxlen for kind, each in self.kinds.items() if each.maxlen is not None}


@dataclass(frozen=True, slots=True)
class RedisPlan:
    """Memory for the streams, and what to say about it; `note` is empty where all of it fits."""

    memory_bytes: int = 256 * _MB
    needed_bytes: int = 0
    note: str = ""


def needed_bytes(
    streams: Iterable[StreamKind], maxlen_rows: int, by_kind: Mapping[str, int] = _NO_OTHERS
) -> int:
    """What a server needs for these streams when each holds `maxlen_rows` rows, or as many as it
    may `by_kind`.
    """
    names = [name for stream in streams for name in CARRIES[stream]]
    together = sum(
        KEY_BYTES + by_kind.get(name, maxlen_rows) * KINDS[name].json_row_bytes for name in names
    )
    return math.ceil(together / STREAMS_SHARE)


def plan_redis(
    memory_mb: int | None,
    maxlen_rows: int,
    streams: Iterable[StreamKind],
    machine_bytes: int,
    by_kind: Mapping[str, int] = _NO_OTHERS,
) -> RedisPlan:
    """As configured; else an eighth of the machine's memory, and up to a quarter of it where the
    streams need more. Streams that are added later share what there is.
    """
    needed = needed_bytes(streams, maxlen_rows, by_kind)
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
