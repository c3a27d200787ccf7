"""What the machine must have for a configuration: CPUs we may use, shared memory for the rings.

Everything here is checked before anything is started, and a refusal names both values.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.errors import ConfigError
from engine.data.kinds import BOOK, KINDS, QUOTE, TRADE
from engine.data.layout import Layout, ring_name, shard_name
from engine.data.ring import ring_bytes
from engine.messages.settings import RingSettings
from engine.process.instance import leftover_rings
from engine.start.config import Config

_FEWEST_RECORDS = 1 << 12
_FREE_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class RingPlan:
    """The rings of every shard, and the note to log when they had to be made smaller."""

    rings: list[RingSettings]
    bytes_needed: int
    bytes_free: int
    note: str = ""


def allowed_cpus() -> list[int]:
    """CPUs this process may run on, in order."""
    return sorted(os.sched_getaffinity(0))


def shard_cpus(config: Config, source: str, allowed: Sequence[int]) -> list[int]:
    """The CPU of each shard: as configured, else the last half of the allowed ones.

    The first half is left to the writer, the database and whoever else lives here.
    """
    chosen = config.shards.cpus
    if chosen is None:
        return list(allowed[-max(1, len(allowed) // 2) :])
    for cpu in chosen:
        if cpu not in allowed:
            raise ConfigError(
                f"{source}: shards.cpus: CPU {cpu} is not among the allowed CPUs"
                f" {', '.join(map(str, allowed))}"
            )
    return list(chosen)


def ring_room(layout: Layout) -> tuple[int, int]:
    """Bytes left on the file system of the rings, and those in rings that a crash left there: the
    new ones take their place. Raises OSError.
    """
    usage = os.statvfs(layout.shm_dir.parent)
    left = sum(path.stat().st_blocks * 512 for path in leftover_rings(layout) if path.is_file())
    return usage.f_bavail * usage.f_frsize, left


def plan_rings(
    config: Config, source: str, shard_count: int, free_bytes: int, reclaimable_bytes: int = 0
) -> RingPlan:
    """Choose ring capacities and prove that they fit.

    Capacities that are not configured shrink until they fit (a container's /dev/shm often has
    64 MB); configured ones are kept or refused. For the bytes see `ring_room`.
    """
    asked = {name: config.shards.capacity(name) for name in KINDS}
    capacity = {name: asked[name] or kind.ring_records for name, kind in KINDS.items()}
    budget = int((free_bytes + reclaimable_bytes) * _FREE_SHARE)
    shrinkable = [name for name, kind in KINDS.items() if kind.is_fast and not asked[name]]
    note = ""
    while _bytes_needed(capacity, shard_count) > budget:
        candidates = [kind for kind in shrinkable if capacity[kind] > _FEWEST_RECORDS]
        if not candidates:
            raise ConfigError(
                f"{source}: shards.ring_records: the rings need"
                f" {_bytes_needed(capacity, shard_count):,} bytes of shared memory, and"
                f" {budget:,} may be used of the {free_bytes + reclaimable_bytes:,} bytes free"
            )
        largest = max(candidates, key=lambda kind: capacity[kind])
        capacity[largest] //= 2
        note = (
            f"shared memory has {free_bytes:,} bytes free: rings hold"
            f" {capacity[TRADE.name]:,} trades, {capacity[BOOK.name]:,} levels and"
            f" {capacity[QUOTE.name]:,} quotes"
        )
    rings = [
        RingSettings(ring_name(shard_name(shard), kind), kind, capacity[kind])
        for shard in range(shard_count)
        for kind in KINDS
    ]
    return RingPlan(rings, _bytes_needed(capacity, shard_count), free_bytes, note)


def _bytes_needed(capacity: dict[str, int], shard_count: int) -> int:
    return shard_count * sum(ring_bytes(spec, capacity[kind]) for kind, spec in KINDS.items())
