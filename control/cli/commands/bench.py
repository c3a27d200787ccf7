"""`fts bench`: what the engine can do on this machine. The measuring is in `bench/`, which comes
with the source and is in no package.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from control.cli.options import add_config, add_verbs, load
from engine.base.errors import ConfigError

_ROOT = Path(__file__).resolve().parents[3]
_SUITES = {
    "micro": "what each hot step costs, beside its budget",
    "flow": "how many rows a second go from a socket to a committed row, what each costs, how late",
    "peers": "the same steps as others take them, beside ours",
    "scale": "what grows with rate, streams and shards, and what many cores carry",
}
_EPILOG = """\
examples:
  fts bench flow --quick                    three minutes: a rate with its loss equation
  fts bench micro -k decode                 some of the hot steps
  fts bench flow --report flow.html         everything, and a page with plots
  fts bench compare                         the last two runs of each suite
  fts bench compare old.json --fail-above 10%

Results of the last runs are under bench/ of the state directory, as pytest-benchmark writes them.
exit codes: 0 fine; 1 a row was lost silently, a benchmark failed, or (compare) something is slower
"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts bench`."""
    parser = commands.add_parser(
        "bench", help="measure this machine: hot steps, whole runs, peers", epilog=_EPILOG
    )
    verbs = {name: (text, run_suite) for name, text in _SUITES.items()}
    compared = {"compare": ("whether something got slower", run_compare)}
    for name, verb in add_verbs(parser, verbs | compared, required=True):
        add_config(verb)
        if name == "compare":
            _add_comparison(verb)
        else:
            _add_suite(verb)


def _add_suite(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    verb.add_argument("--json", action="store_true", help="print the results as JSON")
    verb.add_argument("--out", type=Path, metavar="DIR", help="keep the results there")
    verb.add_argument("--report", type=Path, metavar="FILE", help="write a page with plots")
    verb.add_argument("-k", dest="expression", default="", metavar="EXPR", help="as pytest's -k")


def _add_comparison(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("was", type=Path, nargs="?", metavar="A", help="results of before")
    verb.add_argument("now", type=Path, nargs="?", metavar="B", help="results of now")
    verb.add_argument(
        "--fail-above", default="20%", metavar="PART", help="how much slower is slower (20%%)"
    )


def run_suite(options: argparse.Namespace) -> int:
    """Measure; exit code 1 where a benchmark failed."""
    arguments = [options.verb]
    arguments += [f"--{name}" for name in ("quick", "json") if getattr(options, name)]
    for name in ("out", "report"):
        if (path := getattr(options, name)) is not None:
            arguments += [f"--{name}", str(path.absolute())]
    arguments += ["-k", options.expression] if options.expression else []
    return _run(options, "run", arguments)


def run_compare(options: argparse.Namespace) -> int:
    """Compare; exit code 1 where something is slower."""
    files = [str(each.absolute()) for each in (options.was, options.now) if each is not None]
    return _run(options, "compare", [*files, "--fail-above", options.fail_above])


def _run(options: argparse.Namespace, verb: str, arguments: list[str]) -> int:
    if not (_ROOT / "bench" / "suite.py").exists():
        raise ConfigError(f"no bench/ in {_ROOT}: it comes with the source, not the package")
    state_dir = load(options).state_dir.absolute()
    command = [sys.executable, "-m", "bench.suite", verb, *arguments]
    command += ["--state-dir", str(state_dir)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A group of its own, so that Ctrl-C is told once: whoever hears it has engines to stop.
    process = subprocess.Popen(command, cwd=_ROOT, process_group=0)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
