"""Results of a suite: pytest-benchmark's JSON, kept run by run, and what of it is compared.

Several passes of one suite become one file: of each benchmark the pass that was disturbed least,
with the others in `extra_info["passes"]`, so that `pytest-benchmark compare` reads it as its own.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

SUITES: Final = ("micro", "flow", "peers", "scale")
KEPT: Final = 20
"""Runs of a suite; older ones are removed."""
Run = dict[str, Any]
"""A file as pytest-benchmark writes it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an item of one benchmark costs. Lists are in the order of the passes."""

    name: str
    seconds: tuple[float, ...]
    """The least of each pass."""
    yardsticks: tuple[float, ...]
    """What the fixed piece of work cost beside it; 1 where nobody measured it."""
    budget_s: float | None = None
    group: str = ""
    """The question, where there are several answers to it."""
    is_ours: bool = False
    """Whether it is the answer to which the others of its group are held."""

    @property
    def least(self) -> float:
        """In seconds: what whatever else ran has added least to."""
        return min(self.seconds)

    @property
    def floor(self) -> float:
        """In yardsticks, both at their least."""
        return self.least / min(self.yardsticks)

    @property
    def ratios(self) -> list[float]:
        """In yardsticks, pass by pass."""
        return sorted(s / y for s, y in zip(self.seconds, self.yardsticks, strict=True))

    @property
    def verdict(self) -> str:
        """Against the budget: within, ABOVE, or "" where there is none."""
        if self.budget_s is None:
            return ""
        return "within" if self.least <= self.budget_s else "ABOVE"


def costs(run: Run) -> dict[str, Cost]:
    """What each benchmark of a run found, by name, in the run's order."""
    found = {}
    names = Counter(entry["name"] for entry in run["benchmarks"])
    for entry in run["benchmarks"]:
        extra = entry["extra_info"]
        items = extra.get("items", 1)
        passes = extra.get("passes") or [[entry["stats"]["min"], extra.get("yardstick_us", 1.0)]]
        seconds, yardsticks = zip(*passes, strict=True)
        budget_us = extra.get("budget_us")
        name = entry["name"].removeprefix("test_")
        if names[entry["name"]] > 1:  # two questions may call an answer alike
            question = Path(entry["fullname"].partition("::")[0]).stem.removeprefix("bench_")
            name = f"{question} {name}"
        found[name] = Cost(
            name,
            tuple(each / items for each in seconds),
            tuple(yardsticks),
            None if budget_us is None else budget_us / 1e6,
            entry.get("group") or "",
            (entry.get("params") or {}).get("name") == "ours",
        )
    return found


def beside_ours(found: Iterable[Cost]) -> dict[str, list[tuple[Cost, float]]]:
    """Of each group that has one of ours, every cost and how many times ours it is."""
    groups: dict[str, list[Cost]] = {}
    for cost in found:
        groups.setdefault(cost.group, []).append(cost)
    beside = {}
    for group, members in groups.items():
        if ours := next((cost for cost in members if cost.is_ours), None):
            beside[group] = [(cost, cost.least / ours.least) for cost in members]
    return beside


def merged(passes: Sequence[Run]) -> Run:
    """Several passes of one suite as one run."""
    by_pass = [{each["fullname"]: each for each in run["benchmarks"]} for run in passes]
    whole = dict(passes[0])
    whole["benchmarks"] = [
        _least([found[name] for found in by_pass if name in found])
        for name in dict.fromkeys(name for found in by_pass for name in found)
    ]
    return whole


def _least(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    best = min(entries, key=lambda each: float(each["stats"]["min"]))
    passes = [[e["stats"]["min"], e["extra_info"].get("yardstick_us", 1.0)] for e in entries]
    stats = {key: value for key, value in best["stats"].items() if key != "data"}
    return {**best, "stats": stats, "extra_info": {**best["extra_info"], "passes": passes}}


def read(path: Path) -> Run:
    """A file of results. Raises ValueError for what is none."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        costs(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no results of a benchmark: {error}") from error
    return dict(run)


def kept(directory: Path) -> list[Path]:
    """Whole results of one suite, the oldest first: they are called by their time."""
    return [path for path in sorted(directory.glob("*.json")) if not path.match("*-part.json")]


def keep(run: Run, directory: Path, *, whole: bool = True) -> Path:
    """Put a run beside those before it, and remove the oldest beyond KEPT. Nothing is compared with
    what is not `whole`, unless it is named.
    """
    directory.mkdir(parents=True, exist_ok=True)
    end = "" if whole else "-part"
    path = directory / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}{end}.json"
    path.write_text(json.dumps(run, indent=1), encoding="utf-8")
    for old in sorted(directory.glob("*.json"))[:-KEPT]:
        old.unlink()
    return path


def figures(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every figure below a value, with the way to it."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from figures(below, (*path, str(key)))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from figures(below, (*path, str(number)))
    else:
        yield " ".join(path), value
