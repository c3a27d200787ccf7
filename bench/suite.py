"""Runs a suite, keeps what it found, compares it: what `fts bench` is.

    .venv/bin/python -m bench.suite run micro|flow|peers|scale [--quick] [-k EXPR] …
    .venv/bin/python -m bench.suite compare [A [B]] [--fail-above 20%]

A suite is a folder of questions, `bench_<question>.py`, each asked by pytest-benchmark. CPU time is
measured in several passes over the whole suite, so that what disturbs some seconds disturbs one of
them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import conftest, report
from bench.comparing import SLOWER_BY, compare, text_of
from bench.machine import machine, warning
from bench.progress import VARIABLE, say
from bench.results import SUITES, Cost, Run, beside_ours, costs, keep, kept, merged, read

ROOT: Final = Path(__file__).resolve().parents[1]
FINE, FAILED, USAGE = 0, 1, 2
_INTERRUPTED, _NONE_CHOSEN = 2, 5
"""Of pytest."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a suite is measured."""

    passes: int
    quick_passes: int
    options: tuple[str, ...] = ()
    quick_options: tuple[str, ...] = ()
    quick_only: str = ""
    """Of what there is, this alone where somebody waits."""
    once: tuple[str, ...] = ()
    """Questions that start whole engines: the first pass alone asks them."""


_CPU: Final = ("--benchmark-timer=time.process_time", "--benchmark-min-rounds=5")
MANNERS: Final = {
    "micro": Manner(5, 2, (*_CPU, "--benchmark-max-time=0.3"), (*_CPU, "--benchmark-max-time=0.1")),
    "scale": Manner(
        3, 1, (*_CPU, "--benchmark-max-time=0.3"), (*_CPU, "--benchmark-max-time=0.1"),
        once=("whole_engine",),
    ),
    "peers": Manner(1, 1, (), ("--benchmark-max-time=0.2", "--benchmark-min-rounds=3")),
    "flow": Manner(1, 1, quick_only="trades and not without and not tls"),
}  # fmt: skip


def run_suite(options: argparse.Namespace) -> int:
    """Measure, keep, show, compare."""
    suite: str = options.suite
    folder = ROOT / "bench" / suite
    if not any(folder.glob("bench_*.py")):
        say(f"fts: no benchmarks in {folder}")
        return USAGE
    directory = options.out or options.state_dir / "bench" / suite
    before = kept(directory)[-1:]
    at_start = machine()
    if busy := warning(at_start):
        say(f"warning: {busy}")
    manner = MANNERS[suite]
    count = manner.quick_passes if options.quick else manner.passes
    found = []
    for number in range(count):
        title = f"{suite} pass {number + 1}/{count}" if count > 1 else suite
        left_out = manner.once if number else ()
        run = _one_pass(options, folder, title, before, left_out)
        if run is None:
            return FAILED
        found.append(run)
    run = merged(found)
    run["suite"] = suite
    run["machine_info"] |= at_start  # pytest-benchmark looked at the end, when we were the load
    path = keep(run, directory, whole=not options.expression)
    if options.report:
        report.write(run, options.report)
        say(f"report: {options.report}")
    if options.json:
        print(json.dumps(summary(run)))
        return FINE
    show(run)
    say(f"kept: {path}")
    if before:
        _show_changes(read(before[0]), run)
    return FINE


def _one_pass(
    options: argparse.Namespace, folder: Path, title: str, before: Sequence[Path],
    left_out: Sequence[str],
) -> Run | None:  # fmt: skip
    """None where it failed, which has been said."""
    manner, quick = MANNERS[options.suite], options.quick
    chosen = options.expression or (manner.quick_only if quick else "")
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as scratch:
        results = Path(scratch) / "results.json"
        environment = {**os.environ, conftest.TITLE: title}
        environment |= {conftest.QUICK: "1"} if quick else {}
        environment |= {conftest.BEFORE: str(before[0])} if before else {}
        arguments = [
            sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider",
            "--timeout=0", "-o", "python_files=bench_*.py", "--benchmark-only", "--benchmark-quiet",
            "--benchmark-disable-gc", "--benchmark-columns=median,ops", "-rs",
            "-W", "ignore:Not saving anything",
            f"--benchmark-json={results}", *(manner.quick_options if quick else manner.options),
            *(f"--ignore={folder / f'bench_{name}.py'}" for name in left_out),
            *(["-k", chosen] if chosen else []), str(folder),
        ]  # fmt: skip
        said = Path(scratch) / "said"
        code = _run_pytest(arguments, environment, said)
        text = said.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.startswith("SKIPPED"):
                say(line)
        if code == 0 and results.exists():
            return read(results)
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code == _NONE_CHOSEN and left_out:
        return {"benchmarks": []}  # what was chosen is asked once, and has been
    if code in (0, _NONE_CHOSEN):
        say("fts: nothing was measured")
    else:
        sys.stderr.write(text)
    return None


def _run_pytest(arguments: Sequence[str], environment: dict[str, str], said: Path) -> int:
    """Its exit code. Ctrl-C is told it once, and it takes down what it started."""
    spoken = os.dup(2)
    try:
        with said.open("wb") as out:
            environment = {**environment, VARIABLE: str(spoken)}
            process = subprocess.Popen(
                arguments, cwd=ROOT, env=environment, pass_fds=[spoken], stdout=out,
                process_group=0,
            )  # fmt: skip
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    process.send_signal(signal.SIGINT)
    finally:
        os.close(spoken)


def summary(run: Run) -> dict[str, Any]:
    """The results for programs: costs of an item in microseconds, and every figure beside them."""
    return {
        "suite": run["suite"],
        "machine": run["machine_info"],
        "results": [
            {
                "name": cost.name,
                "least_us": round(cost.least * 1e6, 4),
                "budget_us": None if cost.budget_s is None else round(cost.budget_s * 1e6, 4),
                "within": None if cost.budget_s is None else cost.verdict == "within",
                "figures": _own_figures(entry),
            }
            for cost, entry in zip(costs(run).values(), run["benchmarks"], strict=True)
        ],
    }


def _own_figures(entry: dict[str, Any]) -> dict[str, Any]:
    known = {"items", "budget_us", "passes", "yardstick_us", "took_s"}
    return {name: value for name, value in entry["extra_info"].items() if name not in known}


def show(run: Run) -> None:
    """A line for each benchmark, and what it has to say itself."""
    found, told = costs(run), set()
    for group, members in beside_ours(found.values()).items():
        print(group)
        for cost, times in members:
            print(f"  {_line(cost):<84} {times:8.2f} x ours")
            told.add(cost.name)
    for cost, entry in zip(found.values(), run["benchmarks"], strict=True):
        if cost.name not in told:
            lines = entry["extra_info"].get("lines")
            print("\n".join(lines) if lines else _line(cost))


def _line(cost: Cost) -> str:
    against = "" if cost.budget_s is None else f"budget {text_of(cost.budget_s):>12}"
    return f"{cost.name:<52} {text_of(cost.least):>12}  {against}  {cost.verdict}".rstrip()


def _show_changes(was: Run, now: Run) -> None:
    changes = [each for each in compare(costs(was), costs(now)) if each.was and each.now]
    print("\nsince the last run (in yardsticks, so that the machine's mood does not count):")
    print("\n".join(each.line() for each in changes))


def run_compare(options: argparse.Namespace) -> int:
    """Two runs, or the newest of every suite with the one before it."""
    if options.was is not None:
        was, now = options.was, options.now or _newest_beside(options.was, options.state_dir)
        pairs = [(was, now)]
    else:
        pairs = []
        for suite in SUITES:
            both = kept(options.state_dir / "bench" / suite)[-2:]
            pairs += [(both[0], both[1])] if len(both) == 2 else []
    if not pairs:
        say("fts: nothing to compare: run a suite twice, or name files")
        return USAGE
    slower = []
    for was, now in pairs:
        print(f"{was} -> {now}")
        changes = compare(costs(read(was)), costs(read(now)), options.fail_above)
        print("\n".join(each.line() for each in changes))
        slower += [each.name for each in changes if each.word == "SLOWER"]
    if slower:
        print(f"slower by more than {options.fail_above:.0%}: {', '.join(slower)}")
    return FAILED if slower else FINE


def _newest_beside(was: Path, state_dir: Path) -> Path:
    """The newest run of the suite that a file belongs to."""
    suite = read(was).get("suite", "micro")
    found = [path for path in kept(state_dir / "bench" / suite) if path != was]
    if not found:
        raise ValueError(f"no other run of {suite} in {state_dir / 'bench' / suite}")
    return found[-1]


def part(text: str) -> float:
    """A share: `20%` or `0.2`. Raises ValueError."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 100:
        raise ValueError(f"{text!r} is no share above 0")
    return value


def parser() -> argparse.ArgumentParser:
    """The options of `fts bench`, which adds the state directory."""
    root = argparse.ArgumentParser(prog="bench.suite", description=(__doc__ or "").split("\n")[0])
    verbs = root.add_subparsers(required=True)
    run = verbs.add_parser("run")
    run.add_argument("suite", choices=SUITES)
    run.add_argument("--quick", action="store_true")
    run.add_argument("--json", action="store_true")
    run.add_argument("--out", type=Path)
    run.add_argument("--report", type=Path)
    run.add_argument("-k", dest="expression", default="")
    run.set_defaults(run=run_suite)
    comparing = verbs.add_parser("compare")
    comparing.add_argument("was", type=Path, nargs="?")
    comparing.add_argument("now", type=Path, nargs="?")
    comparing.add_argument("--fail-above", type=part, default=SLOWER_BY)
    comparing.set_defaults(run=run_compare)
    for each in (run, comparing):
        each.add_argument("--state-dir", type=Path, default=Path("build/bench-state"))
    return root


def main(arguments: Sequence[str]) -> int:
    """Run and say how it went."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ValueError as error:
        say(f"fts: {error}")
        return USAGE


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(FAILED)
