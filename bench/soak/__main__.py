"""A soak: hours of market, faults at random, and at the end whether anything was lost or leaked.

    .venv/bin/python -m bench.soak --for 7200 --rate 5000 --faults 20 --seed 1 --out DIR

It starts a simulated market with a ledger, a PostgreSQL, a Valkey and `fts up` of its own, kills,
freezes and cuts them by a plan that the seed makes, and writes into DIR: `samples.jsonl`,
`soak.svg`, `report.json`, and all that the engine wrote. Exit code 0: what was sent is stored
exactly once or declared as a gap, old days that retention dropped are in the lake, and every fault
was done.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.soak.drawing import picture
from bench.soak.run import Options, Outcome, Soak, Stopped
from engine.base.errors import EngineError

_EPILOG: Final = """\
examples:
  python -m bench.soak --for 120 --faults 3 --out /tmp/soak        does it work here?
  python -m bench.soak --for 7200 --rate 5000 --seed 7 --out DIR   an evening's proof
  python -m bench.soak --for 604800 --in-sums --out DIR            a week: the ledger keeps sums

Ctrl-C ends the market and proves what there is; once more ends everything. Room that it takes:
about 120 bytes a row in the database, and 45 in the ledger unless --in-sums. As root the journal
gets a small disk of its own (a loop device), which one of the faults fills.
"""
_COLUMNS: Final = (
    "process", "pid", "hours", "own MiB/h", "quiet", "own peak", "RSS MiB/h", "RSS peak",
    "PSS peak", "fds/h", "fds peak", "threads", "lag peak ms",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; 0 only if everything is where it should be."""
    options = _parser().parse_args(arguments)
    directory = options.out.absolute()
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        sys.exit(f"{directory} is not empty: a soak wants a directory of its own")
    soak = Soak(
        Options(
            options.run_s, options.rate, options.faults, options.seed, options.symbols,
            options.sample_s, directory, options.in_sums,
        )
    )  # fmt: skip
    try:
        outcome = soak.run()
    except Stopped:
        sys.exit("stopped before there was anything to prove")
    except (RuntimeError, EngineError) as error:
        sys.exit(f"no soak: {error}")
    marks = [(each.at_s, each.name) for each in outcome.done]
    (directory / "soak.svg").write_text(picture(soak.sampler.samples, marks), encoding="utf-8")
    report = _report(soak, outcome)
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    print(msgspec.json.encode(report).decode() if options.json else _text(outcome, directory))
    return 0 if outcome.holds else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description="Runs the engine for hours under faults, and proves that nothing was lost.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--for", dest="run_s", type=float, default=7200.0, metavar="SECONDS",
        help="how long (default: 7200)")  # fmt: skip
    add("--rate", type=float, default=5000.0, metavar="N",
        help="rows a second, trades and books (default: 5000)")  # fmt: skip
    add("--symbols", type=int, default=10, metavar="N", help="at each of two venues (default: 10)")
    add("--faults", type=int, default=20, metavar="N", help="how many (default: 20)")
    add("--seed", type=int, default=1, metavar="N", help="same seed, same market, same faults")
    add("--sample", dest="sample_s", type=float, default=10.0, metavar="SECONDS",
        help="between two looks at the processes (default: 10)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="an empty directory for all of it")
    add("--in-sums", action="store_true", help="the ledger keeps sums in place of rows")
    add("--json", action="store_true", help="the report as JSON, not as a table")
    return parser


def _report(soak: Soak, outcome: Outcome) -> dict[str, Any]:
    samples = soak.sampler.samples
    return {
        "options": {**asdict(soak.options), "directory": str(soak.options.directory)},
        "holds": outcome.holds,
        "problems": outcome.problems,
        "ledger": asdict(outcome.verdict),
        "gaps": outcome.gaps,
        "equation": outcome.equation,
        "exit_code": outcome.exit_code,
        "old_days": asdict(outcome.history),
        "faults": [asdict(each) for each in outcome.done],
        "trends": [each._asdict() for each in outcome.trends],
        "peaks": {
            name: max((getattr(sample, name) for sample in samples), default=0)
            for name in ("shm", "journal", "log")
        },
        "looks": len(samples),
        "looks_unanswered": soak.sampler.unanswered,
    }


def _text(outcome: Outcome, directory: Path) -> str:
    found = outcome.verdict
    lines = [_COLUMNS, *(tuple(map(_cell, each)) for each in outcome.trends)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_COLUMNS))]
    table = ["  ".join(map(str.rjust, line, widths)) for line in lines]
    verdict = "PROVEN" if outcome.holds else "FAILED"
    return "\n".join([
        *(f"{each.at_s:7.1f} s  {each.name}: {each.did}; recovered after {each.recovered_s} s"
          for each in outcome.done),
        *table,
        *outcome.problems,
        f"old days: {outcome.history.days} with {outcome.history.stored:,} rows ="
        f" {outcome.history.in_lake:,} in the lake + {outcome.history.left:,} left",
        f"{verdict}: sent {found.sent:,} = stored {found.stored:,} + declared missing"
        f" {found.declared_missing:,}; duplicates {found.duplicates:,}, missing {found.missing:,},"
        f" altered {found.altered:,}",
        f"{directory}: report.json, samples.jsonl, soak.svg",
    ])  # fmt: skip


def _cell(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
