"""What a load takes of each process, and which of them is at its end first.

Every process costs so much a second however little comes, and so much for each thing it handles.
What is linear stays linear: a crowd of rows costs less a row than single ones because there are
fewer bursts, commits and entries, and those are counted (`bench.scale.load`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Final

import numpy as np

from bench.scale.load import Load

PUBLISH: Final = "round"
"""One round of rows to Redis, with an entry of each stream that has some: they go out as soon as
those before are there, so how many rounds there are is measured, and reckoned by `Pace`.
"""
TERMS: Final[Mapping[str, tuple[str, ...]]] = {
    "shard": ("shard", "stream", "burst", "apart", "trade", "level"),
    "writer": ("database", "trade", "level", PUBLISH, "live burst", "live trade", "live level"),
    "postgres": ("database", "trade", "level"),
    "valkey": (PUBLISH, "live burst", "live trade", "live level"),
    "others": ("engine", "stream"),
}
"""What the CPU time of each process depends on. `others` are supervisor, control and upkeep."""
WAL: Final = ("trade", "level")
"""What bytes of write-ahead log depend on."""
MEMORY: Final = ("engine", "shard", "stream")
"""What the memory of our own processes depends on, without the rings."""
FULL: Final = 0.9
"""Of a CPU that a process may use: who is busier is late at every disturbance."""
_ROUND_S_MIN: Final = 1e-4
_ROUNDS_ENOUGH: Final = 50.0
"""A second: rows are in Redis some 20 ms after they came. Rounds give way to rows: a writer that
has more to do has fewer of them, and larger ones.
"""
_TIMES_MAX: Final = 1e6
_HALVINGS: Final = 24


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured at one load."""

    load: Load
    cpu: Mapping[str, float]
    """CPUs that are busy, by process."""
    wal_bytes_per_s: float = 0.0
    session_part: float = 1.0
    """Of the database's CPU time, what the process took that stores our rows."""
    memory_bytes: float = 0.0
    """Of our own processes, without the rings."""
    publishes_per_s: float = 0.0
    """Rounds of rows to Redis."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often rows are published: a round takes its time, and waits until something has come."""

    round_s: float
    bursts: float
    """That come meanwhile, in the mean."""

    @classmethod
    def fitted(cls, samples: Sequence[Sample]) -> "Pace":
        """What explains the rounds of all samples that publish."""
        told = [each for each in samples if each.publishes_per_s]
        inverse = [{"round": 1.0, "wait": 1 / each.load.bursts_per_s} for each in told]
        found = _fitted(("round", "wait"), inverse, [1 / each.publishes_per_s for each in told])
        return cls(found["round"], found["wait"])

    def publishes_per_s(self, load: Load) -> float:
        """Rounds of a load; none where nothing comes or nobody wants it."""
        bursts_per_s = load.bursts_per_s
        if not load.redis or not bursts_per_s:
            return 0.0
        return 1 / max(self.round_s + self.bursts / bursts_per_s, _ROUND_S_MIN)


@dataclass(frozen=True, slots=True)
class Parts:
    """What was fitted."""

    cpu_us: Mapping[str, Mapping[str, float]]
    """CPU time in µs by process and what it handles; of what stands for a second, in a second."""
    wal_bytes: Mapping[str, float]
    """By row of each kind."""
    pace: Pace
    session_part: float = 1.0
    """Of a database's CPU time, what the process takes that stores our rows."""
    memory_bytes: Mapping[str, float] = field(default_factory=dict)
    """Of our own processes, by engine, shard and stream."""

    @classmethod
    def fitted(cls, samples: Sequence[Sample]) -> "Parts":
        """Those that explain all samples best, each by the part that it is off."""
        counts = [sample.load.counts() | {PUBLISH: sample.publishes_per_s} for sample in samples]
        cpu_us = {
            role: _fitted(terms, counts, [1e6 * sample.cpu.get(role, 0.0) for sample in samples])
            for role, terms in TERMS.items()
        }
        wal_bytes = _fitted(WAL, counts, [sample.wal_bytes_per_s for sample in samples])
        session_part = median(sample.session_part for sample in samples)
        memory = _fitted(MEMORY, counts, [sample.memory_bytes for sample in samples])
        return cls(cpu_us, wal_bytes, Pace.fitted(samples), session_part, memory)

    def cpu(self, load: Load) -> dict[str, float]:
        """CPUs that are busy, by process."""
        return self._cpu(self.counts(load))

    def cpu_at_the_wall(self, load: Load) -> dict[str, float]:
        """The same where a process is at its end: rounds to Redis are as rare as they may be."""
        counts = self.counts(load)
        return self._cpu(counts | {PUBLISH: min(counts[PUBLISH], _ROUNDS_ENOUGH)})

    def _cpu(self, counts: Mapping[str, float]) -> dict[str, float]:
        return {role: _sum(costs, counts) / 1e6 for role, costs in self.cpu_us.items()}

    def counts(self, load: Load) -> dict[str, float]:
        """What happens each second, rounds to Redis included."""
        return load.counts() | {PUBLISH: self.pace.publishes_per_s(load)}

    def wal_bytes_per_s(self, load: Load) -> float:
        """Of all databases together."""
        return _sum(self.wal_bytes, load.counts())


@dataclass(frozen=True, slots=True)
class Site:
    """What it runs on. Databases and Redis are on the engine's machine."""

    cpus: int
    """Of each machine."""
    disk_bytes_per_s: float
    """That one database's disk takes in order."""
    machines: int = 1
    engines: int = 1
    """On each machine; every one has a writer of its own."""
    shared_disk: bool = True
    """Whether all databases of a machine write to one disk."""


@dataclass(frozen=True, slots=True)
class Most:
    """The highest load of a kind that a site carries, and what is at its end there."""

    load: Load
    """Of one engine."""
    rows_per_s: float
    """Of all engines together."""
    wall: str
    uses: Mapping[str, float]
    """Of each thing that can be at its end, the part that is used."""


def uses(parts: Parts, load: Load, site: Site) -> dict[str, float]:
    """How much of each thing that can be at its end one engine's load takes: 1 is all of it."""
    cpu = parts.cpu_at_the_wall(load)
    writes = parts.wal_bytes_per_s(load)
    writes *= site.engines if site.shared_disk else 1 / load.databases
    return {
        "CPUs": sum(cpu.values()) * site.engines / site.cpus / FULL,
        "a shard": cpu["shard"] / load.shards / FULL,
        "the writer": cpu["writer"] / FULL,
        "a database's session": cpu["postgres"] * parts.session_part / load.databases / FULL,
        "Redis": cpu["valkey"] / FULL,
        "a disk": writes / site.disk_bytes_per_s / FULL,
    }


def most(parts: Parts, load: Load, site: Site) -> Most:
    """How often this mix of rows fits: the rate at which the first thing is at its end. `load` is
    one engine's.
    """
    low, high = 0.0, 1.0
    while max(uses(parts, load.times(high), site).values()) < 1 and high < _TIMES_MAX:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if max(uses(parts, load.times(middle), site).values()) < 1:
            low = middle
        else:
            high = middle
    found = load.times(low)
    used = uses(parts, found, site)
    rows_per_s = found.rows_per_s * site.engines * site.machines
    return Most(found, rows_per_s, max(used, key=lambda each: used[each]), used)


def best(parts: Parts, load: Load, site: Site, enough: float = 0.99) -> Most:
    """The same with the fewest shards that carry nearly as much as any number of them."""
    tried = [most(parts, replace(load, shards=count), site) for count in range(1, site.cpus + 1)]
    highest = max(found.rows_per_s for found in tried)
    return next(found for found in tried if found.rows_per_s >= enough * highest)


def _sum(costs: Mapping[str, float], counts: Mapping[str, float]) -> float:
    return sum(cost * counts[term] for term, cost in costs.items())


def _fitted(
    terms: Sequence[str], counts: Sequence[Mapping[str, float]], found: Sequence[float]
) -> dict[str, float]:
    """Least squares of the relative error, none below 0: what would be is taken as costing nothing.
    A sample in which nothing was measured says nothing.
    """
    told = [number for number, each in enumerate(found) if each > 0]
    left = list(terms)
    while left and told:
        rows: Any = [[counts[i][term] / found[i] for term in left] for i in told]
        costs = np.linalg.lstsq(np.array(rows), np.ones(len(told)), rcond=None)[0]
        if costs.min() >= 0:
            return dict.fromkeys(terms, 0.0) | dict(zip(left, costs.tolist(), strict=True))
        left.pop(int(costs.argmin()))
    return dict.fromkeys(terms, 0.0)
