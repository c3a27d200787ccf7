"""`fts bench micro`: what each hot step costs on this machine, beside its budget."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from control.cli.exits import Exit
from control.cli.terminal.standard_streams import say
from engine.base.errors import ConfigError

_ROOT = Path(__file__).resolve().parents[3]


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts bench`."""
    parser = commands.add_parser("bench", help="measure the hot steps against their budgets")
    parser.add_argument("suite", choices=["micro"], help="micro: decode, ring, COPY, journal")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the benchmarks. A benchmark names its budget in `extra_info['budget_us']`."""
    folder = _ROOT / "bench" / options.suite
    if not any(folder.glob("bench_*.py")):
        raise ConfigError(f"no benchmarks in {folder}: they come with the source, not the package")
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        done = subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider",
                "-o", "python_files=bench_*.py", "--benchmark-only", "--benchmark-disable-gc",
                "--benchmark-columns=median,ops", f"--benchmark-json={report}", str(folder),
            ],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0 or not report.exists():
            sys.stderr.write(done.stdout)
            return Exit.FAILED
        results = _results(json.loads(report.read_text(encoding="utf-8")))
    if options.json:
        say(json.dumps(results))
    else:
        say("\n".join(_line(result) for result in results))
    return Exit.OK


def _results(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Median per item in microseconds; `items` says how many one call handles."""
    results = []
    for entry in report["benchmarks"]:
        extra = entry["extra_info"]
        median_us = entry["stats"]["median"] * 1e6 / extra.get("items", 1)
        budget_us = extra.get("budget_us")
        results.append(
            {
                "name": entry["name"].removeprefix("test_"),
                "median_us": round(median_us, 4),
                "budget_us": budget_us,
                "within": None if budget_us is None else median_us <= budget_us,
            }
        )
    return results


def _line(result: dict[str, Any]) -> str:
    budget = result["budget_us"]
    verdict = "" if budget is None else ("within" if result["within"] else "ABOVE")
    against = "" if budget is None else f"budget {budget:8.3f} us  {verdict}"
    return f"{result['name']:<44} {result['median_us']:8.3f} us  {against}".rstrip()
