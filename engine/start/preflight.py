"""What the machine must have for a configuration: CPUs we may use, shared memory for the rings.

Everything here is checked before anything is started, and a refusal names both values.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.errors import ConfigError
from engine.data.kinds import SPECS, RecordKind
from engine.data.layout import Layout, ring_name
from engine.data.ring import ring_bytes
from engine.messages.settings import RingSettings
from engine.process.instance import leftover_rings
from engine.start.config import Config

PREFERRED_RECORDS = {
    RecordKind.TRADE: 1 << 20,
    RecordKind.BOOK: 1 << 20,
    RecordKind.QUOTE: 1 << 18,
    RecordKind.FUNDING: 1 << 14,
    RecordKind.OPEN_INTEREST: 1 << 14,
    RecordKind.LIQUIDATION: 1 << 14,
    RecordKind.GAP: 1 << 12,
    RecordKind.COVERAGE: 1 << 12,
}
"""Ring capacities when shared memory is ample: 137 MB a shard."""
_SHRINKABLE = (RecordKind.TRADE, RecordKind.BOOK, RecordKind.QUOTE)

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
    asked = config.shards.ring_records
    capacity = {kind: getattr(asked, kind.value) or PREFERRED_RECORDS[kind] for kind in SPECS}
    budget = int((free_bytes + reclaimable_bytes) * _FREE_SHARE)
    shrinkable = [kind for kind in _SHRINKABLE if getattr(asked, kind.value) is None]
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
            f" {capacity[RecordKind.TRADE]:,} trades, {capacity[RecordKind.BOOK]:,} levels and"
            f" {capacity[RecordKind.QUOTE]:,} quotes"
        )
    rings = [
        RingSettings(ring_name(shard, kind.value), kind.value, capacity[kind])
        for shard in range(shard_count)
        for kind in SPECS
    ]
    return RingPlan(rings, _bytes_needed(capacity, shard_count), free_bytes, note)


def _bytes_needed(capacity: dict[RecordKind, int], shard_count: int) -> int:
    return shard_count * sum(ring_bytes(spec, capacity[kind]) for kind, spec in SPECS.items())
