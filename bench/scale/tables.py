"""What was found, in words and as tables of Markdown: docs/scaling.md has them as they are here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.scale.load import Load
from bench.scale.model import PUBLISH, Most, Parts, Sample, Site, best

_COLUMNS: Final = (
    "ms a second", "µs a stream", "µs a round", "µs a burst", "µs apart", "µs a trade", "µs a level"
)  # fmt: skip
_LIVE: Final = (PUBLISH, "live burst", "", "live trade", "live level")
_ROWS: Final[Sequence[tuple[str, str, Sequence[str]]]] = (
    ("a shard", "shard", ("shard", "stream", "", "burst", "apart", "trade", "level")),
    ("the writer, for a database", "writer", ("database", "", "", "", "", "trade", "level")),
    ("the writer, for Redis", "writer", ("", "", *_LIVE)),
    ("PostgreSQL", "postgres", ("database", "", "", "", "", "trade", "level")),
    ("Valkey", "valkey", ("", "", *_LIVE)),
    ("supervisor, control, upkeep", "others", ("engine", "stream", "", "", "", "", "")),
)


_WORTH: Final = 0.005
"""Of a process's CPU time: what is less is not told."""


@dataclass(frozen=True, slots=True)
class Example:
    """A site and the rows that it is asked for."""

    name: str
    site: Site
    load: Load
    """Of one engine, at any rate."""


def examples(disk_bytes_per_s: float) -> list[Example]:
    """Those of the page. 100 symbols, unless it is said."""

    def site(cpus: int, machines: int = 1, engines: int = 1) -> Site:
        return Site(cpus, disk_bytes_per_s, machines, engines)

    trades, quiet = Load(1e3, symbols=100), Load(1e3, symbols=100, redis=False)
    books = Load(0, 1e3, symbols=100)
    own_disks = Site(32, disk_bytes_per_s, shared_disk=False)
    return [
        Example("2 cores, trades", site(2), trades),
        Example("8 cores, trades", site(8), trades),
        Example("8 cores, trades, no Redis", site(8), quiet),
        Example("8 cores, books", site(8), books),
        Example("8 cores, trades of 2,000 symbols", site(8), Load(1e3, symbols=1000, venues=2)),
        Example("32 cores, trades", site(32), trades),
        Example("32 cores, trades, no Redis", site(32), quiet),
        Example("the same, 3 databases, own disks", own_disks, _databases(quiet, 3)),
        Example("32 cores, 4 engines, trades", site(32, engines=4), trades.split(4)),
        Example("3 machines of 8 cores, trades", site(8, machines=3), trades.split(3)),
        Example("10 machines of 8 cores, books", site(8, machines=10), books.split(10)),
    ]


def _databases(load: Load, count: int) -> Load:
    return Load(load.trades_per_s, symbols=load.symbols, redis=load.redis, databases=count)


def parts_table(parts: Parts) -> list[str]:
    """What each process takes for each thing."""
    lines = ["| | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for name, role, terms in _ROWS:
        costs = parts.cpu_us[role]
        cells = [_cell(costs[term], place) if term else "" for place, term in enumerate(terms)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(us: float, column: int) -> str:
    return f"{us / 1e3:.1f}" if column == 0 else f"{us:.2f}"


def other_parts(parts: Parts, disk_bytes_per_s: float) -> list[str]:
    """What is no CPU time."""
    memory = {term: size / 1e6 for term, size in parts.memory_bytes.items()}
    pace = parts.pace
    return [
        f"- rounds to Redis: one each {pace.round_s * 1e3:.1f} ms and {pace.bursts:.1f} bursts",
        f"- write-ahead log: {parts.wal_bytes['trade']:.0f} bytes a trade,"
        f" {parts.wal_bytes['level']:.0f} a level",
        f"- the disk, in order and forced out: {disk_bytes_per_s / 1e6:,.0f} MB/s",
        f"- of PostgreSQL's CPU time the session that stores: {parts.session_part:.0%}",
        f"- memory of the engine's processes: {memory.get('engine', 0):.0f} MB,"
        f" {memory.get('shard', 0):.0f} a shard, {memory.get('stream', 0) * 1e3:.0f} KB a stream;"
        " rings and servers beside it",
    ]


def arithmetic_table(parts: Parts, load: Load) -> list[str]:
    """How a load's CPU time comes about, term by term."""
    counts = parts.counts(load)
    lines = [f"| {load_text(load)} | | CPUs |", "|---|---|---|"]
    for role, cpu in parts.cpu(load).items():
        terms = [
            f"{counts[term]:,.0f} {term} x {_time(us)}"
            for term, us in parts.cpu_us[role].items()
            if us * counts[term] > _WORTH * cpu * 1e6
        ]
        lines.append(f"| {role} | {' + '.join(terms)} | {cpu:.2f} |")
    return [*lines, f"| together | | {sum(parts.cpu(load).values()):.2f} |"]


def _time(us: float) -> str:
    return f"{us / 1e3:,.1f} ms" if us >= 1e3 else f"{us:,.2f} µs"


def sites_table(parts: Parts, disk_bytes_per_s: float) -> list[str]:
    """What each example carries, and where it ends."""
    lines = [
        "| | shards of an engine | rows/s | first at its end | then |",
        "|---|---|---|---|---|",
    ]
    found = examples(disk_bytes_per_s)
    return lines + [_site_line(each.name, best(parts, each.load, each.site)) for each in found]


def _site_line(name: str, found: Most) -> str:
    first, second = sorted(found.uses, key=lambda use: -found.uses[use])[:2]
    return (
        f"| {name} | {found.load.shards} | {rounded(found.rows_per_s):,} | {first} |"
        f" {second}, {found.uses[second]:.0%} |"
    )


def rounded(rows_per_s: float) -> int:
    """To two digits: nobody knows more."""
    return int(float(f"{rows_per_s:.1e}"))


def load_text(load: Load) -> str:
    """In a few words."""
    kinds = (("trades", load.trades_per_s), ("levels", load.levels_per_s))
    rates = " and ".join(f"{rate:,.0f} {name}/s" for name, rate in kinds if rate)
    shards = f", {load.shards} shards" if load.shards > 1 else ""
    return f"{rates}, {load.streams:,} streams{shards}{'' if load.redis else ', no Redis'}"


def fit_lines(parts: Parts, samples: Iterable[Sample]) -> list[str]:
    """Of every load that was fitted, by how much each process is missed."""
    lines = []
    for sample in samples:
        found = parts.cpu(sample.load)
        off = [
            f"{role} {found[role] / cpu - 1:+.0%}" for role, cpu in sample.cpu.items() if cpu > 0
        ]
        us = sum(sample.cpu.values()) / sample.load.rows_per_s * 1e6
        lines.append(f"  {load_text(sample.load)}: {us:.2f} us a row; fitted {', '.join(off)}")
    return lines


def comparison(predicted: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """In µs a row, process by process."""
    lines = [f"  {'us a row':<10}{'predicted':>12}{'measured':>12}{'off':>8}"]
    for role, us in measured.items():
        off = f"{predicted[role] / us - 1:+.0%}" if us > 0 else "-"
        lines.append(f"  {role:<10}{predicted[role]:>12.3f}{us:>12.3f}{off:>8}")
    return lines
