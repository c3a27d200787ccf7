"""What the machine must have for a configuration: CPUs we may use, shared memory for the rings; and
what the state directory must not have: rows that only another version can read.

Everything here is checked before anything is started, and a refusal names both values.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import msgspec

from engine.base.durable import write_whole
from engine.base.errors import ConfigError
from engine.data.kinds import BOOK, KINDS, QUOTE, TRADE
from engine.data.layout import Layout, ring_name, shard_name
from engine.data.names import CARRIES, StreamKind
from engine.data.ring import ring_bytes
from engine.messages.settings import RingSettings
from engine.process.instance import leftover_rings
from engine.start.config import Config

_FEWEST_RECORDS = 1 << 12
_FREE_SHARE = 0.8
_STREAM_RECORDS = 1 << 14
"""What a lively stream brings while nobody reads its ring, counted as five seconds: a writer that
was killed is back after one."""
_AWAY_S = 5
_HEAD = Struct("<7scI4x16s")
"""Of a ring's header and of a journal segment's alike: magic, layout version, fingerprint."""
_MAGICS = (b"FTSRING", b"FTSJRNL")
_VERSION = 1
_VERSION_MAX = 255
_FORMAT = 1
"""Of the files in a state directory. Higher where an older version would misread them."""
_FORMAT_FILE = "format"
_DIGITS_MAX = 9
_DAMAGED_BITS_MAX = 16
"""Fingerprints of two layouts differ in about 64 of 128 bits; damaged ones in a few."""


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


def demand_own_format(layout: Layout) -> None:
    """Raise ConfigError for a state directory that a version has used whose files mean something
    else; mark one that is ours. Hold its lock.
    """
    if (found := newer_format(layout)) is not None:
        raise ConfigError(
            f"{layout.state_dir} has format {found}, and this version knows {_FORMAT}: a newer"
            " version of fintickstreams has used it; start that one, or choose another --state-dir"
        )
    if _format_of(layout) != _FORMAT:
        write_whole(layout.state_dir / _FORMAT_FILE, f"{_FORMAT}\n".encode())


def newer_format(layout: Layout) -> int | None:
    """The format of the state directory where only a newer version knows it."""
    found = _format_of(layout)
    return found if found > _FORMAT else None


def _format_of(layout: Layout) -> int:
    """0 where nobody has marked it, as version 0.1.0, whose format is 1, or the mark is damaged."""
    try:
        text = (layout.state_dir / _FORMAT_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() and len(text) < _DIGITS_MAX else 0


def demand_own_rows(layout: Layout) -> None:
    """Raises ConfigError where an engine of another version left rows in rings or journal, whose
    layout is not ours: they would be taken for damaged ones, and be declared lost.
    """
    for path in rows_of_others(layout):
        raise ConfigError(
            f"{path} holds rows in the layout of another version of fintickstreams, most likely a"
            f" newer one; start that one once more on {layout.state_dir}, which stores them, and"
            " stop it in order, or move the file away to give them up"
        )


def rows_of_others(layout: Layout) -> list[Path]:
    """Files of rings and journal that only another version can read. Damage is not meant."""
    rings = [(path, path.stem) for path in leftover_rings(layout)]
    segments = [
        (path, path.parent.parent.name) for path in sorted(layout.journal_dir.glob("*/*/*.seg"))
    ]
    return [path for path, ring in (*rings, *segments) if _is_of_others(path, ring)]


def _is_of_others(path: Path, ring: str) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
    except OSError:
        return False  # for who reads it to say
    if len(head) < _HEAD.size or head[:7] not in _MAGICS:
        return False
    _, _, version, fingerprint = _HEAD.unpack(head)
    kind = KINDS.get(ring.rpartition(".")[2])
    if kind is None or _VERSION < version <= _VERSION_MAX:
        return True
    differing = int.from_bytes(fingerprint) ^ int.from_bytes(kind.fingerprint)
    return differing.bit_count() > _DAMAGED_BITS_MAX


def plan_rings(
    config: Config,
    source: str,
    shard_count: int,
    free_bytes: int,
    reclaimable_bytes: int = 0,
    *,
    streams: Iterable[StreamKind] = (),
    rows_s: float = 0.0,
) -> RingPlan:
    """Choose ring capacities and prove that they fit.

    They are for the kinds of all streams that are known, and for the rate of all rows where one is.
    Capacities that are not configured shrink until they fit (a container's /dev/shm often has
    64 MB); configured ones are kept or refused. For the bytes see `ring_room`.
    """
    capacity = _capacities(config, shard_count, streams, rows_s)
    budget = int((free_bytes + reclaimable_bytes) * _FREE_SHARE)
    shrinkable = [
        name for name, kind in KINDS.items() if kind.is_fast and not config.shards.capacity(name)
    ]
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


def grown(
    rings: Sequence[RingSettings],
    config: Config,
    shard_count: int,
    streams: Iterable[StreamKind],
    free_bytes: int,
) -> list[RingSettings]:
    """The rings of the next processes: larger than these where there are more streams by now, and
    room beside them; never smaller.
    """
    wanted = _capacities(config, shard_count, streams)
    larger = [
        msgspec.structs.replace(each, capacity=max(each.capacity, wanted[each.kind]))
        for each in rings
    ]
    needed = sum(ring_bytes(KINDS[each.kind], each.capacity) for each in larger)
    return larger if needed <= free_bytes * _FREE_SHARE else list(rings)


def _capacities(
    config: Config, shard_count: int, streams: Iterable[StreamKind], rows_s: float = 0.0
) -> dict[str, int]:
    """By kind, in records: as configured, else as large as the streams of a shard want."""
    count = Counter(name for stream in streams for name in CARRIES[stream])
    flush_rows = max(each.flush_rows for each in config.all_databases.values())
    found = {}
    for name, kind in KINDS.items():
        records = max(-(-count[name] // shard_count) * _STREAM_RECORDS, rows_s * _AWAY_S)
        wanted = int(min(max(records, flush_rows, kind.ring_records_min), kind.ring_records))
        usual = 1 << (wanted - 1).bit_length() if kind.is_fast else kind.ring_records
        found[name] = config.shards.capacity(name) or usual
    return found


def _bytes_needed(capacity: dict[str, int], shard_count: int) -> int:
    return shard_count * sum(ring_bytes(spec, capacity[kind]) for kind, spec in KINDS.items())
