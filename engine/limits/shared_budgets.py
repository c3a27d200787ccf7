"""Budgets that several engines share through one Redis: what all of them spent, together.

One hash a budget, in spans of the server's clock (a sixtieth of the window):

    fts:limits:<group>:<venue>:<pool>     "<instance>/<span>" -> units spent
                                          "blocked_until"     -> Redis time in seconds

Invariants
- An engine spends only in a transaction that watched the hash while it looked (WATCH, MULTI, EXEC):
  no two engines take the same room.
- Units count from the latest moment at which their request may leave: look and transaction may take
  `deadline_s` each, and that is rounded up to the end of its span.
- An engine writes its own fields alone, and writes them again when the server has lost them. What
  is too old to count, whoever sees it removes.
- The hash vanishes by itself when nobody spends any more.

Without scripts on purpose: an access list for a collector should not have to allow EVAL.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import StoreUnavailableError
from engine.base.redis_link import Command, RedisAddress, RedisLink
from engine.limits.budget import BLOCK_S_MAX, Spent

_SPANS: Final = 60
_BLOCKED: Final = "blocked_until"
_DEADLINE_S: Final = 2.0
_CLOCK_NOISE_S: Final = 0.1
"""Between two looks our idea of Redis time moves by as much as a round trip."""

Pool = tuple[str, str]
"""Venue and budget."""


@dataclass(frozen=True, slots=True)
class Look:
    """A budget as all engines see it, in our monotonic clock."""

    others: Sequence[Spent]
    """What other engines spent, oldest first."""
    blocked_until_s: float


@dataclass(slots=True)
class _Found:
    """What one look found, until the transaction that follows it. Redis time."""

    server_s: float
    ours: dict[int, float] = field(default_factory=dict)
    others: list[tuple[int, float]] = field(default_factory=list)
    stale: list[bytes] = field(default_factory=list)
    blocked_until_s: float = 0.0


class SharedLimits:
    """One engine's view of the shared budgets. Use it from one task.

    Every call but `spent` may raise StoreUnavailableError; then `connect` and look again.
    """

    def __init__(
        self,
        address: RedisAddress,
        key_prefix: str,
        instance: str,
        windows_s: Mapping[Pool, float],
        deadline_s: float = _DEADLINE_S,
    ) -> None:
        self._address = address
        self._prefix = key_prefix
        self._instance = instance
        self._windows_s = windows_s
        self._deadline_s = deadline_s
        self._link: RedisLink | None = None
        self._found: dict[Pool, _Found] = {}
        self._spent: defaultdict[Pool, dict[int, float]] = defaultdict(dict)
        """Ours, by span."""
        self._server_ahead_s = wall_ns() / 1e9 - monotonic_s()
        """Redis time minus our monotonic time, too small by at most the round trip. What we read is
        then over too late, which is careful; what we write must have the round trip added.
        """
        self._round_trip_s = 0.0

    async def connect(self) -> None:
        """Open a new connection in place of the old one."""
        await self.close()
        name = f"fts-limits-{self._instance}"
        self._link = await RedisLink.open(self._address, name, self._deadline_s)

    async def close(self) -> None:
        """Close the connection, if any. What was spent stays spent."""
        if self._link is not None:
            link, self._link = self._link, None
            await link.wait_closed()

    async def look(self, pool: Pool) -> Look:
        """See what all engines spent; `spend` follows, and fails if that is no longer true."""
        key, asked_s = self._key(pool), monotonic_s()
        _, time, flat = await self._call([("WATCH", key), ("TIME",), ("HGETALL", key)])
        server_s = int(time[0]) + int(time[1]) / 1e6
        now_s = monotonic_s()
        self._server_ahead_s, self._round_trip_s = server_s - now_s, now_s - asked_s
        found = self._found[pool] = self._sort(pool, server_s, flat)
        mine, span_s = self._spent[pool], self._span_s(pool)
        for span, units in found.ours.items():  # of an earlier life, or of a lost reply
            mine[span] = max(units, mine.get(span, 0.0))
        self._prune(pool, server_s)
        return Look(
            [
                Spent((span + 1) * span_s - self._server_ahead_s, units)
                for span, units in sorted(found.others)
            ],
            found.blocked_until_s - self._server_ahead_s,
        )

    async def spend(self, pool: Pool, units: float, blocked_until_s: float) -> bool:
        """Write down `units` that are about to be granted, and what the venue forbids.

        False when another engine was faster: look again.
        """
        found, mine = self._found.pop(pool), self._spent[pool]
        spent = dict(mine)
        if units:
            self._add(spent, pool, units, found.server_s)
        changes = {
            f"{self._instance}/{span}": repr(total)
            for span, total in spent.items()
            if total > found.ours.get(span, 0.0)
        }
        forbidden_s = max(blocked_until_s + self._server_ahead_s, found.blocked_until_s)
        if forbidden_s > max(found.blocked_until_s + _CLOCK_NOISE_S, found.server_s):
            forbidden_s += self._round_trip_s
            changes[_BLOCKED] = repr(forbidden_s)
        if not changes and not found.stale:
            await self._call([("UNWATCH",)])
            return True
        key = self._key(pool)
        commands: list[Command] = [("MULTI",)]
        if changes:
            commands.append(("HSET", key, *itertools.chain(*changes.items())))
        if found.stale:
            commands.append(("HDEL", key, *found.stale))
        kept_s = max(forbidden_s - found.server_s, 0.0) + 2 * self._windows_s[pool]
        commands += [("PEXPIRE", key, math.ceil(kept_s * 1e3)), ("EXEC",)]
        replies = await self._call(commands)
        if replies[-1] is None:
            return False
        self._spent[pool] = spent
        return True

    def spent(self, pool: Pool, units: float) -> None:
        """What was granted while the server was away; the next `spend` writes it down."""
        server_s = monotonic_s() + self._server_ahead_s
        self._add(self._spent[pool], pool, units, server_s)
        self._prune(pool, server_s)

    def _sort(self, pool: Pool, server_s: float, flat: Sequence[bytes]) -> _Found:
        """Whose fields they are, and which of them count no more."""
        found = _Found(server_s)
        for raw_name, raw_value in zip(flat[::2], flat[1::2], strict=True):
            name = raw_name.decode("utf-8", "surrogateescape")
            instance, _, span_text = name.rpartition("/")
            try:
                value = float(raw_value)
                span = int(span_text) if name != _BLOCKED else 0
            except ValueError:
                value, span = math.nan, 0
            if not 0.0 <= value < math.inf:
                found.stale.append(raw_name)
            elif name == _BLOCKED:
                found.blocked_until_s = min(value, server_s + BLOCK_S_MAX)
            elif not self._counts(pool, span, server_s):
                found.stale.append(raw_name)
            elif instance == self._instance:
                found.ours[span] = value
            else:
                found.others.append((span, value))
        return found

    def _counts(self, pool: Pool, span: int, server_s: float) -> bool:
        """Whether a span is in the window. One far in the future is of a clock that went back."""
        window_s = self._windows_s[pool]
        return -window_s < (span + 1) * self._span_s(pool) - server_s <= 2 * window_s

    def _prune(self, pool: Pool, server_s: float) -> None:
        mine = self._spent[pool]
        for span in [each for each in mine if not self._counts(pool, each, server_s)]:
            del mine[span]

    def _add(self, spans: dict[int, float], pool: Pool, units: float, server_s: float) -> None:
        """Count units in the span in which their request leaves at the latest."""
        span = int((server_s + 2 * self._deadline_s) // self._span_s(pool))
        spans[span] = spans.get(span, 0.0) + units

    def _span_s(self, pool: Pool) -> float:
        return self._windows_s[pool] / _SPANS

    def _key(self, pool: Pool) -> str:
        return f"{self._prefix}:{pool[0]}:{pool[1]}"

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        if self._link is None or self._link.is_closed:
            raise StoreUnavailableError("not connected")
        return await self._link.call(commands, self._deadline_s)
