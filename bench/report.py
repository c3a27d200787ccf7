"""A run as one page that needs nothing else: plots, and below them every figure there is."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

from bench.comparing import text_of
from bench.machine import warning
from bench.plots import Bar, bars, lines
from bench.results import Run, beside_ours, costs, figures

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --faint: #c9d1db; --good: #2f6db3;
  --bad: #c2402a }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d9e0e8; --paper: #12171e; --faint: #3a4552; --good: #5b95d6; --bad: #e0664f } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
figure { margin: 1.5rem 0 } figcaption { font-weight: 600; margin-bottom: .4rem }
svg { width: 100%; height: auto } svg text { font-size: 12px; fill: var(--ink) }
.good { fill: var(--good) } .bad { fill: var(--bad) } .limit { stroke: var(--ink); stroke-width: 2 }
.grid { stroke: var(--faint) } polyline { fill: none; stroke-width: 2 }
table { border-collapse: collapse; width: 100% } td, th { padding: .15rem .6rem; text-align: left;
  border-bottom: 1px solid var(--faint); font-variant-numeric: tabular-nums }
pre { white-space: pre-wrap } .warning { color: var(--bad); font-weight: 600 }
"""
_PERCENTILES: Final = ("p50", "p90", "p99", "p99.9")


def write(run: Run, path: Path) -> None:
    """Write the page of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run), encoding="utf-8")


def page(run: Run) -> str:
    """The page."""
    suite, machine = run.get("suite", ""), run["machine_info"]
    title = f"fintickstreams: bench {suite}, {run.get('datetime', '')[:16]}"
    busy = warning(machine) if "load_1m_at_start" in machine else ""
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
        f'<p class="warning">Warning: {escape(busy)}</p>' if busy else "",
        *_said(run),
        *_budgets(run),
        *_peers(run),
        *(plot for entry in run["benchmarks"] for plot in _own(entry)),
        "<h2>Machine</h2>",
        _table(machine),
        "<h2>Every figure</h2>",
        *(_entry(entry) for entry in run["benchmarks"]),
        "</html>",
    ]
    return "\n".join(part for part in parts if part)


def _said(run: Run) -> Iterator[str]:
    """What benchmarks say themselves, the loss equation above all."""
    for entry in run["benchmarks"]:
        if said := entry["extra_info"].get("lines"):
            text = "\n".join(said)
            yield f"<pre>{escape(text)}</pre>"


def _budgets(run: Run) -> Iterator[str]:
    rows = [
        Bar(
            cost.name,
            cost.least / cost.budget_s,
            f"{text_of(cost.least)} of {text_of(cost.budget_s)}: {cost.verdict}",
            cost.verdict == "within",
            1.0,
        )
        for cost in costs(run).values()
        if cost.budget_s
    ]
    if rows:
        yield bars("Cost of an item as a part of its budget (the mark)", rows)


def _peers(run: Run) -> Iterator[str]:
    for group, members in beside_ours(costs(run).values()).items():
        rows = [
            Bar(cost.name, cost.least, f"{text_of(cost.least)}, {times:.2f} x ours", cost.is_ours)
            for cost, times in members
        ]
        yield bars(f"{group}: ours and others", rows)


def _own(entry: Mapping[str, Any]) -> Iterator[str]:
    """Plots of a whole run's figures."""
    extra, name = entry["extra_info"], str(entry["name"]).removeprefix("test_")
    if search := extra.get("search"):
        rows = [
            Bar(
                f"{number}: {probe['seconds']:g} s", probe["rows_per_s"],
                f"{probe['rows_per_s']:,.0f} rows/s {'held' if probe['held'] else probe['why']}",
                probe["held"],
            )
            for number, probe in enumerate(search, 1)
        ]  # fmt: skip
        yield bars(f"{name}: the search for the highest rate that is held", rows)
    if cpu := extra.get("cpu_us_per_row"):
        rows = [Bar(role, each, f"{each:.3f} us") for role, each in cpu.items()]
        yield bars(f"{name}: CPU time a row, by process", rows)
    if predicted := extra.get("predicted_us"):
        rows = [
            Bar(role, us, f"{us:.3f} us, predicted {predicted[role]:.3f}", limit=predicted[role])
            for role, us in extra["measured_us"].items()
        ]
        yield bars(f"{name}: CPU time a row as measured, and as predicted (the mark)", rows)
    for share, found in extra.get("latency_ms", {}).items():
        by_stage = {
            stage: [percentiles[each] for each in _PERCENTILES]
            for stage, percentiles in found["stages"].items()
        }
        part = f"{share} of the held rate, " if share.endswith("%") else ""
        at = f"{part}{found['rows_per_s']:,.0f} rows/s"
        yield lines(f"{name}: ms since the row was due, at {at}", _PERCENTILES, by_stage)


def _entry(entry: Mapping[str, Any]) -> str:
    found = {key: entry[key] for key in ("stats", "extra_info")}
    return f"<h3>{escape(str(entry['name']))}</h3>{_table(found)}"


def _table(value: Any) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(each))}</td></tr>"
        for name, each in figures(value)
    )
    return f"<table>{rows}</table>"
