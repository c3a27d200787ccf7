"""Results that nobody measured."""

import json
from pathlib import Path
from typing import Any

Passes = list[tuple[float, float]]


def entry(name: str, passes: Passes, **extra: Any) -> dict[str, Any]:
    """A benchmark: (least seconds, yardstick in µs) of each pass."""
    least = min(seconds for seconds, _ in passes)
    return {
        "name": f"test_{name}",
        "fullname": f"bench/toy/bench_toy.py::test_{name}",
        "group": None,
        "stats": {"min": least, "median": least * 1.1, "rounds": 5},
        "extra_info": {"passes": [list(each) for each in passes], **extra},
    }


def run_of(*entries: dict[str, Any]) -> dict[str, Any]:
    """A file of them, with a machine that had nothing else to do."""
    machine = {"cpu_model": "Toy 9000 <&>", "cpus": 4, "load_1m_at_start": 0.1}
    when = "2026-11-02T10:00:00"
    return {"suite": "micro", "datetime": when, "machine_info": machine, "benchmarks": [*entries]}


def written(path: Path, *entries: dict[str, Any]) -> Path:
    """The same as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run_of(*entries)), encoding="utf-8")
    return path
